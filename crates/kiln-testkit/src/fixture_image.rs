//! A small image for tests of engines: one static program under many names, and some that cannot be executed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use kiln_bake::erofs;
use kiln_model::{
    ByteSize, Content, ExecOrder, ImageDigest, ImageHandle, InstanceId, InstanceOrder, Limits, Meta, Node,
    RunSettings, Sha256, Tree, Volatile, Xattrs,
};
use kiln_store::Store;
use tempfile::TempDir;

/// Where Debian puts the program.
const BUSYBOX: &str = "/bin/busybox";

const DIRECTORIES: [&str; 10] =
    ["/", "/bin", "/dev", "/etc", "/lib", "/proc", "/sys", "/tmp", "/run", "/root"];

const NAMES: [&str; 45] = [
    "awk", "cat", "chmod", "chown", "chroot", "cut", "dd", "df", "echo", "env", "false", "grep", "head",
    "hostname", "httpd", "id", "ip", "kill", "ln", "ls", "mkdir", "mkfifo", "mknod", "mount", "nc", "nproc",
    "ps", "pwd", "readlink", "seq", "sh", "sleep", "stat", "tail", "tee", "test", "touch", "tr", "true",
    "umount", "uname", "unshare", "wc", "wget", "yes",
];

/// The user its programs run as.
pub const USER: u32 = 1000;

/// The image, and the state directory it lies in, which goes when this value does.
#[derive(Debug)]
pub struct FixtureImage {
    /// For orders.
    pub handle: ImageHandle,
    _dir: TempDir,
}

impl FixtureImage {
    /// Makes the image.
    ///
    /// # Panics
    /// If the host lacks the program, or the state directory cannot be written.
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// The same with a program of this host, and the loader and libraries it names (`ldd` tells).
    ///
    /// # Panics
    /// As [`FixtureImage::new`], or if the program cannot be read.
    pub fn with_program(program: &Path, at: &str) -> Self {
        let listed = Command::new("ldd").arg(program).output().expect("these tests need ldd");
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let words = listed.split_whitespace().filter(|word| word.starts_with('/'));
        let mut files: Vec<(String, Vec<u8>)> = words
            .map(|path| (path.to_owned(), fs::read(path).expect("a library that ldd has found")))
            .collect();
        files.push((at.to_owned(), fs::read(program).expect("a program of this host")));
        Self::with(&files)
    }

    fn with(files: &[(String, Vec<u8>)]) -> Self {
        let program = fs::read(BUSYBOX)
            .unwrap_or_else(|e| panic!("these tests need {BUSYBOX} (package busybox-static): {e}"));
        assert!(is_static(&program), "{BUSYBOX} needs a loader: these tests need the package busybox-static");
        let dir = tempfile::tempdir().expect("a directory for the fixture image");
        let store = Store::open(dir.path()).expect("a store for the fixture image");
        let written =
            erofs::write(&tree(&store, &program, files)).expect("the fixture image is a sound tree");
        let digest = ImageDigest(Sha256::of(&written.bytes));
        let metadata = dir.path().join("fixture.erofs");
        fs::write(&metadata, &written.bytes).expect("room for the fixture image");
        let handle = ImageHandle { digest, metadata, objects: store.objects_dir().to_owned() };
        Self { handle, _dir: dir }
    }

    /// An order for an instance that runs `argv`, with 32 MiB, 16 processes, /tmp and a grace period of 10 s.
    pub fn order(&self, id: &str, argv: &[&str]) -> InstanceOrder {
        InstanceOrder {
            id: id.parse::<InstanceId>().expect("a valid instance id"),
            app: "fixture".parse().expect("a valid app name"),
            service: None,
            release: None,
            image: self.handle.clone(),
            run: run_settings(argv),
            env: BTreeMap::new(),
            limits: Limits { memory: ByteSize(32 << 20), cpu_millis: 1000, pids: 16, io: None },
            volatile: vec![Volatile::new("/tmp", ByteSize(4 << 20))],
            capabilities: Default::default(),
            secrets: Vec::new(),
            needs: vec![],
        }
    }

    /// An order for a command in an instance of it, as the user its programs run as.
    pub fn command(&self, argv: Vec<String>) -> ExecOrder {
        ExecOrder::beside(&run_settings(&[]), argv)
    }

    /// An order for an instance that runs a shell script.
    pub fn shell(&self, id: &str, script: &str) -> InstanceOrder {
        self.order(id, &["/bin/sh", "-c", script])
    }
}

impl Default for FixtureImage {
    fn default() -> Self {
        Self::new()
    }
}

fn run_settings(argv: &[&str]) -> RunSettings {
    let argv = argv.iter().copied();
    RunSettings { user: "fixture".into(), uid: USER, gid: USER, ..RunSettings::as_root(argv) }
}

/// Whether an ELF file has no program header PT_INTERP.
fn is_static(program: &[u8]) -> bool {
    let headers = program.get(64..).unwrap_or_default().chunks_exact(56).take(16);
    program.starts_with(b"\x7fELF") && !headers.into_iter().any(|header| header.starts_with(&[3, 0, 0, 0]))
}

fn meta(mode: u16) -> Meta {
    Meta { mode, uid: 0, gid: 0, mtime: 0, xattrs: Xattrs::new() }
}

fn tree(store: &Store, program: &[u8], files: &[(String, Vec<u8>)]) -> Tree {
    let mut tree = Tree::new();
    let mut put = |path: &str, node| tree.insert(path, node).expect("paths of the fixture image are sound");
    for dir in DIRECTORIES {
        put(dir, Node::Directory(meta(0o755)));
    }
    let (digest, size) = store.objects().put_bytes(program).expect("room for the fixture's program");
    put("/bin/busybox", Node::File(meta(0o755), Content::Object { digest, size }));
    for name in NAMES {
        put(&format!("/bin/{name}"), Node::Symlink(meta(0o777), b"busybox".to_vec()));
    }
    let users = format!("root:x:0:0::/root:/bin/sh\nfixture:x:{USER}:{USER}::/tmp:/bin/sh\n");
    put("/etc/hosts", small(store, 0o644, b"127.0.0.1 localhost\n"));
    put("/etc/passwd", small(store, 0o644, users.as_bytes()));
    put("/bin/not-executable", small(store, 0o644, b"#!/bin/sh\n"));
    put("/bin/not-a-program", small(store, 0o755, b"\x00\x01\x02\x03 nothing a kernel knows"));
    put("/bin/other-machine", small(store, 0o755, &other_machine(program)));
    put("/bin/no-loader", small(store, 0o755, &no_loader(program)));
    put("/bin/no-interpreter", small(store, 0o755, b"#!/bin/missing -e\n"));
    for (path, bytes) in files {
        for dir in parents(path) {
            put(&dir, Node::Directory(meta(0o755)));
        }
        put(path, small(store, 0o755, bytes));
    }
    tree
}

/// The directories above a path that the image does not have anyway.
fn parents(path: &str) -> Vec<String> {
    let ends = path.match_indices('/').map(|(at, _)| path[..at].to_owned()).filter(|dir| !dir.is_empty());
    ends.filter(|dir| !DIRECTORIES.contains(&dir.as_str())).collect()
}

fn small(store: &Store, mode: u16, bytes: &[u8]) -> Node {
    let (digest, size) = store.objects().put_bytes(bytes).expect("room for the fixture's files");
    Node::File(meta(mode), Content::Object { digest, size })
}

/// The head of a program for a machine that is none of those Kiln runs on.
fn other_machine(program: &[u8]) -> Vec<u8> {
    let mut head = program[..4096].to_vec();
    head[18..20].copy_from_slice(&243u16.to_le_bytes());
    head
}

/// The head of a program with one program header, which asks for a loader that does not exist.
fn no_loader(program: &[u8]) -> Vec<u8> {
    const LOADER: &[u8] = b"/lib/ld-missing.so\0";
    let mut file = program[..64].to_vec();
    file[32..40].copy_from_slice(&64u64.to_le_bytes());
    file[56..58].copy_from_slice(&1u16.to_le_bytes());
    let mut header = [0; 56];
    header[0] = 3;
    header[8..16].copy_from_slice(&120u64.to_le_bytes());
    header[32..40].copy_from_slice(&(LOADER.len() as u64).to_le_bytes());
    file.extend(header);
    file.extend(LOADER);
    file
}
