//! The packages a request comes to are those that apt would install, from the same indexes.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use common::{locked, order, try_lock};
use kiln_model::ExitCode;
use kiln_store::Store;

const SETS: [&[&str]; 12] = [
    &["nginx-light"],
    &["nginx"],
    &["postgresql"],
    &["redis-server"],
    &["haproxy"],
    &["python3-venv"],
    &["openssh-server"],
    &["php-fpm", "php-pgsql"],
    &["default-jre-headless"],
    &["postfix", "dovecot-imapd"],
    &["systemd-sysv", "dbus"],
    &["gawk", "apache2", "curl"],
];

/// What apt takes for granted, and a new tree does not have: all that is essential but apt itself.
const BASE: [&str; 2] = ["?and(?essential,?not(?name(^apt$)))", "usr-is-merged"];

/// An apt with a state of its own: nothing installed, the indexes of the host's sources.
struct Apt {
    state: tempfile::TempDir,
}

impl Apt {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        for dir in ["lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(state.path().join(dir)).unwrap();
        }
        std::fs::write(state.path().join("status"), "").unwrap();
        let apt = Self { state };
        apt.run(&["update"]);
        apt
    }

    fn run(&self, arguments: &[&str]) -> String {
        let option = |name: &str, path: &str| format!("{name}={}", self.state.path().join(path).display());
        let output = Command::new("apt-get")
            .args(["-o", &option("Dir::State::lists", "lists"), "-o", &option("Dir::Cache", "cache")])
            .args(["-o", &option("Dir::State::status", "status"), "-o", "APT::Sandbox::User=root"])
            .args(arguments)
            .env("LC_ALL", "C.UTF-8")
            .output()
            .expect("this test compares with apt-get");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "apt-get {arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Name and version of all it would install.
    fn install(&self, packages: &[&str], recommends: bool) -> BTreeSet<String> {
        let recommends = if recommends { "--install-recommends" } else { "--no-install-recommends" };
        let arguments: Vec<&str> =
            ["-s", "install", recommends].into_iter().chain(packages.iter().copied()).chain(BASE).collect();
        let line = |l: &str| {
            let (name, rest) = l.strip_prefix("Inst ")?.split_once(" (")?;
            Some(format!("{name} {}", rest.split(' ').next()?))
        };
        self.run(&arguments).lines().filter_map(line).collect()
    }
}

fn ours(packages: &[&str], recommends: bool, store: &Store) -> BTreeSet<String> {
    let mut order = order(Path::new("/"), packages);
    order.recommends = recommends;
    let lock = locked(&order, store);
    lock.images[&order.image].packages.iter().map(|p| format!("{} {}", p.name, p.version)).collect()
}

#[test]
fn the_same_packages_as_apt() {
    let (apt, state) = (Apt::new(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    for set in SETS {
        assert_differ_by_nothing(set, &apt.install(set, false), &ours(set, false, &store));
    }
    let set = &["redis-server"];
    assert_differ_by_nothing(set, &apt.install(set, true), &ours(set, true, &store));
}

fn assert_differ_by_nothing(set: &[&str], apt: &BTreeSet<String>, ours: &BTreeSet<String>) {
    assert!(apt.len() > 30, "{set:?}: apt would install {apt:?}");
    let (missing, extra): (Vec<_>, Vec<_>) = (apt.difference(ours).collect(), ours.difference(apt).collect());
    assert!(missing.is_empty() && extra.is_empty(), "{set:?}: missing {missing:?}, extra {extra:?}");
}

#[test]
fn what_cannot_be_had_is_said() {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    let failure = |packages: &[&str]| {
        let failure = try_lock(&order(Path::new("/"), packages), &store).unwrap_err();
        assert_eq!(failure.code, ExitCode::Bake);
        failure.causes.join(": ")
    };
    let unknown = failure(&["nginx-ligth"]);
    assert!(unknown.contains("no package `nginx-ligth`") && unknown.contains("`nginx-light`"), "{unknown}");
    let virtual_name = failure(&["httpd"]);
    assert!(virtual_name.contains("name for one of"), "{virtual_name}");
    let version = failure(&["nginx-light=0.1*"]);
    assert!(version.contains("no version of `nginx-light`") && version.contains("offered: 1."), "{version}");
    let both = failure(&["exim4-daemon-light", "postfix"]);
    assert!(both.contains("cannot be installed together") || both.contains("cannot be met"), "{both}");
}

#[test]
fn versions_compare_as_dpkg_compares_them() {
    let parts =
        ["0", "1", "9", "10", "1.2", "1~", "1~~", "1a", "1+", "1-1", "1-1~bpo1", "1:0", "1.0+dfsg-2", "0a.1"];
    for a in parts {
        for b in parts {
            let dpkg = |relation| {
                let status = Command::new("dpkg").args(["--compare-versions", a, relation, b]).status();
                status.expect("this test compares with dpkg").success()
            };
            let ours = kiln_bake::compare_versions(a, b);
            assert_eq!((ours.is_lt(), ours.is_eq()), (dpkg("lt"), dpkg("eq")), "{a} and {b}");
        }
    }
}
