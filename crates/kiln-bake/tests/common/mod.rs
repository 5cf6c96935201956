//! What the tests that need root and the host's own mirror share. They fail with a clear message where either is
//! missing, and name no mirror: the host's apt sources do.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::thread;

use kiln_bake::{BakeOrder, Baked, Base, FileSpec, Report, Sources, Update, bake, lock};
use kiln_model::spec::BuildNetwork;
use kiln_model::{Failure, ImageHandle, Lock, Millis, Progress};
use kiln_store::Store;
use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, mount, mount_bind, mount_change, move_mount,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Where programs of the tested images write.
const VOLATILE: [&str; 2] = ["/run", "/var/lib/nginx"];

/// Listens to nothing and never calls anything off.
pub(crate) struct Quiet;

impl Report for Quiet {
    fn progress(&self, _: Progress) {}
    fn cancelled(&self) -> bool {
        false
    }
}

/// Remembers every task it is told of.
#[derive(Default)]
pub(crate) struct Told(Mutex<Vec<String>>);

impl Told {
    /// Each as often as it was told of.
    pub(crate) fn tasks(self) -> Vec<String> {
        self.0.into_inner().unwrap()
    }
}

impl Report for Told {
    fn progress(&self, progress: Progress) {
        self.0.lock().unwrap().push(progress.task);
    }
    fn cancelled(&self) -> bool {
        false
    }
}

pub(crate) fn order(project: &Path, packages: &[&str]) -> BakeOrder {
    BakeOrder {
        image: "web".parse().unwrap(),
        project: project.into(),
        from: Base::Debian { suite: "bookworm".into() },
        packages: packages.iter().map(|p| (*p).to_owned()).collect(),
        suites: Vec::new(),
        recommends: false,
        files: Vec::new(),
        dirs: Vec::new(),
        links: Vec::new(),
        users: Vec::new(),
        build: Vec::new(),
        build_network: BuildNetwork::None,
        run: vec!["/bin/true".into()],
        user: None,
        env: Default::default(),
        workdir: None,
        stop_signal: None,
        stop_grace: Millis(10_000),
        volatile: Vec::new(),
        sources: Sources::default(),
        architecture: "amd64".into(),
    }
}

pub(crate) fn scratch(project: &Path) -> BakeOrder {
    let mut order = order(project, &[]);
    order.from = Base::Scratch;
    order.files = vec![file("program", "/program")];
    order.run = vec!["/program".into()];
    write(project, "program", "#!/nothing\n");
    fs::set_permissions(project.join("program"), Permissions::from_mode(0o755)).unwrap();
    order
}

pub(crate) fn file(src: &str, dst: &str) -> FileSpec {
    FileSpec { src: src.into(), dst: dst.into(), mode: None, owner: None }
}

pub(crate) fn write(project: &Path, name: &str, text: &str) {
    let path = project.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

pub(crate) fn locked(order: &BakeOrder, store: &Store) -> Lock {
    try_lock(order, store).unwrap_or_else(|f| panic!("locking needs the host's mirror: {f:?}"))
}

pub(crate) fn try_lock(order: &BakeOrder, store: &Store) -> Result<Lock, Failure> {
    Ok(lock(std::slice::from_ref(order), None, &Update::Nothing, store, &Quiet)?)
}

pub(crate) fn baked(order: &BakeOrder, lock: &Lock, store: &Store) -> Baked {
    try_bake(order, lock, store).unwrap_or_else(|f| panic!("baking needs root and the host's mirror: {f:?}"))
}

pub(crate) fn try_bake(order: &BakeOrder, lock: &Lock, store: &Store) -> Result<Baked, Failure> {
    Ok(bake(order, lock, store, &Quiet)?)
}

/// Runs `argv` with the image as its root, in mounts that only this call sees.
pub(crate) fn inside(image: &ImageHandle, argv: &[&str]) -> Output {
    thread::scope(|scope| scope.spawn(|| inside_here(image, argv)).join().unwrap())
}

/// The same, where all must go well; what it printed.
pub(crate) fn printed(image: &ImageHandle, argv: &[&str]) -> String {
    let output = inside(image, argv);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{argv:?}: {} {error}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned() + &error
}

fn inside_here(image: &ImageHandle, argv: &[&str]) -> Output {
    // SAFETY: this thread alone gets its own mounts; the descriptor table stays shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("root is needed");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let tree = kiln_mount::composefs(image, None).unwrap();
    move_mount(&tree, "", CWD, "/sys", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
    mount_bind("/dev", "/sys/dev").unwrap();
    for volatile in VOLATILE.map(|v| format!("/sys{v}")).iter().filter(|v| Path::new(v).is_dir()) {
        mount("test", volatile, "tmpfs", MountFlags::empty(), None).unwrap();
    }
    let mut command = Command::new(argv[0]);
    command.args(&argv[1..]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
    // SAFETY: one system call after fork.
    unsafe {
        command.pre_exec(|| {
            rustix::process::chroot("/sys")?;
            rustix::process::chdir("/")?;
            Ok(())
        });
    }
    command.output().unwrap()
}

/// The whole tree of an image as a tar archive, as the host's tar reads it through the mount.
pub(crate) fn tar_of(image: &ImageHandle) -> Vec<u8> {
    let read = || {
        // SAFETY: this thread alone gets its own mounts; the descriptor table stays shared.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("root is needed");
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        let tree = kiln_mount::composefs(image, None).unwrap();
        move_mount(&tree, "", CWD, "/sys", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
        let mut tar = Command::new("tar");
        tar.args(["--sort=name", "--numeric-owner", "--format=gnu", "-cf", "-", "-C", "/sys", "."]);
        let output = tar.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    thread::scope(|scope| scope.spawn(read).join().unwrap())
}
