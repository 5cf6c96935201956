//! OCI images made by hand, real registries, and registries that misbehave as they are told.

#![allow(dead_code, unused_imports, reason = "each test program uses a part of it")]

mod fake;
mod podman;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kiln_bake::{BakeOrder, Base};
use kiln_model::Sha256;
use serde_json::{Value, json};

pub(crate) use fake::{Answer, Asked, Fake, serving};
pub(crate) use podman::Podman;

pub(crate) const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const TIME: u64 = 1_600_000_000;

/// A tar archive being filled, past the library's own checks where it has any.
pub(crate) struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn add(
        mut self,
        kind: tar::EntryType,
        path: &str,
        mode: u32,
        owner: (u64, u64),
        link: &str,
        content: &[u8],
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_mtime(TIME + path.len() as u64);
        header.set_size(content.len() as u64);
        if matches!(kind, tar::EntryType::Char | tar::EntryType::Block) {
            header.set_device_major(1).unwrap();
            header.set_device_minor(7).unwrap();
        }
        let fields = header.as_gnu_mut().unwrap();
        fields.name[..path.len()].copy_from_slice(path.as_bytes());
        fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub(crate) fn file(self, path: &str, content: &[u8]) -> Self {
        self.add(tar::EntryType::Regular, path, 0o644, (0, 0), "", content)
    }

    pub(crate) fn program(self, path: &str, content: &[u8]) -> Self {
        self.add(tar::EntryType::Regular, path, 0o755, (0, 0), "", content)
    }

    pub(crate) fn owned(self, path: &str, mode: u32, owner: (u64, u64), content: &[u8]) -> Self {
        self.add(tar::EntryType::Regular, path, mode, owner, "", content)
    }

    pub(crate) fn dir(self, path: &str, mode: u32) -> Self {
        self.add(tar::EntryType::Directory, path, mode, (0, 0), "", b"")
    }

    pub(crate) fn symlink(self, path: &str, to: &str) -> Self {
        self.add(tar::EntryType::Symlink, path, 0o777, (0, 0), to, b"")
    }

    pub(crate) fn hardlink(self, path: &str, to: &str) -> Self {
        self.add(tar::EntryType::Link, path, 0o644, (0, 0), to, b"")
    }

    pub(crate) fn special(self, path: &str, kind: tar::EntryType) -> Self {
        self.add(kind, path, 0o600, (0, 0), "", b"")
    }

    /// What the next entry has beside its header.
    pub(crate) fn pax(mut self, key: &str, value: &[u8]) -> Self {
        self.0.append_pax_extensions([(key, value)]).unwrap();
        self
    }

    pub(crate) fn done(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub(crate) fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// An image: its blobs by digest, and the digest of its manifest.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    pub(crate) manifest: String,
}

impl Image {
    /// Of layers as they are served and as they are uncompressed.
    pub(crate) fn new(layers: &[(Vec<u8>, Vec<u8>, &str)], run: Value) -> Self {
        let mut blobs = BTreeMap::new();
        let mut keep = |bytes: &[u8]| {
            let digest = Sha256::of(bytes).hex();
            blobs.insert(digest.clone(), bytes.to_vec());
            digest
        };
        let diff_ids: Vec<String> =
            layers.iter().map(|(_, plain, _)| format!("sha256:{}", Sha256::of(plain).hex())).collect();
        let config = json!({
            "created": "2020-01-01T00:00:00Z", "architecture": "amd64", "os": "linux",
            "config": run, "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = serde_json::to_vec(&config).unwrap();
        let described = |media_type: &str, bytes: &[u8], digest: String| json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()});
        let layers: Vec<Value> =
            layers.iter().map(|(served, _, kind)| described(kind, served, keep(served))).collect();
        let digest = keep(&config);
        let config = described("application/vnd.oci.image.config.v1+json", &config, digest);
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        let manifest = keep(&serde_json::to_vec(&manifest).unwrap());
        Self { blobs, manifest }
    }

    /// Of uncompressed layers, served as gzip.
    pub(crate) fn of(layers: &[Vec<u8>], run: Value) -> Self {
        let served: Vec<_> = layers.iter().map(|plain| (gzipped(plain), plain.clone(), GZIP)).collect();
        Self::new(&served, run)
    }

    pub(crate) fn manifest_bytes(&self) -> &[u8] {
        &self.blobs[&self.manifest]
    }

    /// Writes it as a layout in which it is called `tag`.
    pub(crate) fn layout(&self, dir: &Path, tag: &str) {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        for (digest, bytes) in &self.blobs {
            fs::write(blobs.join(digest), bytes).unwrap();
        }
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": MANIFEST, "digest": format!("sha256:{}", self.manifest), "size": self.manifest_bytes().len(),
            "annotations": {"org.opencontainers.image.ref.name": tag},
        }]});
        fs::write(dir.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    }
}

/// `order` from an OCI image, run as that says.
pub(crate) fn from_oci(project: &Path, reference: &str) -> BakeOrder {
    let mut order = crate::common::order(project, &[]);
    order.from = Base::Oci(reference.parse().unwrap());
    order.run = Vec::new();
    order
}

/// Runs a tool of Debian's; what it printed.
pub(crate) fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|e| panic!("{program} is needed ({e}): cargo xtask setup"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {} {error}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Debian's docker-registry on a port of its own.
pub(crate) struct Registry {
    child: Child,
    pub(crate) host: String,
    _dir: tempfile::TempDir,
}

impl Registry {
    pub(crate) fn start(more: &str) -> Self {
        Self::start_with(more, &[])
    }

    /// With these files in the directory that `DIR` in `more` stands for.
    pub(crate) fn start_with(more: &str, files: &[(&str, &str)]) -> Self {
        // Somebody else may take the port between its choice and its use; then another one.
        (0..10)
            .find_map(|_| Self::try_start(more, files))
            .expect("docker-registry is needed: cargo xtask setup")
    }

    fn try_start(more: &str, files: &[(&str, &str)]) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| fs::write(dir.path().join(name), text).unwrap());
        let host = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {host}\n{}",
            dir.path().join("data").display(),
            more.replace("DIR", &dir.path().display().to_string()),
        );
        let path = dir.path().join("config.yml");
        fs::write(&path, config).unwrap();
        fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.expect("docker-registry is needed: cargo xtask setup");
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until && child.try_wait().unwrap().is_none() {
            if TcpStream::connect(&host).is_ok() {
                return Some(Self { child, host, _dir: dir });
            }
            thread::park_timeout(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
        None
    }
}

/// `user` with the password `secret`, as `htpasswd -B` writes it.
const HTPASSWD: &str = "user:$2y$05$kQYt6TA5iAE1dDm1J2nQ5.DlKQGPfApl3mXSBKlUKrIBhhN1aABH6\n";

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every path below `root` with all that can be seen of it but the times of directories, which tools set as they
/// like.
pub(crate) fn listing(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    list(root, Path::new("/"), &mut lines);
    lines.sort();
    lines
}

fn list(root: &Path, inside: &Path, lines: &mut Vec<String>) {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let here: PathBuf = root.join(inside.strip_prefix("/").unwrap());
    let meta = here.symlink_metadata().unwrap();
    let kind = meta.file_type();
    let what = if kind.is_dir() {
        "dir".to_owned()
    } else if kind.is_symlink() {
        format!("link {} {}", fs::read_link(&here).unwrap().display(), meta.mtime())
    } else if kind.is_file() {
        format!("file {} {} {}", Sha256::of(&fs::read(&here).unwrap()), meta.mtime(), meta.nlink())
    } else {
        format!("{} {:x}", if kind.is_fifo() { "fifo" } else { "device" }, meta.rdev())
    };
    let mode = if kind.is_symlink() { 0 } else { meta.mode() & 0o7777 };
    lines.push(format!(
        "{} {mode:o} {}:{} {what} {}",
        inside.display(),
        meta.uid(),
        meta.gid(),
        xattrs(&here)
    ));
    if kind.is_dir() {
        for entry in fs::read_dir(&here).unwrap() {
            list(root, &inside.join(entry.unwrap().file_name()), lines);
        }
    }
}

fn xattrs(path: &Path) -> String {
    let mut names = vec![0; 1 << 16];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    let mut all = Vec::new();
    for name in names[..length]
        .split(|c| *c == 0)
        .filter(|n| n.starts_with(b"user.") || n.starts_with(b"security.cap"))
    {
        let name = String::from_utf8_lossy(name).into_owned();
        let mut value = vec![0; 1 << 16];
        let n = rustix::fs::lgetxattr(path, name.as_str(), &mut value).unwrap();
        if name != "user.kiln.image" && !name.starts_with("user.rootlesscontainers") {
            all.push(format!("{name}={:?}", &value[..n]));
        }
    }
    all.sort();
    all.join(" ")
}

/// What `look` sees of a mounted image. On a thread of its own: it gets mounts of its own.
pub(crate) fn mounted<T>(image: &kiln_model::ImageHandle, look: impl FnOnce(&Path) -> T) -> T {
    use rustix::mount::{MountPropagationFlags, MoveMountFlags, mount_change, move_mount};
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    // SAFETY: this thread alone gets its own mounts; the descriptor table stays shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("root is needed");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let tree = kiln_mount::composefs(image, None).unwrap();
    move_mount(&tree, "", rustix::fs::CWD, "/sys", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
    look(Path::new("/sys"))
}

pub(crate) fn busybox() -> Vec<u8> {
    fs::read("/bin/busybox").expect("busybox-static is needed: cargo xtask setup")
}

/// Two layers of which the upper one takes away, replaces and adds in every way there is.
pub(crate) fn layers() -> Vec<Vec<u8>> {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // CAP_DAC_OVERRIDE and CAP_FOWNER: with a byte that ends a line.
    let lined = [1, 0, 0, 2, b'\n', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let large: Vec<u8> = (0..300_000_u32).flat_map(|n| n.to_le_bytes()).collect();
    let lower = Layer::new()
        .dir("./", 0o755)
        .dir("bin/", 0o755)
        .program("bin/busybox", &busybox())
        .hardlink("bin/sh", "bin/busybox")
        .hardlink("bin/cat", "./bin/busybox")
        .dir("etc/", 0o755)
        .file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv:/bin/sh\n")
        .file("etc/group", b"root:x:0:\nweb:x:34:\nlog:x:40:web\n")
        .dir("usr/", 0o755)
        .dir("usr/lib/", 0o755)
        .symlink("lib", "usr/lib")
        .symlink("by-one", "by-two")
        .symlink("by-two", "lib")
        .file("by-one/c.so", b"through three links")
        .file("usr/lib/a.so", b"a")
        .dir("opaque/", 0o700)
        .file("opaque/old", b"old")
        .dir("opaque/deep/", 0o755)
        .file("opaque/deep/old", b"old")
        .dir("whole/", 0o755)
        .file("whole/x", b"x")
        .dir("data/", 0o755)
        .dir("data/real/", 0o755)
        .file("data/real/keep", b"keep")
        .symlink("data/one", "real")
        .symlink("data/other", "real")
        .file("gone", b"gone")
        .file("was-file", b"f")
        .dir("was-dir/", 0o755)
        .file("was-dir/x", b"x")
        .file("two-names", b"one content")
        .hardlink("other-name", "two-names")
        .owned("srv-owned", 0o4711, (33, 34), b"suid")
        .file("large", &large)
        .pax("SCHILY.xattr.user.note", b"hello")
        .file("noted", b"n")
        .pax("SCHILY.xattr.security.capability", &capability)
        .program("able", b"#!/bin/sh\n")
        .pax("SCHILY.xattr.security.capability", &lined)
        .program("abler", b"#!/bin/sh\n")
        .special("pipe", tar::EntryType::Fifo)
        .special("device", tar::EntryType::Char)
        .hardlink("another-link", "lib")
        .hardlink("another-pipe", "pipe")
        .hardlink("another-device", "device")
        .done();
    let upper = Layer::new()
        .file(".wh.gone", b"")
        .file(".wh.pipe", b"")
        .hardlink("third-link", "another-link")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"new")
        .file(".wh.whole", b"")
        .dir("data/one/", 0o755)
        .file("data/one/.wh..wh..opq", b"")
        .file("data/one/new", b"new")
        .dir("data/other/", 0o755)
        .file("data/other/.wh.keep", b"")
        .file("lib/b.so", b"through a link")
        .dir("was-file/", 0o755)
        .file("was-file/y", b"y")
        .file("was-dir", b"now a file")
        .file("two-names", b"another content")
        .hardlink("third-name", "usr/lib/a.so")
        .file("implied/parents/z", b"z")
        .done();
    vec![lower, upper]
}

pub(crate) fn run() -> Value {
    json!({"Entrypoint": ["sh"], "Cmd": ["-c", "exit 0"], "Env": ["PATH=/usr/bin:/bin", "A=b"], "User": "web",
           "WorkingDir": "/opaque", "StopSignal": "SIGQUIT"})
}

/// The same of a file system that has all contents inside.
pub(crate) fn mounted_alone<T>(image: &kiln_model::ImageHandle, look: impl FnOnce(&Path) -> T) -> T {
    use rustix::mount::{MountPropagationFlags, MoveMountFlags, mount_change, move_mount};
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    // SAFETY: this thread alone gets its own mounts; the descriptor table stays shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("root is needed");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let tree = kiln_mount::metadata(image).unwrap();
    move_mount(&tree, "", rustix::fs::CWD, "/sys", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
    look(Path::new("/sys"))
}
