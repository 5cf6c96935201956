//! The clock that programs in a sandbox see: it stands still.
//!
//! No namespace has a wall clock of its own, so the sandbox is traced. Two things lead to the host's clock:
//!
//! - the **vDSO**, code of the kernel's that reads it without a system call. Every program finds it through an entry of
//!   its auxiliary vector; when one is executed, that entry is struck out before its first instruction runs. Without it
//!   C libraries (and Go) make system calls;
//! - **system calls** that read it. A filter has those stop for the tracer, which answers in the kernel's place.
//!
//! Waits until a moment by this clock (`pthread_cond_timedwait`) are moved to the same distance on the kernel's. A program that
//! asks again and again without end waits for time to pass: for it alone time begins to pass, after [`PATIENCE`] calls.
//! What is left of the host's time in a sandbox: times of files that are written (set to the epoch afterwards), and
//! clocks that count from the start of the host.

use std::collections::HashMap;
use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::RawFd;

use libc::{c_int, c_long, c_void, pid_t, user_regs_struct};
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, sock_filter,
};

/// So often a process may ask for the time without its passing.
const PATIENCE: u32 = 20_000;
/// So much passes with each call after that.
const TICK_NANOSECONDS: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;

/// Clocks that tell the time of day.
const TELLING: [c_int; 4] =
    [libc::CLOCK_REALTIME, libc::CLOCK_REALTIME_COARSE, libc::CLOCK_REALTIME_ALARM, libc::CLOCK_TAI];
/// The bit of a futex operation that says its time is of the time of day.
const FUTEX_CLOCK_REALTIME: u64 = 256;
/// Where there is room below a stack: beyond what the program may use without moving its pointer.
const BELOW_STACK: u64 = 512;

const AT_IGNORE: u64 = 1;
const WORD: usize = size_of::<u64>();
/// Arguments and environment take up to 2 MiB of pointers.
const MOST_WORDS: usize = 1 << 19;

/// Has the calls that tell the time stop.
pub(super) fn filter() -> io::Result<Vec<sock_filter>> {
    let equals = |index, length, operator, value| {
        SeccompCondition::new(index, length, operator, value).map_err(io::Error::other)
    };
    let rule = |conditions| SeccompRule::new(conditions).map_err(io::Error::other);
    let mut tells = Vec::new();
    for clock in TELLING {
        tells.push(rule(vec![equals(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, clock as u64)?])?);
    }
    let by_day = equals(
        1,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(FUTEX_CLOCK_REALTIME),
        FUTEX_CLOCK_REALTIME,
    )?;
    let has_end = equals(3, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?;
    let waits = vec![rule(vec![by_day, has_end])?];
    let rules = [
        (libc::SYS_clock_gettime, tells),
        (libc::SYS_gettimeofday, Vec::new()),
        (libc::SYS_time, Vec::new()),
        (libc::SYS_futex, waits),
    ];
    let architecture = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let (allow, stop) = (SeccompAction::Allow, SeccompAction::Trace(0));
    let filter = SeccompFilter::new(rules.into_iter().collect(), allow, stop, architecture)
        .map_err(io::Error::other)?;
    filter.try_into().map_err(io::Error::other)
}

/// Traces `init` and all it will start until none of them is left. It waits for a byte at `gate` before it starts any.
/// The thread that calls this is their tracer; if it ends before them, so do they.
pub(super) fn keep(init: pid_t, gate: RawFd, now: i64) -> io::Result<()> {
    let options = libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEEXEC
        | libc::PTRACE_O_TRACESECCOMP
        | libc::PTRACE_O_EXITKILL;
    ptrace(libc::PTRACE_SEIZE, init, options as u64)?;
    // SAFETY: one byte that is there for as long as the call lasts, to a descriptor the caller keeps open.
    if unsafe { libc::write(gate, [1_u8].as_ptr().cast(), 1) } != 1 {
        return Err(io::Error::last_os_error());
    }
    let mut clock = Clock { now, calls: HashMap::new() };
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call. Only children and tracees of this very thread are waited for: it has no
        // others, and nobody else's are taken away.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::__WALL | libc::__WNOTHREAD) };
        match pid {
            -1 => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error if error.raw_os_error() == Some(libc::ECHILD) => return Ok(()),
                error => return Err(error),
            },
            pid if libc::WIFSTOPPED(status) => clock.stopped(pid, status),
            pid => drop(clock.calls.remove(&pid)),
        }
    }
}

struct Clock {
    now: i64,
    /// How often each process has asked.
    calls: HashMap<pid_t, u32>,
}

impl Clock {
    /// What fails here fails because the process has been killed meanwhile; that is noticed by waiting for it.
    fn stopped(&mut self, pid: pid_t, status: c_int) {
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        let mut deliver = 0;
        match event {
            libc::PTRACE_EVENT_EXEC => drop(strike_out_vdso(pid)),
            libc::PTRACE_EVENT_SECCOMP => drop(self.answer(pid)),
            libc::PTRACE_EVENT_STOP if signal != libc::SIGTRAP => {
                let _ = ptrace(libc::PTRACE_LISTEN, pid, 0);
                return;
            }
            0 => deliver = signal as u64,
            _ => {}
        }
        let _ = ptrace(libc::PTRACE_CONT, pid, deliver);
    }

    /// The time for this process, in nanoseconds.
    fn time(&mut self, pid: pid_t) -> i64 {
        let calls = self.calls.entry(pid).or_default();
        *calls = calls.saturating_add(1);
        self.now.saturating_mul(SECOND) + i64::from(calls.saturating_sub(PATIENCE)) * TICK_NANOSECONDS
    }

    fn answer(&mut self, pid: pid_t) -> io::Result<()> {
        let mut registers = registers(pid)?;
        let time = self.time(pid);
        let (seconds, nanoseconds) = (time.div_euclid(SECOND), time.rem_euclid(SECOND));
        let call = registers.orig_rax as c_long;
        if call == libc::SYS_futex {
            return move_deadline(pid, &mut registers, time);
        }
        let (place, second) = match call {
            libc::SYS_clock_gettime => (registers.rsi, nanoseconds),
            libc::SYS_gettimeofday => (registers.rdi, nanoseconds / 1000),
            _ => (0, 0),
        };
        let mut result = 0;
        if call == libc::SYS_time {
            result = seconds;
            if registers.rdi != 0 {
                result = kept(put(pid, registers.rdi, &[seconds as u64]), seconds);
            }
        } else if place != 0 {
            result = kept(put(pid, place, &[seconds as u64, second as u64]), 0);
        }
        // No such call is made: the kernel leaves the result alone.
        registers.orig_rax = u64::MAX;
        registers.rax = result as u64;
        set_registers(pid, &registers)
    }
}

/// What the kernel answers where it cannot write.
fn kept(written: io::Result<()>, result: i64) -> i64 {
    if written.is_ok() { result } else { -i64::from(libc::EFAULT) }
}

/// Waits end as far from now as they would by the clock of the sandbox. The program's own copy stays as it is: it may wait for
/// the same moment again.
fn move_deadline(pid: pid_t, registers: &mut user_regs_struct, time: i64) -> io::Result<()> {
    let [seconds, nanoseconds] = get::<2>(pid, registers.r10)?;
    let left =
        (seconds as i64).saturating_mul(SECOND).saturating_add(nanoseconds as i64).saturating_sub(time);
    let mut real = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct outlives the call.
    if unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut real) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let end = (real.tv_sec.saturating_mul(SECOND) + real.tv_nsec).saturating_add(left).max(0);
    let place = (registers.rsp - BELOW_STACK) & !15;
    put(pid, place, &[(end / SECOND) as u64, (end % SECOND) as u64])?;
    registers.r10 = place;
    set_registers(pid, registers)
}

/// Takes the vDSO out of what a program that has just been executed is told:
/// `argc, arguments…, 0, environment…, 0, (type, value)…`, all words, from its stack pointer on.
fn strike_out_vdso(pid: pid_t) -> io::Result<()> {
    let start = registers(pid)?.rsp;
    let at = |index: usize| start + (index * WORD) as u64;
    let mut words = Words { pid, start, read: Vec::new() };
    let mut index = usize::try_from(words.get(0)?).unwrap_or(MOST_WORDS).saturating_add(2);
    while words.get(index)? != 0 {
        index += 1;
    }
    index += 1;
    loop {
        match words.get(index)? {
            libc::AT_NULL => return Ok(()),
            libc::AT_SYSINFO_EHDR => return put(pid, at(index), &[AT_IGNORE]),
            _ => index += 2,
        }
    }
}

/// Words of a process's stack, read piece by piece: what is behind its end cannot be read.
struct Words {
    pid: pid_t,
    start: u64,
    read: Vec<u64>,
}

impl Words {
    fn get(&mut self, index: usize) -> io::Result<u64> {
        const PIECE: usize = 64;
        while self.read.len() <= index {
            if index >= MOST_WORDS {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let place = self.start + (self.read.len() * WORD) as u64;
            match get::<PIECE>(self.pid, place) {
                Ok(piece) => self.read.extend(piece),
                Err(_) => self.read.extend(get::<1>(self.pid, place)?),
            }
        }
        Ok(self.read[index])
    }
}

fn get<const N: usize>(pid: pid_t, place: u64) -> io::Result<[u64; N]> {
    let mut words = [0_u64; N];
    let ours = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: N * WORD };
    let theirs = libc::iovec { iov_base: place as *mut c_void, iov_len: N * WORD };
    // SAFETY: `words` has that many bytes and outlives the call; the other address is checked by the kernel.
    let read = unsafe { libc::process_vm_readv(pid, &ours, 1, &theirs, 1, 0) };
    if read == (N * WORD) as isize { Ok(words) } else { Err(io::Error::last_os_error()) }
}

fn put(pid: pid_t, place: u64, words: &[u64]) -> io::Result<()> {
    let ours = libc::iovec { iov_base: words.as_ptr().cast_mut().cast(), iov_len: size_of_val(words) };
    let theirs = libc::iovec { iov_base: place as *mut c_void, iov_len: size_of_val(words) };
    // SAFETY: the words are only read; the other address is checked by the kernel.
    let written = unsafe { libc::process_vm_writev(pid, &ours, 1, &theirs, 1, 0) };
    if written == size_of_val(words) as isize { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn registers(pid: pid_t) -> io::Result<user_regs_struct> {
    // SAFETY: all zeroes is a valid value of this plain struct, which the kernel fills.
    let mut registers: user_regs_struct = unsafe { std::mem::zeroed() };
    ptrace(libc::PTRACE_GETREGS, pid, &raw mut registers as u64)?;
    Ok(registers)
}

fn set_registers(pid: pid_t, registers: &user_regs_struct) -> io::Result<()> {
    ptrace(libc::PTRACE_SETREGS, pid, registers as *const user_regs_struct as u64)
}

/// Only with requests whose data is a number, or the address of a struct that outlives the call.
fn ptrace(request: libc::c_uint, pid: pid_t, data: u64) -> io::Result<()> {
    // SAFETY: as above; a stopped tracee is another process, nothing of this one is changed but the struct.
    match unsafe { libc::ptrace(request, pid, std::ptr::null_mut::<c_void>(), data as *mut c_void) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

// What is read as words is laid out so.
const _: () = assert!(
    size_of::<user_regs_struct>() == 27 * WORD && offset_of!(user_regs_struct, orig_rax) == 15 * WORD
);
