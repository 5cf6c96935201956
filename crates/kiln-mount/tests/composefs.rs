//! Mounts of an image that `mkfs.erofs` made, as root.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_model::{ImageDigest, ImageHandle, Sha256};
use kiln_mount::{IdRange, UserNamespace, composefs, composefs_with_upper};
use rustix::fs::{XattrFlags, chown, setxattr};
use rustix::io::Errno;

const OBJECT: &str = "/ab/cdef";
const CONTENT: &[u8] = b"the content of an object";

/// An image of three paths, its object directory, and room beside them.
struct Fixture {
    dir: PathBuf,
    image: ImageHandle,
}

impl Fixture {
    fn new(name: &str) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let (tree, objects, metadata) = (dir.join("tree"), dir.join("objects"), dir.join("image.erofs"));
        fs::create_dir_all(tree.join("dir")).unwrap();
        fs::create_dir_all(objects.join("ab")).unwrap();
        fs::write(objects.join(&OBJECT[1..]), CONTENT).unwrap();
        metadata_only(&tree.join("dir/file"));
        symlink("dir/file", tree.join("link")).unwrap();
        make_erofs(&tree, &metadata);
        let digest = ImageDigest(Sha256::of(b"not looked at by a mount"));
        Self { image: ImageHandle { digest, metadata, objects }, dir }
    }

    fn upper_and_work(&self) -> (PathBuf, PathBuf) {
        let both = (self.dir.join("upper"), self.dir.join("work"));
        fs::create_dir(&both.0).unwrap();
        fs::create_dir(&both.1).unwrap();
        both
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn metadata_only(path: &Path) {
    fs::File::create(path).unwrap().set_len(CONTENT.len() as u64).unwrap();
    chown(path, Some(rustix::fs::Uid::from_raw(33)), Some(rustix::fs::Gid::from_raw(34))).unwrap();
    for (name, value) in [("trusted.overlay.metacopy", ""), ("trusted.overlay.redirect", OBJECT)] {
        setxattr(path, name, value.as_bytes(), XattrFlags::empty()).expect("these tests need root");
    }
}

fn make_erofs(tree: &Path, image: &Path) {
    let out = Command::new("mkfs.erofs").arg(image).arg(tree).output();
    let out = out.expect("these tests need mkfs.erofs (package erofs-utils)");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// The path at which a detached mount can be walked by this process.
fn inside(mount: &OwnedFd, path: &str) -> PathBuf {
    format!("/proc/self/fd/{}/{path}", mount.as_raw_fd()).into()
}

fn high_range() -> UserNamespace {
    UserNamespace::new(&[IdRange { inside: 0, outside: 700_000, count: 65_536 }]).unwrap()
}

#[test]
fn an_image_is_mounted_read_only_with_the_contents_of_its_objects() {
    let fixture = Fixture::new("plain");
    let mount = composefs(&fixture.image, None).unwrap();
    assert_eq!(fs::read(inside(&mount, "dir/file")).unwrap(), CONTENT);
    assert_eq!(fs::read_link(inside(&mount, "link")).unwrap(), Path::new("dir/file"));
    let meta = fs::metadata(inside(&mount, "dir/file")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.len()), (33, 34, CONTENT.len() as u64));
    let refused = fs::write(inside(&mount, "dir/new"), "").unwrap_err();
    assert_eq!(Errno::from_io_error(&refused), Some(Errno::ROFS));
}

#[test]
fn setuid_bits_and_device_nodes_are_inert() {
    let fixture = Fixture::new("inert");
    let mount = composefs(&fixture.image, None).unwrap();
    let flags = rustix::fs::fstatvfs(&mount).unwrap().f_flag;
    for wanted in [libc::ST_RDONLY, libc::ST_NOSUID, libc::ST_NODEV] {
        assert!(flags.bits() & wanted != 0, "{flags:?} lacks {wanted:#x}");
    }
}

#[test]
fn owners_are_seen_through_the_id_map() {
    let fixture = Fixture::new("mapped");
    let mount = composefs(&fixture.image, Some(&high_range())).unwrap();
    let meta = fs::metadata(inside(&mount, "dir/file")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (700_033, 700_034));
    assert_eq!(fs::read(inside(&mount, "dir/file")).unwrap(), CONTENT);
}

#[test]
fn an_upper_directory_captures_what_changes() {
    let fixture = Fixture::new("upper");
    let (upper, work) = fixture.upper_and_work();
    let users = high_range();
    let mount = composefs_with_upper(&fixture.image, Some(&users), &upper, &work).unwrap();
    let file = inside(&mount, "dir/file");
    fs::write(&file, "changed").unwrap();
    chown(&file, Some(rustix::fs::Uid::from_raw(700_005)), None).unwrap();
    fs::remove_file(inside(&mount, "link")).unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"changed");
    drop(mount);

    let captured = upper.join("dir/file");
    assert_eq!(fs::read(&captured).unwrap(), b"changed");
    let meta = fs::metadata(&captured).unwrap();
    assert_eq!((users.inside(meta.uid()), users.inside(meta.gid())), (Some(5), Some(34)));
    assert_eq!(fs::symlink_metadata(upper.join("link")).unwrap().rdev(), 0, "a whiteout");
    let again = composefs(&fixture.image, None).unwrap();
    assert_eq!(fs::read(inside(&again, "dir/file")).unwrap(), CONTENT);
}

#[test]
fn a_file_whose_attributes_change_is_captured_with_its_content() {
    let fixture = Fixture::new("attributes");
    let (upper, work) = fixture.upper_and_work();
    let mount = composefs_with_upper(&fixture.image, None, &upper, &work).unwrap();
    chown(inside(&mount, "dir/file"), Some(rustix::fs::Uid::from_raw(7)), None).unwrap();
    drop(mount);
    assert_eq!(fs::read(upper.join("dir/file")).unwrap(), CONTENT);
}

#[test]
fn directories_of_the_image_cannot_be_renamed_into_the_upper_directory() {
    let fixture = Fixture::new("rename");
    let (upper, work) = fixture.upper_and_work();
    let mount = composefs_with_upper(&fixture.image, None, &upper, &work).unwrap();
    let refused = fs::rename(inside(&mount, "dir"), inside(&mount, "moved")).unwrap_err();
    assert_eq!(Errno::from_io_error(&refused), Some(Errno::XDEV));
}

#[test]
fn errors_say_what_was_attempted_on_what() {
    let fixture = Fixture::new("errors");
    let mut image = fixture.image.clone();
    image.metadata = fixture.dir.join("absent");
    let said = composefs(&image, None).unwrap_err().to_string();
    assert!(said.starts_with("could not open the image's metadata /") && said.ends_with("/absent"), "{said}");

    image.metadata = fixture.image.objects.join(&OBJECT[1..]);
    let said = composefs(&image, None).unwrap_err().to_string();
    assert!(said.starts_with("could not create it for a mount of type erofs"), "{said}");

    let apart = composefs_with_upper(&fixture.image, None, &fixture.dir, &fixture.dir.join("tree/dir"));
    assert!(apart.unwrap_err().to_string().contains("must be siblings"));
}

#[test]
fn a_dropped_mount_is_gone() {
    let fixture = Fixture::new("gone");
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    drop(composefs(&fixture.image, None).unwrap());
    assert!(!mounts().contains(fixture.dir.to_str().unwrap()));
}
