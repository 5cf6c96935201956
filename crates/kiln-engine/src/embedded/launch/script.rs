//! Everything a child needs to know, laid out before it is born: it cannot allocate.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, NulError, c_char, c_int, c_ulong};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;

use kiln_model::{ByteSize, Capability, ExecOrder, InstanceOrder, SecretOrder, Volatile};
use zeroize::Zeroize;

use super::super::cgroup::{Groups, Setting};
use super::Host;
use super::ids::AppIds;
use super::machine_id::MachineId;
use super::secrets::SecretFiles;
use super::slots::{Slot, Slots};
use super::times::Times;

/// Instructions for one child. Built by the parent, only read by the child.
pub(super) struct Script {
    pub(super) host: Rc<Host>,
    pub(super) volatile: Vec<Tmpfs>,
    pub(super) secrets: Option<SecretFiles>,
    pub(super) machine_id: Option<MachineId>,
    pub(super) hostname: CString,
    pub(super) accounting_uid: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    /// What it may do beyond others, a bit for each.
    pub(super) capabilities: u32,
    pub(super) workdir: CString,
    /// Where its program may be, in the order in which it is looked for.
    pub(super) programs: Vec<CString>,
    pub(super) argv: TextList,
    pub(super) envp: TextList,
    pub(super) streams: Streams,
    pub(super) groups_to_join: GroupsToJoin,
    /// What it closes of the part of its parent's table that it begins with.
    pub(super) closes: Vec<Span>,
    pub(super) beside: Option<Beside>,
    /// Where it notes when each step is done, if anybody wants to know.
    pub(super) times: Option<Times>,
}

/// The v1 control groups a child joins.
#[derive(Debug, Default)]
pub(super) struct GroupsToJoin {
    pub(super) name: CString,
    /// The file below each directory by which a process joins.
    pub(super) join_by: CString,
    pub(super) all: Vec<GroupToJoin>,
    /// Whether it makes them itself. Its parent does if it would only wait meanwhile.
    pub(super) makes_them: bool,
}

/// One of them.
#[derive(Debug)]
pub(super) struct GroupToJoin {
    /// The directory it is made in, which is kept in all tables.
    pub(super) dir: c_int,
    /// Files below that and what is written into them; whether the file may be missing.
    pub(super) settings: Vec<(CString, CString, bool)>,
}

impl GroupsToJoin {
    pub(super) fn new(
        order: &InstanceOrder,
        groups: &Groups,
        slots: &Slots,
        makes_them: bool,
    ) -> Result<Self, NulError> {
        let id = order.id.as_str();
        let file = |s: &Setting| {
            Ok((CString::new(format!("{id}/{}", s.file))?, CString::new(s.value.as_str())?, s.is_optional))
        };
        let group = |(dir, settings): (c_int, Vec<Setting>)| {
            Ok(GroupToJoin { dir, settings: settings.iter().map(file).collect::<Result<_, _>>()? })
        };
        let all = slots.kept().into_iter().zip(groups.settings_of_others(&order.limits));
        let all = all.map(group).collect::<Result<_, NulError>>()?;
        Ok(Self { name: CString::new(id)?, join_by: CString::new(format!("{id}/tasks"))?, all, makes_them })
    }
}

/// Of a child that joins an instance instead of becoming one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beside {
    /// The main process of the instance.
    pub(super) main: c_int,
    /// Whether its standard input is to be the terminal that controls it.
    pub(super) has_terminal: bool,
}

/// Numbers of descriptors, from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span(pub(super) u32, pub(super) u32);

impl Span {
    /// Below are the standard streams, and where a child keeps its channel and its list of names.
    pub(super) const FIRST: u32 = 5;

    /// All that a child does not use itself, but for these.
    fn all_but(kept: &[c_int]) -> Vec<Self> {
        let mut kept: Vec<u32> = kept.iter().map(|n| n.unsigned_abs()).collect();
        kept.sort_unstable();
        let (mut spans, mut next) = (Vec::new(), Self::FIRST);
        for n in kept {
            if next < n {
                spans.push(Self(next, n - 1));
            }
            next = next.max(n + 1);
        }
        spans.push(Self(next, u32::MAX));
        spans
    }
}

/// The descriptors a child uses, by number: they are the parent's, which keeps them open until the child has a table of
/// its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streams {
    /// The first number the child has no use for.
    pub(super) end: c_int,
    pub(super) channel: c_int,
    /// The parent's end of the channel, of a child that begins with a copy of the parent's table instead of sharing it.
    pub(super) parents_end: Option<c_int>,
    pub(super) stdin: c_int,
    pub(super) stdout: c_int,
    pub(super) stderr: c_int,
    /// The mount with its list of names, if it has one of its own.
    pub(super) names: Option<c_int>,
}

impl Streams {
    pub(super) fn new(slots: &Slots, slot: &Slot, has_names: bool) -> Self {
        let [channel, stdout, stderr, names] = slot.numbers();
        let names = has_names.then_some(names);
        Self { end: slots.end(), channel, parents_end: None, stdin: slots.null(), stdout, stderr, names }
    }

    /// Of a child that needs more of its parent's descriptors.
    pub(super) fn copied(
        [channel, parents_end]: [BorrowedFd<'_>; 2],
        [stdin, stdout, stderr]: [BorrowedFd<'_>; 3],
    ) -> Self {
        Self {
            end: c_int::MAX,
            channel: channel.as_raw_fd(),
            parents_end: Some(parents_end.as_raw_fd()),
            stdin: stdin.as_raw_fd(),
            stdout: stdout.as_raw_fd(),
            stderr: stderr.as_raw_fd(),
            names: None,
        }
    }
}

/// A tmpfs to mount.
pub(super) struct Tmpfs {
    pub(super) path: CString,
    /// Directories on the way to it that another one hides, which is mounted before.
    pub(super) hidden: Vec<CString>,
    /// Whose those are.
    pub(super) owner: (u32, u32),
    pub(super) options: CString,
    /// The flag that forbids to execute what is on it, or none.
    pub(super) no_exec: c_ulong,
}

/// A list of texts as `execve` takes it.
pub(super) struct TextList {
    pointers: Vec<*const c_char>,
    texts: Vec<CString>,
}

/// Among them may be secrets.
impl Drop for TextList {
    fn drop(&mut self) {
        self.pointers.clear();
        self.texts.drain(..).for_each(|text| text.into_bytes().zeroize());
    }
}

impl TextList {
    fn new(texts: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Result<Self, NulError> {
        let texts: Vec<CString> = texts.into_iter().map(CString::new).collect::<Result<_, _>>()?;
        let ends = std::iter::once(std::ptr::null());
        Ok(Self { pointers: texts.iter().map(|t| t.as_ptr()).chain(ends).collect(), texts })
    }

    pub(super) fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

/// What instances without a PATH of their own search for programs.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// /dev/shm is there whether declared or not, because POSIX shared memory is.
const SHARED_MEMORY: &str = "/dev/shm";
const SHARED_MEMORY_BYTES: u64 = 64 << 20;

impl Script {
    pub(super) fn new(
        host: Rc<Host>,
        order: &InstanceOrder,
        ids: AppIds,
        accounting_uid: u32,
        (streams, groups_to_join): (Streams, GroupsToJoin),
    ) -> Result<Self, NulError> {
        let run = &order.run;
        let times = host.times.is_some().then(Times::new);
        Ok(Self {
            host,
            volatile: volatile(order, ids)?,
            secrets: SecretFiles::of(order, ids)?,
            machine_id: None,
            hostname: CString::new(order.id.as_str())?,
            accounting_uid,
            uid: run.uid,
            gid: run.gid,
            groups: run.groups.clone(),
            capabilities: bits(&order.capabilities),
            workdir: CString::new(run.workdir.as_str())?,
            programs: vec![CString::new(run.argv.first().map_or("", String::as_str))?],
            argv: TextList::new(run.argv.iter().cloned())?,
            envp: TextList::new(environment(&order.env, &order.secrets))?,
            streams,
            closes: Span::all_but(&groups_to_join.all.iter().map(|g| g.dir).collect::<Vec<_>>()),
            groups_to_join,
            beside: None,
            times,
        })
    }

    /// Of a child that joins an instance.
    pub(super) fn beside(
        host: Rc<Host>,
        order: &ExecOrder,
        beside: Beside,
        streams: Streams,
    ) -> Result<Self, NulError> {
        Ok(Self {
            host,
            volatile: Vec::new(),
            secrets: None,
            machine_id: None,
            hostname: CString::default(),
            accounting_uid: 0,
            uid: order.uid,
            gid: order.gid,
            groups: order.groups.clone(),
            capabilities: bits(&order.capabilities),
            workdir: CString::new(order.workdir.as_str())?,
            programs: programs(order)?,
            argv: TextList::new(order.argv.iter().cloned())?,
            envp: TextList::new(environment(&order.env, &order.secrets))?,
            streams,
            groups_to_join: GroupsToJoin::default(),
            closes: Vec::new(),
            beside: Some(beside),
            times: None,
        })
    }

    pub(super) fn filter(&self) -> &[libc::sock_filter] {
        let chroot = 1 << Capability::SysChroot.number();
        if self.capabilities & chroot == 0 { &self.host.filter } else { &self.host.filter_with_chroot }
    }
}

fn bits(capabilities: &BTreeSet<Capability>) -> u32 {
    capabilities.iter().fold(0, |bits, capability| bits | 1 << capability.number())
}

/// Variables, those that are secrets included, and what every program takes for granted.
fn environment<'a>(
    variables: &'a BTreeMap<String, String>,
    secrets: &'a [SecretOrder],
) -> impl Iterator<Item = Vec<u8>> {
    let secrets = secrets.iter().filter_map(|s| Some((s.env.as_deref()?, s.value.reveal())));
    let secrets: BTreeMap<&str, &[u8]> = secrets.collect();
    let own = variables.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let own = own.filter(|(name, _)| !secrets.contains_key(name)).collect::<BTreeMap<_, _>>();
    let defaults = [("PATH", DEFAULT_PATH.as_bytes()), ("HOME", b"/".as_slice())];
    let missing =
        defaults.into_iter().filter(|(name, _)| !own.contains_key(name) && !secrets.contains_key(name));
    let all = missing.chain(own.clone()).chain(secrets.clone());
    all.map(|(name, value)| [name.as_bytes(), b"=", value].concat()).collect::<Vec<_>>().into_iter()
}

/// What has no slash in it is looked for on the PATH, as shells do.
fn programs(order: &ExecOrder) -> Result<Vec<CString>, NulError> {
    let name = order.argv.first().map_or("", String::as_str);
    if name.is_empty() || name.contains('/') {
        return Ok(vec![CString::new(name)?]);
    }
    let path = order.env.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    let places = path.split(':').filter(|dir| dir.starts_with('/'));
    places.map(|dir| CString::new(format!("{}/{name}", dir.trim_end_matches('/')))).collect()
}

/// Parents before children, so that a volatile path inside another is mounted onto it.
fn volatile(order: &InstanceOrder, ids: AppIds) -> Result<Vec<Tmpfs>, NulError> {
    let mut all = order.volatile.clone();
    if !all.iter().any(|v| v.path == SHARED_MEMORY) {
        let size = ByteSize(SHARED_MEMORY_BYTES.min(order.limits.memory.0));
        all.push(Volatile::new(SHARED_MEMORY, size));
    }
    all.sort_unstable();
    let owner = (ids.outside(order.run.uid), ids.outside(order.run.gid));
    all.iter().map(|volatile| tmpfs(volatile, &all, owner)).collect()
}

fn tmpfs(volatile: &Volatile, all: &[Volatile], owner @ (uid, gid): (u32, u32)) -> Result<Tmpfs, NulError> {
    // To the kernel none at all would be without limit.
    let (path, size) = (volatile.path.as_str(), volatile.size.0.max(4096));
    let mode = if is_shared_by_custom(path) { "1777" } else { "0755" };
    // A file costs about a page of kernel memory even when empty: as many as pages, within reason.
    let inodes = (size / 4096).clamp(64, 1 << 20);
    let options = format!("mode={mode},uid={uid},gid={gid},size={size},nr_inodes={inodes}");
    let no_exec = if volatile.exec { 0 } else { libc::MS_NOEXEC };
    let hidden = hidden(path, all)?;
    Ok(Tmpfs { path: CString::new(path)?, hidden, owner, options: CString::new(options)?, no_exec })
}

/// The directories from the innermost volatile path around `path` to it.
fn hidden(path: &str, all: &[Volatile]) -> Result<Vec<CString>, NulError> {
    let below =
        |v: &Volatile| path.strip_prefix(v.path.as_str()).filter(|rest| rest.starts_with('/')).map(str::len);
    let Some(length) = all.iter().filter_map(below).min() else { return Ok(Vec::new()) };
    let from = path.len() - length;
    let ends = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > from).chain([path.len()]);
    ends.map(|end| CString::new(&path[..end])).collect()
}

/// Directories that everybody may write to on any machine.
fn is_shared_by_custom(path: &str) -> bool {
    matches!(path, "/tmp" | "/var/tmp" | "/dev/shm" | "/run/lock" | "/var/lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_not_closed_and_everything_else_is() {
        let last = u32::MAX;
        assert_eq!(Span::all_but(&[]), [Span(5, last)]);
        assert_eq!(Span::all_but(&[7, 5, 6]), [Span(8, last)]);
        assert_eq!(Span::all_but(&[9, 6]), [Span(5, 5), Span(7, 8), Span(10, last)]);
    }
}
