//! Installing what the tests need. Nothing that comes with a package may start a service here.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::run::{output, visibly};

/// Debian packages and what they are for.
const PACKAGES: [(&str, &str); 18] = [
    ("erofs-utils", "fsck.erofs, the judge of our images"),
    ("e2fsprogs", "mkfs.ext4, for a disk that can be filled"),
    ("busybox-static", "a small program for instances"),
    ("haproxy", "what the edge makes of ambiguous requests is compared with what it makes of them"),
    ("dpkg", "the judge of our version comparison"),
    ("mmdebstrap", "the judge of our root filesystems"),
    ("python3-jsonschema", "the judge of our SBOMs, with the official schema"),
    ("libfaketime", "another date, for bakes that must not care"),
    ("skopeo", "copies OCI images between layouts, archives and registries"),
    ("umoci", "the judge of trees made of OCI layers"),
    ("docker-registry", "a registry to pull from and push to"),
    ("podman", "runs the images we export"),
    ("crun", "what podman runs them with"),
    ("pebble", "an authority for certificates"),
    ("openssl", "what the edge shows to clients of HTTPS"),
    ("postgresql", "the store of examples/shop"),
    ("age", "the judge of secrets in exports"),
    ("debian-archive-keyring", "the keys the mirror's signatures are verified with"),
];

/// What `bench bake` compares with, and needs for it.
pub(crate) const BAKE_PEERS: [(&str, &str); 3] = [
    ("mmdebstrap", "makes root filesystems from packages"),
    ("buildah", "makes images layer by layer"),
    ("dpkg-dev", "dpkg-scanpackages, for the repository they share"),
];

/// What `bench edge` compares with, and needs for it.
pub(crate) const EDGE_PEERS: [(&str, &str); 5] = [
    ("haproxy", "a proxy"),
    ("nginx", "a proxy"),
    ("caddy", "a proxy"),
    ("wrk", "load over HTTP/1.1"),
    ("nghttp2-client", "h2load, load over HTTP/2 and TLS"),
];

/// What `bench engine` compares with, and needs for it.
pub(crate) const ENGINE_PEERS: [(&str, &str); 5] = [
    ("crun", "starts containers, as podman has it do"),
    ("runc", "starts containers, as docker has it do"),
    ("podman", "starts containers, with everything around them"),
    ("util-linux", "unshare, for a place without the v2 tree, which crun refuses beside v1 controllers"),
    ("busybox-static", "the program in all of them"),
];

pub(crate) fn run() -> Result<()> {
    ensure_installed(&PACKAGES)
}

/// Installs those of `packages` that are missing.
pub(crate) fn ensure_installed(packages: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> =
        packages.iter().map(|(name, _)| *name).filter(|name| !is_installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    ensure!(is_root()?, "the tests need root, and these Debian packages: {}", missing.join(" "));
    let policy = Path::new("/usr/sbin/policy-rc.d");
    let ours = !policy.exists();
    if ours {
        write_policy(policy)?;
    }
    let result = install(&missing);
    if ours {
        std::fs::remove_file(policy)?;
    }
    result
}

fn install(packages: &[&str]) -> Result<()> {
    visibly(Command::new("apt-get").args(["update", "-q"]))?;
    let mut apt = Command::new("apt-get");
    apt.args(["install", "-q", "-y", "--no-install-recommends"]).args(packages);
    visibly(apt.env("DEBIAN_FRONTEND", "noninteractive"))
}

fn write_policy(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, "#!/bin/sh\nexit 101\n")?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn is_installed(package: &str) -> bool {
    let status = output(Command::new("dpkg-query").args(["-W", "-f=${Status}", package]));
    status.is_ok_and(|s| s == "install ok installed")
}

/// Whether this is root, without a crate for it.
pub(crate) fn is_root() -> Result<bool> {
    Ok(output(Command::new("id").arg("-u"))?.trim() == "0")
}
