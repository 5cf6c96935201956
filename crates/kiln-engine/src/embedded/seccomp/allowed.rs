//! The list.
//!
//! It holds what nginx, PostgreSQL, Redis, Python, Java, Node.js and shells were seen to use and what their kind may
//! use, as far as it concerns nobody but the caller. Not on it, among others: mount and its kin, unshare and setns,
//! ptrace and reading the memory of others, bpf, perf, io_uring, userfaultfd, key rings, handles of files, modules,
//! clocks, swap, quotas.

use std::ffi::c_long;

use super::program::{Condition, Test};

/// Calls that are allowed with any arguments.
pub(super) fn calls() -> Vec<c_long> {
    let mut calls = EVERYWHERE.to_vec();
    calls.extend(OF_THIS_ARCHITECTURE);
    calls.extend(FUTEX_CALLS);
    calls
}

/// futex_wake, futex_wait and futex_requeue: the same numbers everywhere, too new to have names in libc.
const FUTEX_CALLS: [c_long; 3] = [454, 455, 456];

/// All flags of clone that make a namespace (a new time namespace cannot be asked for there).
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// Families whose sockets reach nothing outside of the network namespace; of netlink only what configures it, which
/// C libraries read interfaces and routes from. AF_VSOCK, for one, knows no namespaces and leads to the hypervisor.
const FAMILIES: &[&[(u8, u32)]] = &[
    &[(0, libc::AF_UNIX as u32)],
    &[(0, libc::AF_INET as u32)],
    &[(0, libc::AF_INET6 as u32)],
    &[(0, libc::AF_NETLINK as u32), (2, libc::NETLINK_ROUTE as u32)],
];

/// Linux as it is, or the question which it is; the others make memory layouts predictable.
const PERSONALITIES: &[&[(u8, u32)]] = &[&[(0, 0)], &[(0, u32::MAX)]];

/// Putting characters into the input of a terminal, which may be the one of a person outside.
const TYPING: &[u32] = &[libc::TIOCSTI as u32, libc::TIOCLINUX as u32];

/// Calls that are allowed with some arguments.
pub(super) fn conditions() -> [Condition; 4] {
    [
        Condition { call: libc::SYS_clone, test: Test::NoBits(0, NEW_NAMESPACES), errno: libc::EPERM },
        Condition { call: libc::SYS_socket, test: Test::AnyOf(FAMILIES), errno: libc::EAFNOSUPPORT },
        Condition { call: libc::SYS_ioctl, test: Test::NoneOf(1, TYPING), errno: libc::EPERM },
        Condition { call: libc::SYS_personality, test: Test::AnyOf(PERSONALITIES), errno: libc::EPERM },
    ]
}

#[rustfmt::skip]
const EVERYWHERE: &[c_long] = {
    use libc::*;
    &[
        SYS_accept, SYS_accept4, SYS_bind, SYS_brk, SYS_capget, SYS_capset, SYS_chdir, SYS_clock_getres,
        SYS_clock_gettime, SYS_clock_nanosleep, SYS_close, SYS_close_range, SYS_connect,
        SYS_copy_file_range, SYS_dup, SYS_dup3, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait,
        SYS_epoll_pwait2, SYS_eventfd2, SYS_execve, SYS_execveat, SYS_exit, SYS_exit_group, SYS_faccessat,
        SYS_faccessat2, SYS_fadvise64, SYS_fallocate, SYS_fchdir, SYS_fchmod, SYS_fchmodat, SYS_fchmodat2,
        SYS_fchown, SYS_fchownat, SYS_fcntl, SYS_fdatasync, SYS_fgetxattr, SYS_flistxattr, SYS_flock,
        SYS_fremovexattr, SYS_fsetxattr, SYS_fstat, SYS_fstatfs, SYS_fsync, SYS_ftruncate, SYS_futex,
        SYS_futex_waitv, SYS_get_robust_list, SYS_getcpu, SYS_getcwd, SYS_getdents64, SYS_getegid, SYS_geteuid, SYS_getgid,
        SYS_getgroups, SYS_getitimer, SYS_getpeername, SYS_getpgid, SYS_getpid, SYS_getppid,
        SYS_getpriority, SYS_getrandom, SYS_getresgid, SYS_getresuid, SYS_getrlimit, SYS_getrusage,
        SYS_getsid, SYS_getsockname, SYS_getsockopt, SYS_gettid, SYS_gettimeofday, SYS_getuid, SYS_getxattr,
        SYS_inotify_add_watch, SYS_inotify_init1, SYS_inotify_rm_watch, SYS_io_cancel, SYS_io_destroy,
        SYS_io_getevents, SYS_io_setup, SYS_io_submit, SYS_ioprio_get, SYS_ioprio_set,
        SYS_kill, SYS_landlock_add_rule, SYS_landlock_create_ruleset, SYS_landlock_restrict_self,
        SYS_lgetxattr, SYS_linkat, SYS_listen, SYS_listxattr, SYS_llistxattr, SYS_lremovexattr, SYS_lseek,
        SYS_lsetxattr, SYS_madvise, SYS_membarrier, SYS_memfd_create, SYS_mincore, SYS_mkdirat, SYS_mknodat,
        SYS_mlock, SYS_mlock2, SYS_mlockall, SYS_mmap, SYS_mprotect, SYS_mq_getsetattr, SYS_mq_notify,
        SYS_mq_open, SYS_mq_timedreceive, SYS_mq_timedsend, SYS_mq_unlink, SYS_mremap, SYS_mseal,
        SYS_msgctl, SYS_msgget, SYS_msgrcv, SYS_msgsnd, SYS_msync, SYS_munlock, SYS_munlockall, SYS_munmap,
        SYS_nanosleep, SYS_newfstatat, SYS_openat, SYS_openat2, SYS_pidfd_open, SYS_pidfd_send_signal,
        SYS_pipe2, SYS_pkey_alloc, SYS_pkey_free, SYS_pkey_mprotect, SYS_ppoll, SYS_prctl, SYS_pread64,
        SYS_preadv, SYS_preadv2, SYS_prlimit64, SYS_pselect6, SYS_pwrite64, SYS_pwritev, SYS_pwritev2,
        SYS_read, SYS_readahead, SYS_readlinkat, SYS_readv, SYS_recvfrom, SYS_recvmmsg, SYS_recvmsg,
        SYS_remap_file_pages, SYS_removexattr, SYS_renameat, SYS_renameat2, SYS_restart_syscall, SYS_rseq,
        SYS_rt_sigaction, SYS_rt_sigpending, SYS_rt_sigprocmask, SYS_rt_sigqueueinfo, SYS_rt_sigreturn,
        SYS_rt_sigsuspend, SYS_rt_sigtimedwait, SYS_rt_tgsigqueueinfo, SYS_sched_get_priority_max,
        SYS_sched_get_priority_min, SYS_sched_getaffinity, SYS_sched_getattr, SYS_sched_getparam,
        SYS_sched_getscheduler, SYS_sched_rr_get_interval, SYS_sched_setaffinity, SYS_sched_setattr,
        SYS_sched_setparam, SYS_sched_setscheduler, SYS_sched_yield, SYS_seccomp, SYS_semctl, SYS_semget,
        SYS_semop, SYS_semtimedop, SYS_sendfile, SYS_sendmmsg, SYS_sendmsg, SYS_sendto, SYS_set_robust_list,
        SYS_set_tid_address, SYS_setfsgid, SYS_setfsuid, SYS_setgid, SYS_setgroups, SYS_setitimer,
        SYS_setpgid, SYS_setpriority, SYS_setregid, SYS_setresgid, SYS_setresuid, SYS_setreuid,
        SYS_setrlimit, SYS_setsid, SYS_setsockopt, SYS_setuid, SYS_setxattr, SYS_shmat, SYS_shmctl,
        SYS_shmdt, SYS_shmget, SYS_shutdown, SYS_sigaltstack, SYS_signalfd4, SYS_socketpair, SYS_splice,
        SYS_statfs, SYS_statx, SYS_symlinkat, SYS_sync, SYS_sync_file_range, SYS_syncfs, SYS_sysinfo,
        SYS_tee, SYS_tgkill, SYS_timer_create, SYS_timer_delete, SYS_timer_getoverrun, SYS_timer_gettime,
        SYS_timer_settime, SYS_timerfd_create, SYS_timerfd_gettime, SYS_timerfd_settime, SYS_times,
        SYS_tkill, SYS_truncate, SYS_umask, SYS_uname, SYS_unlinkat, SYS_utimensat, SYS_vmsplice, SYS_wait4,
        SYS_waitid, SYS_write, SYS_writev,
    ]
};

/// What newer architectures have left out.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OF_THIS_ARCHITECTURE: &[c_long] = {
    use libc::*;
    &[
        SYS_access, SYS_alarm, SYS_arch_prctl, SYS_chmod, SYS_chown, SYS_creat, SYS_dup2, SYS_epoll_create,
        SYS_epoll_wait, SYS_eventfd, SYS_fork, SYS_futimesat, SYS_getdents, SYS_getpgrp, SYS_inotify_init,
        SYS_lchown, SYS_link, SYS_lstat, SYS_mkdir, SYS_mknod, SYS_open, SYS_pause, SYS_pipe, SYS_poll,
        SYS_readlink, SYS_rename, SYS_rmdir, SYS_select, SYS_signalfd, SYS_stat, SYS_symlink, SYS_time,
        SYS_unlink, SYS_utime, SYS_utimes, SYS_vfork,
    ]
};
#[cfg(not(target_arch = "x86_64"))]
const OF_THIS_ARCHITECTURE: &[c_long] = &[];
