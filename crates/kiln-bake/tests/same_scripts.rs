//! Images whose packages have scripts that look at the clock, at random numbers or at the host are the same from
//! another directory, at another time, on a host of another name, and after every cache is gone.
//!
//! With `KILN_LONG=1` for every set, else for one that has most of the kinds of differences.

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::thread;

use common::{Quiet, baked, locked, order};
use kiln_bake::{BakeOrder, Update, lock};
use kiln_model::{ImageRecord, Lock};
use kiln_store::Store;
use rustix::system::sethostname;
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// The first has accounts, host keys, a database of aliases and a certificate.
const SETS: [&str; 12] = [
    "postfix ssl-cert openssh-server",
    "default-jre-headless",
    "postgresql",
    "mariadb-server",
    "exim4-daemon-light",
    "systemd-sysv dbus",
    "apache2 php-fpm",
    "rabbitmq-server",
    "python3-venv gunicorn",
    "samba",
    "bind9",
    "nginx redis-server haproxy varnish",
];

/// Bakes on a host of this name, in a store that has the packages and nothing else.
fn bake_elsewhere(name: &str, order: &BakeOrder, lock: &Lock, packages: &Store) -> ImageRecord {
    let bake = || {
        // SAFETY: this thread alone gets a host name of its own.
        unsafe { unshare_unsafe(UnshareFlags::NEWUTS) }.expect("root is needed");
        sethostname(name.as_bytes()).unwrap();
        let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Store::open(state.path()).unwrap();
        for package in &lock.images[&order.image].packages {
            let path = packages.package(&package.sha256).unwrap().unwrap();
            store.put_package(&package.sha256, &mut File::open(path).unwrap()).unwrap();
        }
        let order = BakeOrder { project: project.path().into(), ..order.clone() };
        baked(&order, lock, &store).record
    };
    thread::scope(|scope| scope.spawn(bake).join().unwrap())
}

#[test]
fn scripts_leave_no_trace_of_time_and_place() {
    let long = std::env::var_os("KILN_LONG").is_some();
    // One set's trace does not hide another's.
    let mut traces = Vec::new();
    for set in if long { &SETS[..] } else { &SETS[..1] } {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let order = order(Path::new("/"), &set.split(' ').collect::<Vec<_>>());
        let lock = locked(&order, &store);
        let first = baked(&order, &lock, &store).record;
        let second = bake_elsewhere("elsewhere.example.org", &order, &lock, &store);
        if first != second {
            traces.push(format!("{set}: {first:?}, then {second:?}"));
        }
        println!("{set}: {}, then {}", first.digest, second.digest);
    }
    assert!(traces.is_empty(), "{}", traces.join("\n"));
}

#[test]
fn caches_may_go_at_any_time() {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    let order = order(Path::new("/"), &["tini"]);
    let lock = locked(&order, &store);
    let first = baked(&order, &lock, &store).record;
    // Each alone, and torn: what is left must not lead anywhere wrong.
    let cache = state.path().join("cache");
    for kind in fs::read_dir(&cache).unwrap().map(|e| e.unwrap().path()) {
        for entry in fs::read_dir(&kind).unwrap().map(|e| e.unwrap().path()) {
            let bytes = fs::read(&entry).unwrap();
            fs::write(&entry, &bytes[..bytes.len() / 2]).unwrap();
        }
        fs::remove_dir_all(state.path().join("inputs")).unwrap();
        let store = Store::open(state.path()).unwrap();
        assert_eq!(baked(&order, &lock, &store).record, first, "{}", kind.display());
    }
    // The contents of files as well, and the caches that speak of them are left.
    fs::remove_dir_all(state.path().join("objects")).unwrap();
    fs::remove_dir_all(state.path().join("inputs")).unwrap();
    let store = Store::open(state.path()).unwrap();
    assert_eq!(baked(&order, &lock, &store).record, first);
    assert_eq!(store.verify().unwrap(), []);
}

/// Both packages bring a group: which of them is configured first shows in their numbers.
#[test]
fn the_order_of_packages_does_not_matter() {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    let one = order(Path::new("/"), &["openssh-client", "cron"]);
    let other = order(Path::new("/"), &["cron", "openssh-client", "cron"]);
    let pinned = locked(&one, &store);
    // Not the indexes: of those a mirror may have others by then.
    let chosen = |lock: &Lock| {
        let image = &lock.images[&one.image];
        (image.request.clone(), image.packages.clone())
    };
    assert_eq!(chosen(&locked(&other, &store)), chosen(&pinned));
    let first = baked(&one, &pinned, &store).record;
    let same = baked(&other, &pinned, &store);
    assert!(same.reused && same.record == first);
    // What is added comes behind what was there, and that stays as it was.
    let more = order(Path::new("/"), &["bc", "openssh-client", "cron"]);
    let mut longer =
        lock(std::slice::from_ref(&more), Some(&pinned), &Update::Nothing, &store, &Quiet).unwrap();
    assert_eq!(longer.images[&more.image].request.requested, ["cron", "openssh-client", "bc"]);
    let kinds = |kind: &str| fs::read_dir(state.path().join("cache").join(kind)).unwrap().count();
    let before = kinds("debian-layers-1");
    let with_more = baked(&more, &longer, &store).record;
    assert_eq!(kinds("debian-layers-1"), before + 1, "one step more, and none again");
    // The lock's own order does: another lock, another image, and never the one that was made before.
    longer.images.get_mut(&more.image).unwrap().request.requested.rotate_right(1);
    let rotated = baked(&more, &longer, &store);
    assert!(!rotated.reused);
    assert_eq!(rotated.record.packages, with_more.packages);
}
