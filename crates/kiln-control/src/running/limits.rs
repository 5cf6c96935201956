//! The limits a process is under, as its control groups have them.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_model::Limits;

/// Where the groups of a process are: one for each tree that is mounted here.
#[derive(Debug)]
pub(super) struct Groups(Vec<PathBuf>);

impl Groups {
    /// From the texts of `/proc/PID/cgroup` and of the reader's own `mountinfo`.
    pub(super) fn of(cgroup: &str, mountinfo: &str) -> Self {
        let mounts: Vec<Tree<'_>> = mountinfo.lines().filter_map(Tree::of).collect();
        let group = |line: &str| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let tree = mounts.iter().find(|t| t.holds(controllers))?;
            Some(
                Path::new(tree.at).join(path.strip_prefix(tree.root).unwrap_or(path).trim_start_matches('/')),
            )
        };
        Self(cgroup.lines().filter_map(group).collect())
    }

    /// What is not as `limits` say.
    pub(super) fn differs(&self, limits: Limits) -> Vec<String> {
        let memory = self.number(&["memory.max", "memory.limit_in_bytes"]);
        let pids = self.number(&["pids.max"]);
        let mut differs = Vec::new();
        let page = rustix::param::page_size() as u64;
        let expected = limits.memory.0 / page * page;
        let mut note = |what: &str, found: Option<u64>, expected: u64| match found {
            Some(found) if found == expected => {}
            Some(found) => {
                differs.push(format!("its limit of {what} is {found}, and its release has {expected}"))
            }
            None => differs.push(format!("it has no limit of {what}, and its release has {expected}")),
        };
        note("memory", memory, expected);
        note("processes", pids, limits.pids.into());
        // The kernel takes no less than a hundredth.
        note("thousandths of a CPU", self.cpu(), u64::from(limits.cpu_millis).max(10));
        differs
    }

    fn read(&self, name: &str) -> Option<String> {
        self.0.iter().find_map(|group| fs::read_to_string(group.join(name)).ok())
    }

    fn number(&self, names: &[&str]) -> Option<u64> {
        let text = names.iter().find_map(|name| self.read(name))?;
        text.trim().parse().ok()
    }

    fn cpu(&self) -> Option<u64> {
        let (quota, period) = match self.read("cpu.max") {
            Some(text) => {
                let (quota, period) = text.trim().split_once(' ')?;
                (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?)
            }
            None => (self.number(&["cpu.cfs_quota_us"])?, self.number(&["cpu.cfs_period_us"])?),
        };
        quota.checked_mul(1000)?.checked_div(period)
    }
}

/// A tree of control groups that is mounted.
struct Tree<'a> {
    root: &'a str,
    at: &'a str,
    /// Its controllers; none of the unified one.
    options: Option<&'a str>,
}

impl<'a> Tree<'a> {
    /// `36 35 98:0 /root /mnt rw,noatime master:1 - cgroup cgroup rw,cpu`
    fn of(line: &'a str) -> Option<Self> {
        let (place, filesystem) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, at) = (place.next()?, place.next()?);
        let mut filesystem = filesystem.split(' ');
        let kind = filesystem.next()?;
        let options = match kind {
            "cgroup2" => None,
            "cgroup" => Some(filesystem.nth(1)?),
            _ => return None,
        };
        Some(Self { root: root.trim_end_matches('/'), at, options })
    }

    fn holds(&self, controllers: &str) -> bool {
        match self.options {
            None => controllers.is_empty(),
            Some(options) => {
                let has = |c: &str| options.split(',').any(|option| option == c);
                !controllers.is_empty() && controllers.split(',').all(has)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::ByteSize;

    use super::*;

    #[test]
    fn groups_are_found_in_the_unified_tree_and_in_those_before_it() {
        let mounts = "\
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 /outer /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 31 0:39 / /proc rw - proc proc rw
";
        let Groups(found) = Groups::of("3:memory:/outer/k/i\n2:cpu:/k/i\n1:name=other:/x\n0::/k/i\n", mounts);
        let at = |tree: &str| PathBuf::from("/sys/fs/cgroup").join(tree).join("k/i");
        assert_eq!(found, [at("memory"), at("cpu"), at("unified")]);
    }

    #[test]
    fn limits_are_compared_in_both_formats() {
        let limits = Limits { memory: ByteSize(64 << 20), cpu_millis: 500, pids: 10, io: None };
        let dir = tempfile::tempdir().unwrap();
        let groups = Groups(vec![dir.path().to_owned()]);
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        assert_eq!(groups.differs(limits).len(), 3, "nothing is limited");
        write("memory.max", "67108864\n");
        write("pids.max", "10\n");
        write("cpu.max", "50000 100000\n");
        assert_eq!(groups.differs(limits), [""; 0]);
        write("cpu.max", "max 100000\n");
        assert!(groups.differs(limits)[0].starts_with("it has no limit of thousandths"));
        fs::remove_file(dir.path().join("cpu.max")).unwrap();
        write("cpu.cfs_quota_us", "50000\n");
        write("cpu.cfs_period_us", "100000\n");
        assert_eq!(groups.differs(limits), [""; 0]);
        write("memory.max", "max\n");
        write("pids.max", "11\n");
        let said = groups.differs(limits).join("\n");
        assert!(
            said.contains("no limit of memory") && said.contains("processes is 11, and its release has 10")
        );
    }
}
