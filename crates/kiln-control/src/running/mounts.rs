//! What is mounted in a running instance, held against what an instance of its release is launched with.

use kiln_model::{ReleaseService, Volatile};

/// The mounts of a process, as `mountinfo` tells of them.
#[derive(Debug)]
pub(super) struct Mounts {
    mountinfo: String,
    /// What of /proc is to be covered, and by what of /dev.
    covered: Vec<(String, &'static str)>,
}

/// A line of it: of which file system which directory, where, how it may be used, and what the file system is.
#[derive(Debug, Clone, Copy)]
struct Mount<'a> {
    device: &'a str,
    root: &'a str,
    at: &'a str,
    options: &'a str,
    kind: &'a str,
    of_file_system: &'a str,
}

/// Where something is mounted, and how it has to look.
struct Place<'a> {
    at: &'a str,
    root: &'static str,
    kind: &'static str,
    options: Vec<&'static str>,
    /// In KiB, as the kernel tells it; whole pages.
    size: Option<u64>,
}

impl Mounts {
    pub(super) fn new(mountinfo: String, covered: Vec<(String, &'static str)>) -> Self {
        Self { mountinfo, covered }
    }

    /// What is not as an instance of `service` is launched with.
    pub(super) fn differs(&self, service: &ReleaseService) -> Vec<String> {
        let places = Place::all(service);
        let mounts: Vec<Mount<'_>> = self.mountinfo.lines().filter_map(Mount::of).collect();
        let mut differs: Vec<String> = root(&mounts).into_iter().collect();
        differs.extend(places.iter().filter_map(|place| place.differs(&mounts)));
        let covers = |(path, cover): &(String, &str), m: &Mount<'_>| m.covers(path, cover, &mounts);
        let bare = self.covered.iter().filter(|path| !mounts.iter().any(|m| covers(path, m)));
        differs.extend(bare.map(|(path, _)| format!("nothing covers {path}, which no instance is to see")));
        let is_known = |m: &Mount<'_>| {
            m.at == "/"
                || places.iter().any(|p| p.at == m.at)
                || self.covered.iter().any(|path| covers(path, m))
        };
        for mount in mounts.iter().filter(|m| !is_known(m)) {
            differs.push(format!("{} is covered by a mount that its release does not declare", mount.at));
        }
        differs
    }
}

fn root(mounts: &[Mount<'_>]) -> Option<String> {
    let roots: Vec<&Mount<'_>> = mounts.iter().filter(|m| m.at == "/").collect();
    match roots.as_slice() {
        [root] if root.is("ro") => None,
        [_] => Some("its root can be written".into()),
        several => Some(format!("{} mounts are at its root, not one", several.len())),
    }
}

impl<'a> Place<'a> {
    fn all(service: &'a ReleaseService) -> Vec<Self> {
        let place = |at, root, kind, options: &[&'static str]| Self {
            at,
            root,
            kind,
            options: options.to_vec(),
            size: None,
        };
        let mut all = vec![
            place("/proc", "/", "proc", &["ro", "nosuid", "nodev", "noexec"]),
            place("/dev", "/", "tmpfs", &["ro", "nosuid", "noexec"]),
        ];
        if !service.secrets.is_empty() {
            all.push(place("/run/secrets", "/", "tmpfs", &["ro", "nosuid", "nodev", "noexec"]));
        }
        // What the list of names says is looked at as well.
        if !service.needs.is_empty() {
            all.push(place("/etc/hosts", "/hosts", "tmpfs", &["ro", "nosuid", "nodev", "noexec"]));
        }
        all.extend(service.volatile.iter().map(Self::volatile));
        // Of every instance's, if its release does not say how large.
        if !service.volatile.iter().any(|v| v.path == "/dev/shm") {
            all.push(place("/dev/shm", "/", "tmpfs", &["rw", "nosuid", "nodev", "noexec"]));
        }
        all
    }

    fn volatile(volatile: &'a Volatile) -> Self {
        const PAGE: u64 = 4096;
        let mut options = vec!["rw", "nosuid", "nodev"];
        options.extend((!volatile.exec).then_some("noexec"));
        let size = volatile.size.0.max(1).div_ceil(PAGE) * PAGE / 1024;
        Self { at: &volatile.path, root: "/", kind: "tmpfs", options, size: Some(size) }
    }

    fn differs(&self, mounts: &[Mount<'_>]) -> Option<String> {
        let here: Vec<&Mount<'_>> = mounts.iter().filter(|m| m.at == self.at).collect();
        match here.as_slice() {
            [] => Some(format!("nothing is mounted at {}", self.at)),
            [one] if self.is(one) => None,
            [_] => Some(format!("{} is not mounted as it was when it was launched", self.at)),
            several => Some(format!("{} mounts are at {}, not one", several.len(), self.at)),
        }
    }

    fn is(&self, mount: &Mount<'_>) -> bool {
        (mount.root, mount.kind) == (self.root, self.kind)
            && self.options.iter().all(|option| mount.is(option))
            && self.size.is_none_or(|size| mount.size() == Some(size))
    }
}

impl<'a> Mount<'a> {
    /// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`, from proc_pid_mountinfo(5).
    fn of(line: &'a str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(2);
        let mut file_system = file_system.split(' ');
        Some(Self {
            device: mount.next()?,
            root: mount.next()?,
            at: mount.next()?,
            options: mount.next()?,
            kind: file_system.next()?,
            of_file_system: file_system.nth(1)?,
        })
    }

    fn is(&self, option: &str) -> bool {
        self.options.split(',').any(|has| has == option)
    }

    fn size(&self) -> Option<u64> {
        let size = self.of_file_system.split(',').find_map(|option| option.strip_prefix("size="));
        size?.strip_suffix('k')?.parse().ok()
    }

    /// Whether it is `cover`, a path in /dev, in front of `path`.
    fn covers(&self, path: &str, cover: &str, mounts: &[Mount<'_>]) -> bool {
        let is_of_dev = |m: &Mount<'_>| m.at == "/dev" && m.device == self.device;
        self.at == path && cover.strip_prefix("/dev") == Some(self.root) && mounts.iter().any(is_of_dev)
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::{ByteSize, Release};

    use super::*;

    /// As a kernel told it of an instance with a secret.
    const LAUNCHED: &str = "\
48 47 0:40 / / ro,nosuid,nodev,relatime - overlay none ro,lowerdir+=/,datadir+=/,redirect_dir=on
49 48 0:43 / /dev ro,nosuid,noexec,relatime - tmpfs none rw,size=64k,nr_inodes=64,mode=755
51 49 0:45 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,size=65536k,nr_inodes=16384
52 48 0:46 / /run rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,size=4096k,nr_inodes=1024,mode=755
53 48 0:47 / /tmp rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,size=16384k,nr_inodes=4096
55 52 0:49 / /run/secrets ro,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,size=4k,nr_inodes=2,mode=500,noswap
56 48 0:50 / /proc ro,nosuid,nodev,noexec,relatime - proc none rw
57 56 0:43 /.masked /proc/acpi ro,nosuid,noexec,relatime - tmpfs none rw,size=64k,nr_inodes=64,mode=755
58 56 0:43 /null /proc/keys ro,nosuid,noexec,relatime - tmpfs none rw,size=64k,nr_inodes=64,mode=755
";

    fn service() -> ReleaseService {
        let text = include_str!("../../../kiln-model/tests/fixtures/release-2.json");
        let release = Release::decode(text.trim_end().as_bytes()).unwrap();
        let has_secrets = |s: &ReleaseService| !s.secrets.is_empty();
        let mut service = release.services.into_values().find(has_secrets).expect("one with secrets");
        service.volatile = [("/run", 4 << 20), ("/tmp", (16 << 20) - 1)]
            .map(|(path, size)| Volatile::new(path, ByteSize(size)))
            .into();
        service.needs.clear();
        service
    }

    fn differs(mountinfo: &str) -> Vec<String> {
        let covered = [("/proc/acpi", "/dev/.masked"), ("/proc/keys", "/dev/null")];
        let covered = covered.map(|(path, cover)| (path.to_owned(), cover)).into();
        Mounts::new(mountinfo.to_owned(), covered).differs(&service())
    }

    #[test]
    fn an_instance_as_it_was_launched_differs_in_nothing() {
        assert_eq!(differs(LAUNCHED), [""; 0]);
    }

    #[test]
    fn what_is_mounted_over_below_or_instead_is_told() {
        let over = |line: &str| differs(&format!("{LAUNCHED}{line}\n"));
        let another = "99 53 0:60 / /tmp rw,nosuid,nodev,noexec - tmpfs tmpfs rw,size=16384k";
        assert_eq!(over(another), ["2 mounts are at /tmp, not one"]);
        assert_eq!(over(&another.replace("/tmp", "/proc")), ["2 mounts are at /proc, not one"]);
        assert_eq!(over(&another.replace("/tmp", "/run/secrets")), ["2 mounts are at /run/secrets, not one"]);
        for below in ["/tmp/x", "/dev/x", "/proc/sys", "/srv", "/sys"] {
            let told = [format!("{below} is covered by a mount that its release does not declare")];
            assert_eq!(over(&another.replace("/tmp", below)), told);
        }
        let instead = |from: &str, to: &str| differs(&LAUNCHED.replacen(from, to, 1));
        let changed = |at: &str| vec![format!("{at} is not mounted as it was when it was launched")];
        assert_eq!(instead("/tmp rw,nosuid,nodev,noexec", "/tmp rw,nosuid,nodev"), changed("/tmp"));
        assert_eq!(instead("0:47 / /tmp", "0:47 /data /tmp"), changed("/tmp"));
        assert_eq!(instead("size=16384k", "size=99999k"), changed("/tmp"));
        assert_eq!(instead("/proc ro", "/proc rw"), changed("/proc"));
        assert_eq!(instead("/ / ro", "/ / rw"), ["its root can be written"]);
        assert_eq!(instead("/ /run/secrets", "/ /run/elsewhere").len(), 2);
    }

    #[test]
    fn a_cover_is_missed_and_one_where_none_belongs_is_told() {
        let without = |path: &str| {
            let lines: Vec<&str> = LAUNCHED.lines().filter(|line| !line.contains(path)).collect();
            differs(&lines.join("\n"))
        };
        for path in ["/proc/acpi", "/proc/keys"] {
            assert_eq!(without(path), [format!("nothing covers {path}, which no instance is to see")]);
        }
        let foreign = |path: &str| format!("{path} is covered by a mount that its release does not declare");
        let over = "99 56 0:43 /null /proc/meminfo ro,nosuid,noexec - tmpfs none rw";
        assert_eq!(differs(&format!("{LAUNCHED}{over}\n")), [foreign("/proc/meminfo")]);
        let another = LAUNCHED.replacen("0:43 /null /proc/keys", "0:99 /null /proc/keys", 1);
        assert_eq!(differs(&another).len(), 2, "not of its /dev: {:?}", differs(&another));
        let on_top = "99 58 0:60 /x /proc/keys ro,nosuid,noexec - tmpfs none rw";
        assert_eq!(differs(&format!("{LAUNCHED}{on_top}\n")), [foreign("/proc/keys")]);
    }
}
