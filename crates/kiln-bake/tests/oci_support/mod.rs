//! OCI images made by hand, real registries, and registries that misbehave as they are told.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kiln_bake::{BakeOrder, Base};
use kiln_model::Sha256;
use serde_json::{Value, json};

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
        // Somebody else may take the port between its choice and its use; then another one.
        (0..10).find_map(|_| Self::try_start(more)).expect("docker-registry is needed: cargo xtask setup")
    }

    fn try_start(more: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
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

/// What a registry of ours is asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// What it answers.
#[derive(Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The connection ends after so many bytes of the body.
    pub(crate) cut: Option<usize>,
}

impl Answer {
    pub(crate) fn of(status: u16, body: &[u8]) -> Self {
        Self { status, body: body.to_vec(), ..Self::default() }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// A server that answers as a test says.
pub(crate) struct Fake {
    pub(crate) host: String,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    pub(crate) fn new(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (asked, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (all, end) = (Arc::clone(&asked), Arc::clone(&ended));
        let thread = thread::spawn(move || {
            thread::scope(|scope| {
                while let Ok((stream, _)) = listener.accept() {
                    if end.load(Ordering::SeqCst) {
                        break;
                    }
                    let (answer, all) = (&answer, &all);
                    scope.spawn(move || serve(stream, answer, all));
                }
            });
        });
        Self { host, asked, ended, thread: Some(thread) }
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|a| format!("{} {}", a.method, a.path)).collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.host);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(stream: TcpStream, answer: &(impl Fn(&Asked) -> Answer + Sync), all: &Mutex<Vec<Asked>>) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let Some(asked) = request(&mut reader) else { return };
    all.lock().unwrap().push(asked.clone());
    let answer = answer(&asked);
    let mut out = stream;
    let mut head = format!(
        "HTTP/1.1 {} x\r\nContent-Length: {}\r\nConnection: close\r\n",
        answer.status,
        answer.body.len()
    );
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = &answer.body[..answer.cut.unwrap_or(answer.body.len()).min(answer.body.len())];
    let _ = out.write_all(head.as_bytes()).and_then(|()| out.write_all(b"\r\n"));
    if asked.method != "HEAD" {
        let _ = out.write_all(body);
    }
}

fn request(reader: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.to_owned()),
            None => break,
        };
    }
    let length = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { method, path, headers, body })
}

/// Answers like a registry that has these images as `app:latest`.
pub(crate) fn serving(image: &Image, asked: &Asked) -> Answer {
    let Some(rest) = asked.path.strip_prefix("/v2/team/app/") else { return Answer::of(404, b"") };
    if let Some(name) = rest.strip_prefix("manifests/") {
        let digest = name.strip_prefix("sha256:").unwrap_or(&image.manifest);
        return match image.blobs.get(digest) {
            Some(bytes) => Answer::of(200, bytes)
                .header("Content-Type", MANIFEST)
                .header("Docker-Content-Digest", format!("sha256:{digest}")),
            None => Answer::of(404, b""),
        };
    }
    let blob = rest.strip_prefix("blobs/sha256:").and_then(|digest| image.blobs.get(digest));
    let Some(bytes) = blob else { return Answer::of(404, b"") };
    let from = asked
        .headers
        .get("range")
        .and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match from {
        Some(from) if from < bytes.len() => Answer::of(206, &bytes[from..])
            .header("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())),
        Some(_) => Answer::of(416, b""),
        None => Answer::of(200, bytes),
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
