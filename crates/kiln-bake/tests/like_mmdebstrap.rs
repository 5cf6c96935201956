//! The tree of an image is the one that apt and dpkg make of the same packages (mmdebstrap runs them), path by path:
//! kind, mode, owner, content. What differs is on the list of `docs/design/debian.md`, which this test holds.
//!
//! Needs `mmdebstrap`. With `KILN_LONG=1` all thirty sets are compared, else one; with `KILN_SETS` the sets it names,
//! between commas.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::thread;

use common::{baked, locked, order, printed, tar_of};
use kiln_model::Sha256;
use kiln_store::Store;
use rustix::system::sethostname;
use rustix::thread::{UnshareFlags, unshare_unsafe};

const SETS: [&str; 30] = [
    "nginx-light",
    "postfix",
    "openssh-server",
    "redis-server",
    "haproxy",
    "python3-venv",
    "apache2",
    "php-fpm",
    "memcached",
    "rabbitmq-server",
    "bind9",
    "unbound",
    "dnsmasq",
    "squid",
    "varnish",
    "lighttpd",
    "exim4-daemon-light",
    "chrony",
    "cron rsyslog",
    "git",
    "ruby",
    "python3-django gunicorn",
    "nodejs",
    "mosquitto",
    "systemd-sysv dbus",
    "openvpn",
    "keepalived",
    "postgresql",
    "default-jre-headless",
    // mmdebstrap installs the base by itself first, where an `awk` is mawk; of both at once apt and we take the gawk that
    // is needed here for it. Asked for like this, the packages are the same.
    "mariadb-server mawk",
];

/// Paths that only a machine set up by apt has, or that tell of the run: `docs/design/debian.md` says why of each.
/// A `*` at the end stands for anything.
const EXPLAINED: &[&str] = &[
    // What apt and mmdebstrap leave of their own work.
    "/etc/apt",
    "/etc/apt/*",
    "/var/cache/apt",
    "/var/cache/apt/*",
    "/var/lib/apt",
    "/var/lib/apt/*",
    "/var/lib/dpkg/arch",
    "/var/lib/dpkg/available",
    "/var/lib/dpkg/lock*",
    "/var/lib/dpkg/triggers/Lock",
    "/var/lib/dpkg/*-old",
    "/var/cache/debconf/*-old",
    "/var/cache/debconf/passwords.dat",
    "/var/cache/ldconfig/aux-cache",
    // Logs and backups.
    "/var/log/*",
    "/etc/*-",
    "/etc/.pwd.lock",
    // Directories that an instance mounts over.
    "/dev/*",
    "/run/*",
    "/tmp/*",
    "/var/tmp/*",
    "/proc",
    "/sys",
    // What names a machine, or is secret.
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/fstab",
    "/etc/machine-id",
    "/var/lib/dbus/machine-id",
    "/var/lib/systemd/*",
    "/etc/bind/rndc.key",
    "/var/lib/rabbitmq/.erlang.cookie",
    "/etc/varnish/secret",
    "/etc/ssh/ssh_host_*",
    "/etc/ssl/certs/ssl-cert-snakeoil.pem",
    "/etc/ssl/private/ssl-cert-snakeoil.key",
    "/etc/ssl/certs/????????.0",
    "/etc/postgresql/*",
    "/var/lib/postgresql/*",
    "/var/lib/mysql/*",
    // Formats that hold the time, settled.
    "/etc/ssl/certs/java/cacerts",
    "/etc/*.db",
    // The same entries in another order.
    "/etc/ld.so.cache",
];

fn is_explained(path: &str) -> bool {
    EXPLAINED.iter().any(|pattern| matches(pattern.as_bytes(), path.as_bytes()))
}

/// `*` stands for anything, `?` for one character.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=text.len()).any(|n| matches(rest, &text[n..])),
        (Some((b'?', rest)), Some((_, after))) => matches(rest, after),
        (Some((p, rest)), Some((t, after))) => p == t && matches(rest, after),
        _ => false,
    }
}

/// Compared record by record.
const DATABASES: [&str; 3] =
    ["/var/lib/dpkg/status", "/var/cache/debconf/config.dat", "/var/cache/debconf/templates.dat"];

/// Questions of debconf, and the lines of them that have the machine's names as its resolver has them: mmdebstrap's tree
/// has no `/etc/hosts` then.
const NAMES: [(&str, &str); 2] =
    [("postfix/destinations", "Value: "), ("exim4/dc_other_hostnames", " fqdn = ")];

/// What a path is: kind, mode, owner, and content or target.
type Facts = BTreeMap<String, String>;

fn facts(archive: &[u8]) -> Facts {
    let mut facts = Facts::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().trim_start_matches('.').to_owned();
        let path = format!("/{}", name.trim_matches('/'));
        let header = entry.header().clone();
        let owner = format!("{}:{}", header.uid().unwrap(), header.gid().unwrap());
        let mode = header.mode().unwrap() & 0o7777;
        let what = match header.entry_type() {
            tar::EntryType::Link => {
                let first =
                    entry.link_name().unwrap().unwrap().to_string_lossy().trim_matches(['.', '/']).to_owned();
                facts.insert(path, facts[&format!("/{first}")].clone());
                continue;
            }
            tar::EntryType::Symlink => format!("link {}", entry.link_name().unwrap().unwrap().display()),
            tar::EntryType::Regular => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                let bytes = settled(&path, bytes);
                let content = match DATABASES.contains(&path.as_str()) {
                    // Itself, for what differs in it to be told.
                    true => String::from_utf8(bytes).unwrap(),
                    false => Sha256::of(&bytes).to_string(),
                };
                format!("file {mode:o} {content}")
            }
            kind => format!("{kind:?} {mode:o}"),
        };
        facts.insert(path, format!("{what} {owner}"));
    }
    facts
}

/// Lists are compared line by line, and databases record by record, whatever their order: apt's and ours install packages in different orders, and dpkg's
/// lists of paths have the order of the package's archive where ours are sorted. What of a file tells of the machine or of
/// who was first to do something is left out of it.
fn settled(path: &str, mut bytes: Vec<u8>) -> Vec<u8> {
    const LISTS: [&str; 6] = [
        "/etc/passwd",
        "/etc/group",
        "/etc/shadow",
        "/etc/gshadow",
        "/etc/shells",
        "/var/lib/dpkg/triggers/File",
    ];
    if path.ends_with(".pyc") {
        // By what it is held to its source: by hash if a package had it compiled, by time if who imported it first did.
        bytes.drain(bytes.len().min(4)..bytes.len().min(16));
        return bytes;
    }
    let is_main = path == "/etc/postfix/main.cf";
    let is_list =
        LISTS.contains(&path) || (path.starts_with("/var/lib/dpkg/info/") && path.ends_with(".list"));
    let is_database = DATABASES.contains(&path);
    if !is_list && !is_main && !is_database {
        return bytes;
    }
    let text = String::from_utf8(bytes).unwrap();
    if is_database {
        return sorted(text.split("\n\n").map(|record| nameless(record.trim_matches('\n'))), "\n\n");
    }
    if is_main {
        // The machine's names again.
        let nameless = |line| match line {
            line if str::starts_with(line, "mydestination =") => "mydestination =",
            line => line,
        };
        return text.lines().map(nameless).collect::<Vec<_>>().join("\n").into_bytes();
    }
    // The day a password was set: each step of ours has a "now" of its own.
    let without_day = |line: &str| match line.split(':').collect::<Vec<_>>()[..] {
        [name, password, _, ref rest @ ..] if path == "/etc/shadow" => {
            format!("{name}:{password}::{}", rest.join(":"))
        }
        _ => line.to_owned(),
    };
    sorted(text.lines().map(without_day), "\n")
}

/// A record without the machine's names.
fn nameless(record: &str) -> String {
    let named = NAMES.iter().find(|(name, _)| record.starts_with(&format!("Name: {name}\n")));
    let is_kept = |line: &&str| named.is_none_or(|(_, begin)| !line.starts_with(begin));
    record.lines().filter(is_kept).collect::<Vec<_>>().join("\n")
}

/// What is there twice is there twice.
fn sorted(parts: impl Iterator<Item = String>, between: &str) -> Vec<u8> {
    let mut parts: Vec<String> = parts.collect();
    parts.sort_unstable();
    parts.join(between).into_bytes()
}

/// With the same "now" and on a host of the same name as in our sandbox: what scripts write of them is then the same on both
/// sides.
fn by_apt(set: &str, epoch: u64) -> Facts {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("tree.tar");
    // In the order of the lock.
    let mut names: Vec<&str> = set.split(' ').collect();
    names.sort_unstable();
    let include = format!("--include=usr-is-merged,{}", names.join(","));
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--variant=essential", "--mode=root", "--quiet", &include])
        // Links for /bin, /lib and /sbin from the start, as every system of today has them.
        .args(["--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", "bookworm"])
        .arg(&out)
        .env("LC_ALL", "C.UTF-8")
        .env("SOURCE_DATE_EPOCH", epoch.to_string());
    let named_as_ours = || {
        // SAFETY: this thread alone gets a host name of its own, and what it starts.
        unsafe { unshare_unsafe(UnshareFlags::NEWUTS) }.expect("root is needed");
        sethostname(b"localhost").unwrap();
        command.output().expect("this test compares with mmdebstrap")
    };
    let made = thread::scope(|scope| scope.spawn(named_as_ours).join().unwrap());
    assert!(made.status.success(), "{set}: {}", String::from_utf8_lossy(&made.stderr));
    facts(&std::fs::read(&out).unwrap())
}

/// Our tree, and what `dpkg --verify` in it says that nothing explains.
fn by_us(set: &str) -> (Vec<u8>, Vec<String>) {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    let order = order(Path::new("/"), &set.split(' ').collect::<Vec<_>>());
    let lock = locked(&order, &store);
    let image = baked(&order, &lock, &store);
    let handle = store.handle(&image.record.digest).unwrap();
    // dpkg finds every file as its packages say, but those that no image has.
    let changed = printed(&handle, &["/usr/bin/dpkg", "--verify"]);
    let changed = changed.lines().filter(|l| !is_explained(l.rsplit(' ').next().unwrap_or_default()));
    (tar_of(&handle), changed.map(|l| format!("{set}: dpkg --verify: {l}")).collect())
}

/// The time of the newest file.
fn newest(archive: &[u8]) -> u64 {
    let entries =
        tar::Archive::new(archive).entries().unwrap().map(|e| e.unwrap().header().mtime().unwrap()).max();
    entries.unwrap()
}

/// The records that the other does not have as well.
fn without<'f>(facts: &'f str, others: &str) -> String {
    let others: BTreeSet<&str> = others.split("\n\n").collect();
    let own: Vec<&'f str> = facts.split("\n\n").filter(|record| !others.contains(record)).collect();
    own.join("\n\n")
}

fn differences(set: &str) -> Vec<String> {
    let (ours, mut found) = by_us(set);
    let (theirs, ours) = (by_apt(set, newest(&ours)), facts(&ours));
    let paths: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    let differs = |path: &&&String| theirs.get(**path) != ours.get(**path) && !is_explained(path);
    let nothing = "nothing".to_owned();
    let tell = |path: &&String| {
        let (apt, us) = (theirs.get(*path).unwrap_or(&nothing), ours.get(*path).unwrap_or(&nothing));
        let (apt, us) = (without(apt, us), without(us, apt));
        format!("{set}: {path}: apt has {apt}, we have {us}")
    };
    found.extend(paths.iter().filter(differs).map(tell));
    println!("{set}: {} paths, {} differences {found:#?}", paths.len(), found.len());
    found
}

#[test]
fn the_same_tree_as_apt_makes() {
    let long = std::env::var_os("KILN_LONG").is_some();
    let sets: Vec<String> = match std::env::var("KILN_SETS") {
        Ok(named) => named.split(',').map(str::to_owned).collect(),
        Err(_) => SETS[..if long { SETS.len() } else { 1 }].iter().map(|set| (*set).to_owned()).collect(),
    };
    let all: Vec<String> = sets.iter().flat_map(|set| differences(set)).collect();
    assert!(all.is_empty(), "{} differences:\n{}", all.len(), all.join("\n"));
}
