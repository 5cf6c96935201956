//! What whoever started the host has set for its own processes, and instances do not inherit: they are to be the same
//! whether it was a shell with `ulimit -t`, a supervisor that ignores signals or a unit with `LimitRTPRIO=`.

use std::io;

use kiln_model::STACK_LIMIT;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const MIB: u64 = 1 << 20;
/// As the kernel numbers signals.
const LAST_SIGNAL: libc::c_int = 64;

/// What a machine that nobody has touched gives its processes; real-time priorities are for nobody, because limits of
/// processor time do not hold them.
const USUAL: [(Resource, Option<u64>, Option<u64>); 13] = [
    (Resource::Cpu, None, None),
    (Resource::Fsize, None, None),
    (Resource::As, None, None),
    (Resource::Data, None, None),
    (Resource::Rss, None, None),
    (Resource::Locks, None, None),
    (Resource::Nproc, None, None),
    (Resource::Rttime, None, None),
    (Resource::Stack, Some(STACK_LIMIT), None),
    (Resource::Memlock, Some(8 * MIB), Some(8 * MIB)),
    (Resource::Msgqueue, Some(819_200), Some(819_200)),
    (Resource::Rtprio, Some(0), Some(0)),
    (Resource::Nice, Some(0), Some(0)),
];

/// Forgets limits, ignored signals and the personality. How urgent and where it runs stays as it was told.
pub(super) fn forget() -> io::Result<()> {
    for (resource, current, maximum) in USUAL {
        let usual = Rlimit { current, maximum };
        if setrlimit(resource, usual).is_err() {
            // What is not to be had without a capability that the host's root lacks.
            let most = getrlimit(resource).maximum;
            setrlimit(resource, Rlimit { current: least(current, most), maximum: most })?;
        }
    }
    (1..=LAST_SIGNAL).for_each(heed);
    // SAFETY: takes a number; nothing in this process depends on what it was.
    if unsafe { libc::personality(0) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// None is without limit.
fn least(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (limit, None) | (None, limit) => limit,
    }
}

/// Stops ignoring a signal. That of a pipe without readers is ignored by every program in Rust, which is undone where
/// instances are born.
fn heed(signal: libc::c_int) {
    if signal == libc::SIGPIPE {
        return;
    }
    /// The kernel's own `struct sigaction`: handler, flags, restorer, mask.
    const DEFAULT: [usize; 4] = [0; 4];
    const SET_BYTES: usize = 8;
    let (number, mut now) = (libc::SYS_rt_sigaction, DEFAULT);
    // SAFETY: the kernel writes one `sigaction` and reads one. The C library is not asked, because it keeps two signals for
    // itself; what it makes of them is set again when a thread is started.
    unsafe {
        let asked = libc::syscall(number, signal, std::ptr::null::<usize>(), now.as_mut_ptr(), SET_BYTES);
        if asked == 0 && now[0] == libc::SIG_IGN {
            libc::syscall(number, signal, DEFAULT.as_ptr(), std::ptr::null::<usize>(), SET_BYTES);
        }
    }
}
