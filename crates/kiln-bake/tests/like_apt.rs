//! The packages a request comes to are those that apt would install, from the same indexes. Every difference is one
//! that `docs/design/debian.md` explains. With `KILN_LONG=1` all sets are compared, else some.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use common::{Quiet, order, try_lock};
use kiln_bake::{BakeOrder, Base, Suite, Update, lock};
use kiln_model::{ExitCode, Lock};
use kiln_store::Store;

/// Asked of bookworm, without Recommends.
const PLAIN: [&str; 53] = [
    "nginx-light",
    "nginx",
    "postgresql",
    "redis-server",
    "haproxy",
    "python3-venv",
    "openssh-server",
    "php-fpm php-pgsql",
    "default-jre-headless",
    "postfix dovecot-imapd",
    "systemd-sysv dbus",
    "gawk apache2 curl",
    "nodejs",
    "mariadb-server",
    "memcached",
    "rabbitmq-server",
    "bind9",
    "unbound",
    "dnsmasq",
    "squid",
    "varnish",
    "lighttpd php-cgi",
    "exim4-daemon-light",
    "chrony",
    "cron rsyslog logrotate",
    "git",
    "golang-go",
    "ruby bundler",
    "perl libdbd-pg-perl",
    "python3-django gunicorn",
    "uwsgi uwsgi-plugin-python3",
    "supervisor",
    "certbot python3-certbot-nginx",
    "prometheus prometheus-node-exporter",
    "mosquitto",
    "nfs-kernel-server",
    "samba",
    "vsftpd",
    "openvpn easy-rsa",
    "wireguard-tools",
    "strongswan",
    "keepalived",
    "pgbouncer postgresql-client",
    "docker.io",
    "podman",
    "etcd-server etcd-client",
    "tomcat10",
    "erlang-base elixir",
    "build-essential",
    "ffmpeg imagemagick",
    "busybox ca-certificates tzdata locales",
    "collectd-core",
    // A name that one package alone provides.
    "default-mta",
];

/// The same with Recommends.
const WITH_RECOMMENDS: [&str; 8] = [
    "redis-server",
    "nginx",
    "postgresql",
    "php-fpm",
    "postfix",
    "openssh-server",
    "python3-venv",
    "default-jre-headless",
];

/// Asked of trixie.
const OF_TRIXIE: [&str; 10] = [
    "nginx",
    "postgresql",
    "redis-server",
    "php-fpm php-pgsql",
    "default-jre-headless",
    "nodejs",
    "postfix",
    "haproxy",
    "python3-venv",
    "systemd-sysv",
];

/// Asked of bookworm with its backports and, ranked lowest, trixie.
const OF_SEVERAL: [&str; 6] = [
    "nginx=1.22.*",
    "postgresql-15=15.*",
    "redis-server",
    "nginx=1.22.* curl=7.88.*",
    "haproxy=2.6.*",
    "python3-venv",
];

/// What apt takes for granted, and a new tree does not have: all that is essential but apt itself.
const BASE: [&str; 2] = ["?and(?essential,?not(?name(^apt$)))", "usr-is-merged"];

/// An apt with a state of its own: nothing installed, and sources of its own beside the host's mirrors.
struct Apt {
    state: tempfile::TempDir,
}

impl Apt {
    fn new(suites: &[&str], preferences: &str) -> Self {
        let state = tempfile::tempdir().unwrap();
        for dir in ["lists/partial", "cache/archives/partial", "none"] {
            std::fs::create_dir_all(state.path().join(dir)).unwrap();
        }
        let [main, security] = mirrors();
        let line = |suite: &&str| {
            let backports = suite.ends_with("-backports");
            let more = format!("deb {main} {suite}-updates main\ndeb {security} {suite}-security main\n");
            format!("deb {main} {suite} main\n{}", if backports { "" } else { &more })
        };
        let write = |name: &str, text: &str| std::fs::write(state.path().join(name), text).unwrap();
        write("sources", &suites.iter().map(line).collect::<String>());
        write("preferences", preferences);
        write("status", "");
        let apt = Self { state };
        apt.run(&["update"]);
        apt
    }

    fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("apt-get");
        for (name, path) in [
            ("Dir::State::lists", "lists"),
            ("Dir::Cache", "cache"),
            ("Dir::State::status", "status"),
            ("Dir::Etc::SourceList", "sources"),
            ("Dir::Etc::SourceParts", "none"),
            ("Dir::Etc::Preferences", "preferences"),
            ("Dir::Etc::PreferencesParts", "none"),
        ] {
            command.arg("-o").arg(format!("{name}={}", self.state.path().join(path).display()));
        }
        command.args(["-o", "APT::Sandbox::User=root"]).args(arguments).env("LC_ALL", "C.UTF-8");
        let output = command.output().expect("this test compares with apt-get");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "apt-get {arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Name and version of all it would install. Asked in the order of the lock: what is named first decides which
    /// alternatives are met already.
    fn install(&self, set: &str, recommends: bool) -> BTreeSet<String> {
        let recommends = if recommends { "--install-recommends" } else { "--no-install-recommends" };
        let mut names: Vec<&str> = set.split(' ').collect();
        names.sort_unstable();
        let arguments: Vec<&str> =
            ["-s", "install", recommends].into_iter().chain(names).chain(BASE).collect();
        let line = |l: &str| {
            let (name, rest) = l.strip_prefix("Inst ")?.split_once(" (")?;
            Some(format!("{name} {}", rest.split(' ').next()?))
        };
        self.run(&arguments).lines().filter_map(line).collect()
    }
}

/// Where the host's apt finds Debian, and its security updates.
fn mirrors() -> [String; 2] {
    let output = Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI)"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ["/debian/", "/debian-security/"].map(|end| {
        let found = text.lines().find(|l| l.ends_with(end));
        found.unwrap_or_else(|| panic!("the host's apt knows no mirror of {end}")).to_owned()
    })
}

/// An order for each set.
fn orders(suite: &str, sets: &[&str], recommends: bool, further: &[(&str, u16)]) -> Vec<BakeOrder> {
    let suites: Vec<Suite> =
        further.iter().map(|(name, priority)| Suite { name: (*name).into(), priority: *priority }).collect();
    let one = |(n, set): (usize, &&str)| BakeOrder {
        image: format!("set-{n}").parse().unwrap(),
        from: Base::Debian { suite: suite.into() },
        recommends,
        suites: suites.clone(),
        ..order(Path::new("/"), &set.split(' ').collect::<Vec<_>>())
    };
    sets.iter().enumerate().map(one).collect()
}

fn packages(lock: &Lock, order: &BakeOrder) -> BTreeSet<String> {
    lock.images[&order.image].packages.iter().map(|p| format!("{} {}", p.name, p.version)).collect()
}

/// Compares all sets and tells every difference, not only the first.
fn compare(apt: &Apt, sets: &[&str], orders: &[BakeOrder]) {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    let lock = lock(orders, None, &Update::Nothing, &store, &Quiet).unwrap_or_else(|e| panic!("{e:?}"));
    let mut differences = String::new();
    for (set, order) in sets.iter().zip(orders) {
        let (theirs, ours) = (apt.install(set, order.recommends), packages(&lock, order));
        assert!(theirs.len() > 30, "{set:?}: apt would install {theirs:?}");
        let (missing, extra): (Vec<_>, Vec<_>) =
            (theirs.difference(&ours).collect(), ours.difference(&theirs).collect());
        if !(missing.is_empty() && extra.is_empty()) {
            differences.push_str(&format!("{set}: missing {missing:?}, extra {extra:?}\n"));
        }
    }
    assert_eq!(differences, "");
}

/// All of `sets` with `KILN_LONG=1`, else every fourth: apt takes a second for each.
fn some<'a>(sets: &[&'a str]) -> Vec<&'a str> {
    let step = if std::env::var_os("KILN_LONG").is_some() { 1 } else { 4 };
    sets.iter().step_by(step).copied().collect()
}

#[test]
fn the_same_packages_as_apt() {
    let apt = Apt::new(&["bookworm"], "");
    let (plain, recommended) = (some(&PLAIN), some(&WITH_RECOMMENDS));
    compare(&apt, &plain, &orders("bookworm", &plain, false, &[]));
    compare(&apt, &recommended, &orders("bookworm", &recommended, true, &[]));
}

#[test]
fn the_same_packages_as_apt_in_trixie() {
    let apt = Apt::new(&["trixie"], "");
    let sets = some(&OF_TRIXIE);
    compare(&apt, &sets, &orders("trixie", &sets, false, &[]));
}

#[test]
fn the_same_packages_as_apt_with_pins_and_several_suites() {
    let preferences = "Package: *\nPin: release n=/^trixie/\nPin-Priority: 50\n";
    let apt = Apt::new(&["bookworm", "bookworm-backports", "trixie"], preferences);
    let further = [("bookworm-backports", 100), ("trixie", 50)];
    compare(&apt, &OF_SEVERAL, &orders("bookworm", &OF_SEVERAL, false, &further));
}

/// apt refuses this until `golang-src` is named as well.
#[test]
fn a_suite_brings_what_it_needs() {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    let backports = [("bookworm-backports", 100)];
    let order = orders("bookworm", &["golang-go/bookworm-backports"], false, &backports).remove(0);
    let lock = try_lock(&order, &store).unwrap();
    let all = &lock.images[&order.image].packages;
    let suite = |name: &str| all.iter().find(|p| p.name == name).map(|p| p.suite.as_str());
    assert_eq!(
        (suite("golang-go"), suite("golang-src")),
        (Some("bookworm-backports"), Some("bookworm-backports"))
    );
    assert_eq!(suite("libc6"), Some("bookworm"), "nothing else is taken from there");
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
    let virtual_name = failure(&["default-mta=4*"]);
    assert!(
        virtual_name.contains("not a package but a name for one of: exim4-daemon-light"),
        "{virtual_name}"
    );
    let version = failure(&["nginx-light=0.1*"]);
    assert!(version.contains("no version of `nginx-light`") && version.contains("offered: 1."), "{version}");
    // Which constraint, by whom, on whom.
    let both = failure(&["exim4-daemon-light", "postfix"]);
    assert!(both.contains("cannot be installed together"), "{both}");
    assert!(both.contains("exim4-daemon-light 4.") && both.contains("mail-transport-agent"), "{both}");
    let pinned = failure(&["nginx", "nginx-common=0*"]);
    assert!(pinned.contains("no version of `nginx-common` is `0*`"), "{pinned}");
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
