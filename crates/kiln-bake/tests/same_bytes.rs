//! Same inputs, same bytes: wherever, whenever and by whomever an image is baked.
//!
//! Each bake is a process of its own (this program again, in the role of [`in_another_world`]), because umask, locale,
//! host name, user and clock belong to a process.

mod common;

use std::fs::{self, FileTimes, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use common::{baked, file, locked, order, write};
use kiln_bake::{BakeOrder, Base};
use kiln_model::{ImageRecord, Lock};
use kiln_store::Store;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::thread::{CpuSet, UnshareFlags, unshare_unsafe};
use serde::{Deserialize, Serialize};

const ROLE: &str = "KILN_SAME_BYTES_WORLD";
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// Everything around a bake that must not show in what it makes.
#[derive(Debug, Serialize, Deserialize)]
struct World {
    /// The directory of the project.
    project: PathBuf,
    /// The directory of the store.
    state: PathBuf,
    /// From scratch, or from Debian with the lock that lies in this file, or is made there.
    lock: Option<PathBuf>,
    umask: u32,
    hostname: Option<String>,
    uid: u32,
    one_cpu: bool,
    /// Whether the host is no Debian: it has neither apt nor dpkg, and no packages that they know of.
    without_apt: bool,
    /// Where the record is to be written.
    answer: PathBuf,
}

/// The role of the processes that this program starts; as a test of its own it has nothing to do.
#[test]
fn in_another_world() {
    let Some(world) = std::env::var_os(ROLE) else { return };
    let world: World = serde_json::from_str(world.to_str().unwrap()).unwrap();
    enter(&world);
    let store = Store::open(&world.state).unwrap();
    let (order, lock) = match &world.lock {
        Some(file) => {
            let order = debian(&world.project);
            if !file.exists() {
                fs::write(file, locked(&order, &store).to_toml()).unwrap();
            }
            (order, Lock::from_toml(&fs::read_to_string(file).unwrap()).unwrap())
        }
        None => {
            let order = scratch(&world.project);
            let lock = locked(&order, &store);
            (order, lock)
        }
    };
    let baked = baked(&order, &lock, &store);
    assert!(!baked.reused, "it was to be made again");
    fs::write(&world.answer, serde_json::to_vec(&baked.record).unwrap()).unwrap();
}

fn enter(world: &World) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(world.umask));
    if world.one_cpu {
        let mut first = CpuSet::new();
        first.set(0);
        rustix::thread::sched_setaffinity(None, &first).unwrap();
        assert_eq!(std::thread::available_parallelism().unwrap().get(), 1);
    }
    if let Some(name) = &world.hostname {
        // SAFETY: this thread alone gets a host name of its own; memory and descriptors stay shared.
        unsafe { unshare_unsafe(UnshareFlags::NEWUTS) }.unwrap();
        rustix::system::sethostname(name.as_bytes()).unwrap();
    }
    if world.without_apt {
        hide_apt();
    }
    if world.uid != 0 {
        // SAFETY: plain numbers; the C library changes all threads of this process, which ends soon.
        unsafe {
            assert_eq!(
                (libc::setgroups(0, std::ptr::null()), libc::setgid(world.uid), libc::setuid(world.uid)),
                (0, 0, 0)
            )
        };
        assert!(Store::open(Path::new("/root/of-somebody-else")).is_err(), "no longer root");
    }
}

/// Whatever Debian has for its packages, and what packages are compressed with.
const OF_DEBIAN: [&str; 7] = ["apt", "dpkg", "xz", "zstd", "ar", "debconf", "perl"];
const EMPTY: [&str; 3] = ["/var/lib/dpkg", "/var/lib/apt", "/var/cache/apt"];

/// Lays nothing over it, for this thread and those it starts.
fn hide_apt() {
    // SAFETY: this thread alone gets its own mounts; the descriptor table stays shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    for entry in fs::read_dir("/usr/bin").unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let of = |tool: &&str| {
            name.strip_prefix(*tool).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        // Links lead to what is hidden under its own name.
        if OF_DEBIAN.iter().any(of) && !path.is_symlink() {
            mount_bind("/dev/null", &path).unwrap();
        }
    }
    for dir in EMPTY {
        mount("nothing", dir, "tmpfs", MountFlags::empty(), None).unwrap();
    }
    for tool in ["apt-get", "apt-cache", "apt-config", "dpkg", "dpkg-deb", "xz"] {
        let run = Command::new(tool).arg("--version").output();
        assert!(run.is_err(), "{tool} was to be out of reach, and says {run:?}");
    }
    assert!(fs::read_dir(EMPTY[0]).unwrap().next().is_none());
}

fn bake_in(world: &World, surroundings: &[(&str, &str)]) -> ImageRecord {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "in_another_world", "--nocapture"]).envs(surroundings.iter().copied());
    command.env(ROLE, serde_json::to_string(world).unwrap()).current_dir(&world.project);
    let out = command.output().unwrap();
    let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    assert!(out.status.success(), "{world:?} {surroundings:?}: {said}");
    let record = serde_json::from_slice(&fs::read(&world.answer).unwrap()).unwrap();
    fs::remove_file(&world.answer).unwrap();
    record
}

/// A project with the same files each time, made in another order, at another time, under another umask.
fn project(dir: &Path, reversed: bool, age: Duration) {
    let mut files = vec![
        ("a/one", "1"),
        ("a/two", "2"),
        ("b", "a longer text that is kept as an object of its own, sixty-five bytes."),
        ("program", "#!/nothing\n"),
    ];
    if reversed {
        files.reverse();
    }
    for (name, text) in files {
        write(dir, name, text);
        let path = dir.join(name);
        let group_and_others = if reversed { 0o066 } else { 0 };
        let executable = if name == "program" { 0o700 } else { 0o600 };
        fs::set_permissions(&path, Permissions::from_mode(executable | group_and_others)).unwrap();
        let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + age);
        fs::File::options().write(true).open(&path).unwrap().set_times(times).unwrap();
    }
}

fn with_files(mut order: BakeOrder) -> BakeOrder {
    order.files = vec![file("a/", "/srv"), file("b", "/etc/b"), file("program", "/program")];
    order.files[0].owner = Some("33:44".into());
    order.files[1].mode = Some(0o604);
    order.run = vec!["/program".into()];
    order
}

fn scratch(project: &Path) -> BakeOrder {
    BakeOrder { from: Base::Scratch, ..with_files(order(project, &[])) }
}

/// What brings scripts that make files of what they find, sorted and not.
fn debian(project: &Path) -> BakeOrder {
    with_files(order(project, &["ca-certificates", "tzdata"]))
}

/// A directory for one world, its project in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new(reversed: bool, age: u64) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.project()).unwrap();
        project(&place.project(), reversed, Duration::from_secs(age));
        place
    }

    fn project(&self) -> PathBuf {
        self.0.path().join("the project")
    }

    fn world(&self, lock: Option<&Path>) -> World {
        World {
            project: self.project(),
            state: self.0.path().join("state"),
            lock: lock.map(Path::to_owned),
            umask: 0o022,
            hostname: None,
            uid: 0,
            one_cpu: false,
            without_apt: false,
            answer: self.0.path().join("record.json"),
        }
    }

    fn give_to(&self, uid: u32) {
        let mut todo = vec![self.0.path().to_owned()];
        while let Some(path) = todo.pop() {
            chown(&path, Some(uid), Some(uid)).unwrap();
            if path.is_dir() {
                todo.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            }
        }
    }
}

const HOME: [(&str, &str); 3] = [("LC_ALL", "C"), ("TZ", "UTC"), ("HOME", "/root")];
const ABROAD: [(&str, &str); 6] = [
    ("LC_ALL", "tr_TR.UTF-8"),
    ("LANGUAGE", "tr:de"),
    ("TZ", "Pacific/Kiritimati"),
    ("HOME", "/nowhere"),
    ("SOURCE_DATE_EPOCH", "12345"),
    ("PERL_HASH_SEED", "42"),
];
const IN_2038: [(&str, &str); 2] = [("LD_PRELOAD", FAKETIME), ("FAKETIME", "@2038-01-20 03:14:08")];

fn assert_same(one: &ImageRecord, other: &ImageRecord) {
    assert_eq!(one.digest, other.digest);
    assert_eq!(one, other, "all that is recorded, SBOM and provenance as well");
}

#[test]
fn from_scratch() {
    assert!(Path::new(FAKETIME).exists(), "these tests need the package libfaketime");
    let (here, there, elsewhere) =
        (Place::new(false, 1_000_000_000), Place::new(true, 1_234_567_890), Place::new(true, 1));
    let usual = bake_in(&here.world(None), &HOME);
    let mut world = there.world(None);
    (world.umask, world.hostname, world.one_cpu) = (0o077, Some("elsewhere".into()), true);
    assert_same(&bake_in(&world, &[&ABROAD[..], &IN_2038].concat()), &usual);
    let nobody = 65_534;
    elsewhere.give_to(nobody);
    let world = World { uid: nobody, umask: 0, ..elsewhere.world(None) };
    assert_same(&bake_in(&world, &ABROAD), &usual);
}

#[test]
fn from_debian_and_again_without_what_was_cached() {
    let there = Place::new(true, 1_234_567_890);
    let (_here, mut world, usual, lock) = locked_without_apt();
    let made_without = fs::read_to_string(world.lock.as_ref().unwrap()).unwrap();
    assert_eq!(made_without, lock.to_toml(), "apt and dpkg have no say in what is chosen");

    let mut abroad = there.world(world.lock.as_deref());
    carry_packages(&lock, &world.state, &abroad.state);
    (abroad.umask, abroad.hostname, abroad.one_cpu) = (0o077, Some("elsewhere".into()), true);
    assert_same(&bake_in(&abroad, &[&ABROAD[..], &IN_2038].concat()), &usual);

    for gone in ["cache", "inputs", "images"] {
        fs::remove_dir_all(world.state.join(gone)).unwrap();
    }
    world.umask = 0o027;
    assert_same(&bake_in(&world, &ABROAD), &usual);
}

/// An image that was locked and baked where there is neither apt nor dpkg, and the lock that is made where they are. A mirror
/// of several machines, or at the moment it is brought up to date, may answer with another index the second time; then both
/// are made again.
fn locked_without_apt() -> (Place, World, ImageRecord, Lock) {
    let dates = |toml: &str| -> Vec<String> {
        toml.lines().filter(|line| line.starts_with("date = ")).map(str::to_owned).collect()
    };
    for _ in 0..5 {
        let here = Place::new(false, 1_000_000_000);
        let mut world = here.world(Some(&here.0.path().join("kiln.lock")));
        world.without_apt = true;
        let usual = bake_in(&world, &HOME);
        let lock = locked(&debian(&here.project()), &Store::open(&world.state).unwrap());
        world.without_apt = false;
        if dates(&fs::read_to_string(world.lock.as_ref().unwrap()).unwrap()) == dates(&lock.to_toml()) {
            return (here, world, usual, lock);
        }
    }
    panic!("the mirror answers with another index each time");
}

/// So that the second bake needs no network, whose certificates a changed clock would find out of date.
fn carry_packages(lock: &Lock, from: &Path, to: &Path) {
    let (from, to) = (Store::open(from).unwrap(), Store::open(to).unwrap());
    for package in lock.images.values().flat_map(|image| &image.packages) {
        let path = from.package(&package.sha256).unwrap().unwrap();
        to.put_package(&package.sha256, &mut fs::File::open(path).unwrap()).unwrap();
    }
}
