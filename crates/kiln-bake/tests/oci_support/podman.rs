//! Debian's podman.

use std::fs;
use std::process::Command;

/// Podman with all it keeps in a directory of its own.
pub(crate) struct Podman {
    dir: tempfile::TempDir,
}

impl Podman {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let dir = self.dir.path();
        let containers = dir.join("containers.conf");
        fs::write(&containers, "[engine]\nevents_logger=\"none\"\ncgroup_manager=\"cgroupfs\"\n").unwrap();
        let place = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let output = Command::new("podman")
            .args(["--root", &place("root"), "--runroot", &place("run"), "--tmpdir", &place("tmp")])
            .args(["--storage-driver", "vfs", "--runtime", "crun"])
            .args(arguments)
            .env("CONTAINERS_CONF", containers)
            .env("HOME", dir)
            .env("XDG_RUNTIME_DIR", dir)
            .output()
            .unwrap_or_else(|e| panic!("podman is needed ({e}): cargo xtask setup"));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "podman {arguments:?}: {} {error}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
