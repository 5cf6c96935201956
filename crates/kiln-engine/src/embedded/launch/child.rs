//! From birth to the program: what a child does, in the order that works.
//!
//! The child runs in its parent's memory. It makes raw system calls, reads its script, writes to its own stack, and
//! does nothing else: no allocation, no formatting, no thread-local storage, nothing that could panic.
//!
//! The order is not free. Everything that mounts or configures happens as the host's root. Then the child becomes
//! a user without meaning, so that the user namespace it makes is charged to that one and not to the host's root,
//! whose allowance all instances would share. Privilege inside the new namespace lasts until the ids are set.

use std::ffi::{c_int, c_long, c_ulong};

use super::hosts;
use super::raw::{self, Errno};
use super::script::{Beside, GroupToJoin, GroupsToJoin, Script, Span, Streams};
use super::step::{Failed, Report, Step};

/// Leave an id as it is.
const KEEP: c_ulong = u32::MAX as c_ulong;
/// Where a child keeps its end of the channel, and its list of names.
const CHANNEL: c_int = 3;
const NAMES: c_int = 4;

/// Carries out the script; the last step is the program itself.
pub(super) extern "C" fn perform(script: &Script) -> ! {
    let failed = attempt(script);
    // Until it has a table of its own, the number it keeps its channel at means something else.
    let channel = if failed.step == Step::Descriptors { script.streams.channel } else { CHANNEL };
    let _ = raw::write(channel, &Report::Failed(failed).encode());
    raw::exit()
}

/// Returns only if a step failed.
fn attempt(script: &Script) -> Failed {
    match prepare(script) {
        Err(failed) => failed,
        Ok(()) => Failed { step: Step::Execute, item: 0, errno: execute(script) },
    }
}

fn prepare(script: &Script) -> Result<(), Failed> {
    at(script, Step::Descriptors, descriptors(script))?;
    at(script, Step::Signals, signals())?;
    if script.beside.is_some_and(|b| b.has_terminal) {
        at(script, Step::Signals, numbers(libc::SYS_ioctl, [0, libc::TIOCSCTTY, 0]))?;
    }
    match script.beside {
        None => make_instance(script)?,
        Some(beside) => join_instance(script, beside)?,
    }
    at(script, Step::Capabilities, reduce_bounding_set(script))?;
    at(script, Step::Ids, become_user(script))?;
    at(script, Step::WorkDir, let_go_of_the_host())?;
    at(script, Step::WorkDir, raw::change_dir(&script.workdir))?;
    at(script, Step::Limits, limits(script))?;
    at(script, Step::Capabilities, drop_privilege(script.capabilities))?;
    at(script, Step::Filter, raw::set_filter(script.filter()))
}

/// Everything a new instance has of its own.
fn make_instance(script: &Script) -> Result<(), Failed> {
    at(script, Step::Network, numbers(libc::SYS_unshare, [libc::CLONE_NEWNET as c_ulong]))?;
    mount_volatile(script)?;
    if let Some(machine_id) = &script.machine_id {
        at(script, Step::MachineId, machine_id.give())?;
    }
    if let Some(secrets) = &script.secrets {
        at(script, Step::Secrets, secrets.give())?;
    }
    mount_proc(script)?;
    if script.streams.names.is_some() {
        at(script, Step::Hosts, raw::attach_file(NAMES, hosts::NAME, c"/etc/hosts"))?;
    }
    at(script, Step::Loopback, raw::loopback_up())?;
    at(script, Step::Hostname, raw::set_hostname(&script.hostname))?;
    join_groups(script)?;
    enter_user_namespace(script)?;
    at(script, Step::ControlGroupNamespace, numbers(libc::SYS_unshare, [libc::CLONE_NEWCGROUP as c_ulong]))
}

/// The control groups it was not born into, which its parent makes meanwhile if it has nothing else to do. A thread that
/// moves itself keeps nobody else on the host from forking while it does.
fn join_groups(script: &Script) -> Result<(), Failed> {
    let groups = &script.groups_to_join;
    if groups.makes_them {
        for (n, group) in groups.all.iter().enumerate() {
            nth(script, Step::ControlGroups, n, make_group(groups, group))?;
        }
    } else {
        wait_for_word(script, Step::ControlGroups)?;
    }
    for (n, group) in groups.all.iter().enumerate() {
        nth(script, Step::ControlGroups, n, raw::write_file(group.dir, &groups.join_by, b"0"))?;
    }
    Ok(())
}

fn make_group(groups: &GroupsToJoin, group: &GroupToJoin) -> Result<(), Errno> {
    raw::make_dir_at(group.dir, &groups.name, 0o755)?;
    group.settings.iter().try_for_each(|(file, value, is_optional)| {
        match raw::write_file(group.dir, file, value.as_bytes()) {
            Err(libc::ENOENT) if *is_optional => Ok(()),
            other => other,
        }
    })
}

/// Everything an instance has already: its process namespace was entered at birth. The user namespace comes last,
/// because the others belong to the host's.
fn join_instance(script: &Script, beside: Beside) -> Result<(), Failed> {
    const OTHERS: libc::c_int = libc::CLONE_NEWNS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWCGROUP;
    wait_for_parent(script)?;
    let main = beside.main as c_ulong;
    at(script, Step::Join, numbers(libc::SYS_setns, [main, OTHERS as c_ulong]))?;
    at(script, Step::Join, numbers(libc::SYS_setns, [main, libc::CLONE_NEWUSER as c_ulong]))
}

fn at<T>(script: &Script, step: Step, result: Result<T, Errno>) -> Result<(), Failed> {
    nth(script, step, 0, result)
}

fn nth<T>(script: &Script, step: Step, item: usize, result: Result<T, Errno>) -> Result<(), Failed> {
    match result {
        Ok(_) => {
            if let Some(times) = &script.times {
                times.mark(step);
            }
            Ok(())
        }
        Err(errno) => Err(Failed { step, item: item as u8, errno }),
    }
}

fn numbers<const N: usize>(call: c_long, arguments: [c_ulong; N]) -> Result<c_ulong, Errno> {
    // SAFETY: the calls made through here take numbers, and the descriptors among them are this process's own
    // copies: the first of them leaves the table that is shared with the parent.
    unsafe { raw::plain(call, arguments) }
}

/// The parent ignores SIGPIPE, as every program in Rust does, and blocks what it reads by signalfd. Programs expect none of
/// it. What else it was made to ignore it has forgotten (`keeper/heritage.rs`).
fn signals() -> Result<(), Errno> {
    raw::default_action(libc::SIGPIPE)?;
    raw::unblock_signals()?;
    // A session of its own: nothing that is done to the parent's reaches it.
    numbers(libc::SYS_setsid, []).map(drop)
}

fn mount_volatile(script: &Script) -> Result<(), Failed> {
    for (n, each) in script.volatile.iter().enumerate() {
        for hidden in &each.hidden {
            match raw::make_dir(hidden, 0o755).and_then(|()| raw::change_owner(hidden, each.owner)) {
                // Of another volatile path below the same one.
                Ok(()) | Err(libc::EEXIST) => {}
                Err(errno) => return nth(script, Step::Volatile, n, Err::<(), _>(errno)),
            }
        }
        let flags = libc::MS_NOSUID | libc::MS_NODEV | each.no_exec;
        nth(script, Step::Volatile, n, raw::mount(c"tmpfs", &each.path, c"tmpfs", flags, &each.options))?;
    }
    Ok(())
}

/// Writable until it is attached: what is set through it belongs to the new namespaces.
fn mount_proc(script: &Script) -> Result<(), Failed> {
    let proc = match raw::mount_detached(c"proc") {
        Ok(fd) => fd,
        Err(errno) => return Err(Failed { step: Step::Proc, item: 0, errno }),
    };
    at(script, Step::PortStart, raw::write_file(proc, c"sys/net/ipv4/ip_unprivileged_port_start", b"0"))?;
    if script.host.has_memfd_noexec {
        at(script, Step::MemfdNoExec, raw::write_file(proc, c"sys/vm/memfd_noexec", b"2"))?;
    }
    at(script, Step::AttachProc, raw::attach_read_only(proc, c"/proc"))?;
    for (n, mask) in script.host.masks.iter().enumerate() {
        nth(script, Step::Mask, n, raw::mount(mask.cover, &mask.path, c"", libc::MS_BIND, c""))?;
    }
    Ok(())
}

fn enter_user_namespace(script: &Script) -> Result<(), Failed> {
    let accounting = script.accounting_uid as c_ulong;
    at(script, Step::AccountingUser, numbers(libc::SYS_setresuid, [KEEP, accounting, KEEP]))?;
    at(script, Step::UserNamespace, numbers(libc::SYS_unshare, [libc::CLONE_NEWUSER as c_ulong]))?;
    wait_for_parent(script)
}

/// Until the parent has done what only it can do: id maps, and limits the child was not born under.
fn wait_for_parent(script: &Script) -> Result<(), Failed> {
    at(script, Step::WaitForMaps, raw::write(CHANNEL, &Report::WantsMaps.encode()))?;
    wait_for_word(script, Step::WaitForMaps)
}

fn wait_for_word(script: &Script, step: Step) -> Result<(), Failed> {
    let word = match raw::read_byte(CHANNEL) {
        Ok(1) => Ok(()),
        // The parent is gone, or does not want it any more.
        Ok(_) => Err(libc::EPIPE),
        Err(errno) => Err(errno),
    };
    at(script, step, word)
}

/// Closes whatever still is open of the parent's: directories of the host, among others. The working directory and the
/// program are named by the image, which may name `/proc/self/fd/…`, outright or by a link, and would lead out by it.
fn let_go_of_the_host() -> Result<(), Errno> {
    let (from, to_the_last) = ((CHANNEL + 1) as c_ulong, u32::MAX as c_ulong);
    numbers(libc::SYS_close_range, [from, to_the_last, 0]).map(drop)
}

fn become_user(script: &Script) -> Result<(), Errno> {
    let (uid, gid) = (script.uid as c_ulong, script.gid as c_ulong);
    if script.capabilities != 0 {
        // Or another user than root would lose all of them. It is forgotten when the program is executed.
        raw::prctl(libc::PR_SET_KEEPCAPS, 1)?;
    }
    numbers(libc::SYS_setresgid, [gid, gid, gid])?;
    raw::set_groups(&script.groups)?;
    numbers(libc::SYS_setresuid, [uid, uid, uid])?;
    numbers(libc::SYS_umask, [0o022]).map(drop)
}

fn limits(script: &Script) -> Result<(), Errno> {
    const FILES: u64 = 1024; // What `select` can count to; programs that want more ask for it.
    raw::set_limit(libc::RLIMIT_NOFILE, FILES.min(script.host.most_files), script.host.most_files)
}

/// A table of its own.
fn descriptors(script: &Script) -> Result<(), Errno> {
    match script.streams.parents_end {
        None => own_descriptors(script.streams, &script.closes),
        Some(parents_end) => copied_descriptors(script.streams, parents_end),
    }
}

/// A copy of the parent's table, of which more is needed: the rest of it goes when the program is executed.
fn copied_descriptors(streams: Streams, parents_end: c_int) -> Result<(), Errno> {
    // Or the end of the parent would go unnoticed.
    numbers(libc::SYS_close, [parents_end as c_ulong])?;
    own_streams(streams)?;
    let (from, to_the_last) = (CHANNEL as c_ulong, u32::MAX as c_ulong);
    numbers(libc::SYS_close_range, [from, to_the_last, libc::CLOSE_RANGE_CLOEXEC as c_ulong]).map(drop)
}

/// A table with the standard streams and what is needed until the program is executed, and nothing else: of the parent's
/// not even the numbers above those are copied. Nothing that is opened later stays open.
fn own_descriptors(streams: Streams, closes: &[Span]) -> Result<(), Errno> {
    const UNSHARE: c_ulong = libc::CLOSE_RANGE_UNSHARE as c_ulong;
    numbers(libc::SYS_close_range, [streams.end as c_ulong, u32::MAX as c_ulong, UNSHARE])?;
    own_streams(streams)?;
    match streams.names {
        Some(names) => {
            numbers(libc::SYS_dup3, [names as c_ulong, NAMES as c_ulong, libc::O_CLOEXEC as c_ulong])?;
        }
        None => {
            numbers(libc::SYS_close_range, [NAMES as c_ulong, NAMES as c_ulong, 0])?;
        }
    }
    closes.iter().try_for_each(|Span(first, last)| {
        numbers(libc::SYS_close_range, [c_ulong::from(*first), c_ulong::from(*last), 0]).map(drop)
    })
}

/// Standard streams and channel, where they belong.
fn own_streams(streams: Streams) -> Result<(), Errno> {
    for (from, to) in [(streams.stdin, 0), (streams.stdout, 1), (streams.stderr, 2)] {
        numbers(libc::SYS_dup3, [from as c_ulong, to, 0])?;
    }
    let closes_on_execution = libc::O_CLOEXEC as c_ulong;
    numbers(libc::SYS_dup3, [streams.channel as c_ulong, CHANNEL as c_ulong, closes_on_execution]).map(drop)
}

/// Full again in a new user namespace; it can be reduced only while its owner still is privileged there.
fn reduce_bounding_set(script: &Script) -> Result<(), Errno> {
    for capability in 0..=script.host.last_capability {
        if !has(script.capabilities, capability) {
            raw::prctl(libc::PR_CAPBSET_DROP, capability as usize)?;
        }
    }
    Ok(())
}

/// Leaves these capabilities.
fn drop_privilege(but: u32) -> Result<(), Errno> {
    raw::prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    raw::set_capabilities(but)?;
    for capability in 0..u32::BITS {
        if has(but, capability) {
            raw::keep_capability(capability)?;
        }
    }
    Ok(())
}

fn has(capabilities: u32, number: u32) -> bool {
    capabilities.checked_shr(number).unwrap_or(0) & 1 == 1
}

fn execute(script: &Script) -> Errno {
    let mut errno = libc::ENOENT;
    for program in &script.programs {
        // SAFETY: both lists were made by `TextList`, which ends them with a null pointer.
        match unsafe { raw::execute(program, script.argv.as_ptr(), script.envp.as_ptr()) } {
            libc::ENOENT | libc::ENOTDIR => {}
            other => errno = other,
        }
    }
    errno
}
