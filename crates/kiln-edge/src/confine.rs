//! What the edge gives up before it serves anyone. It faces the network, so what a mistake in it could be used for is
//! kept to what it does anyway.

use std::io;

use landlock::{ABI, Access, AccessFs, Ruleset, RulesetAttr, Scope};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::seccomp;
use crate::{Confinement, EdgeError};

/// More than any kernel knows: the loop below ends at the first number that is none.
const CAPABILITIES: libc::c_ulong = 64;

/// Becomes another user, for good: no groups but one, no capabilities, none to be had by executing something. Must
/// come before any thread is started: capabilities belong to threads.
pub(crate) fn drop_privileges(confinement: Confinement) -> Result<(), EdgeError> {
    let failed = |attempted| move |source| EdgeError::Confine { attempted, source };
    let Confinement { uid, gid } = confinement;
    if uid == 0 || gid == 0 {
        let source = io::Error::from(io::ErrorKind::InvalidInput);
        return Err(EdgeError::Confine { attempted: "become a user other than root", source });
    }
    empty_bounding_set().map_err(failed("empty the bounding set of capabilities"))?;
    // SAFETY: plain system calls on numbers and on one group id that lives until the call returns. glibc applies
    // them to every thread of the process.
    let became = unsafe {
        libc::setgroups(1, &gid) == 0
            && libc::setresgid(gid, gid, gid) == 0
            && libc::setresuid(uid, uid, uid) == 0
    };
    if !became {
        return Err(failed("become an unprivileged user")(io::Error::last_os_error()));
    }
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    let dropped = rustix::thread::set_capabilities(None, sets);
    dropped.map_err(io::Error::from).map_err(failed("drop all capabilities"))?;
    let renounced = rustix::thread::set_no_new_privs(true);
    renounced.map_err(io::Error::from).map_err(failed("renounce new privileges"))
}

fn empty_bounding_set() -> io::Result<()> {
    for capability in 0..CAPABILITIES {
        // SAFETY: a system call on numbers; it takes a capability from this thread and touches no memory.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            let error = io::Error::last_os_error();
            let is_past_the_last = capability > 0 && error.raw_os_error() == Some(libc::EINVAL);
            return if is_past_the_last { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

/// No file can be opened, and no other process be sent a signal, by this thread and those it starts. A kernel without
/// Landlock leaves that to [`allow_only_a_proxys_calls`], which forbids the same by other means.
pub(crate) fn close_the_file_system() -> Result<(), EdgeError> {
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V5))
        .and_then(|r| r.scope(Scope::Signal))
        .and_then(|r| r.create())
        .and_then(|r| r.restrict_self());
    match ruleset {
        Ok(_) => Ok(()),
        Err(e) => Err(EdgeError::Confine { attempted: "close the file system", source: io::Error::other(e) }),
    }
}

/// Only the system calls that proxying takes, on every thread of the process.
pub(crate) fn allow_only_a_proxys_calls() -> Result<(), EdgeError> {
    let attempted = "restrict its system calls";
    let failed = |source| EdgeError::Confine { attempted, source };
    let filter = seccomp::filter().map_err(io::Error::other).map_err(failed)?;
    seccompiler::apply_filter_all_threads(&filter).map_err(io::Error::other).map_err(failed)
}
