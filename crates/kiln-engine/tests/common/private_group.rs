//! A control group that a keeper takes for the root of its hierarchy: the limits of a small host.
#![allow(dead_code, unreachable_pub)]

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Goes with this value, which is to outlive the keeper.
pub struct PrivateGroup {
    /// Where the hierarchy is mounted.
    hierarchy: PathBuf,
    dir: PathBuf,
}

impl PrivateGroup {
    /// In the hierarchy of a controller, with `limit` written into the first of `files` it has.
    pub fn new(controller: &str, files: &[&str], limit: u64) -> Self {
        let v1 = Path::new("/sys/fs/cgroup").join(controller);
        let hierarchy = if v1.is_dir() { v1 } else { PathBuf::from("/sys/fs/cgroup") };
        let dir = hierarchy.join(format!("kiln-test-{controller}-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let group = Self { hierarchy, dir };
        fs::create_dir(group.keepers()).unwrap();
        let file = files.iter().map(|f| group.dir.join(f)).find(|f| f.exists());
        fs::write(file.expect("a file for the limit"), limit.to_string()).unwrap();
        group
    }

    /// Of a keeper that is counted as well.
    fn keepers(&self) -> PathBuf {
        self.dir.join("keeper")
    }

    /// Has a command see this group where the hierarchy is; `counted` if its own processes are to be in it.
    pub fn confine(&self, command: &mut Command, counted: bool) {
        let (hierarchy, dir) = (self.hierarchy.clone(), self.dir.clone());
        let procs = self.keepers().join("cgroup.procs");
        let enter = move || {
            if counted {
                fs::write(&procs, "0")?;
            }
            // SAFETY: the process has just been forked and has one thread.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
            Ok(mount_bind(&dir, &hierarchy)?)
        };
        // SAFETY: the test that starts it waits for it and holds no lock that a copy of it could need.
        unsafe { command.pre_exec(enter) };
    }
}

impl Drop for PrivateGroup {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        for dir in [self.keepers(), self.dir.clone()] {
            // The kernel lets go of the last process a moment after it has ended.
            while fs::remove_dir(&dir).is_err() && dir.exists() && Instant::now() < deadline {
                std::thread::yield_now();
            }
        }
    }
}
