//! Tries to get out of an instance, as a program that knows the kernel would; what a shell can try is in the tests.
//!
//! Prints `succeeded NAME` for everything that was not refused, and `all tried`. With an argument it uses up an
//! allowance of its user instead, prints how much there was, and stays; or holds memory.

use std::ffi::c_long;
use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::ExitCode;

/// Calls that are refused whatever their arguments: so nothing is meant by these, which are all zero.
const REFUSED: &[(&str, c_long)] = &[
    ("mount", libc::SYS_mount),
    ("umount", libc::SYS_umount2),
    ("pivot_root", libc::SYS_pivot_root),
    ("chroot", libc::SYS_chroot),
    ("fsopen", libc::SYS_fsopen),
    ("fspick", libc::SYS_fspick),
    ("fsmount", libc::SYS_fsmount),
    ("open_tree", libc::SYS_open_tree),
    ("move_mount", libc::SYS_move_mount),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("unshare", libc::SYS_unshare),
    ("setns", libc::SYS_setns),
    ("clone3", libc::SYS_clone3),
    ("ptrace", libc::SYS_ptrace),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("process_madvise", libc::SYS_process_madvise),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("kcmp", libc::SYS_kcmp),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("name_to_handle_at", libc::SYS_name_to_handle_at),
    ("bpf", libc::SYS_bpf),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("userfaultfd", libc::SYS_userfaultfd),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("io_uring_enter", libc::SYS_io_uring_enter),
    ("io_uring_register", libc::SYS_io_uring_register),
    ("keyctl", libc::SYS_keyctl),
    ("add_key", libc::SYS_add_key),
    ("request_key", libc::SYS_request_key),
    ("init_module", libc::SYS_init_module),
    ("finit_module", libc::SYS_finit_module),
    ("delete_module", libc::SYS_delete_module),
    ("kexec_load", libc::SYS_kexec_load),
    ("reboot", libc::SYS_reboot),
    ("swapon", libc::SYS_swapon),
    ("swapoff", libc::SYS_swapoff),
    ("acct", libc::SYS_acct),
    ("quotactl", libc::SYS_quotactl),
    ("settimeofday", libc::SYS_settimeofday),
    ("clock_settime", libc::SYS_clock_settime),
    ("adjtimex", libc::SYS_adjtimex),
    ("clock_adjtime", libc::SYS_clock_adjtime),
    ("syslog", libc::SYS_syslog),
    ("sethostname", libc::SYS_sethostname),
    ("setdomainname", libc::SYS_setdomainname),
    ("vhangup", libc::SYS_vhangup),
    ("fanotify_init", libc::SYS_fanotify_init),
    ("move_pages", libc::SYS_move_pages),
    ("migrate_pages", libc::SYS_migrate_pages),
    ("mbind", libc::SYS_mbind),
    ("set_mempolicy", libc::SYS_set_mempolicy),
    ("get_mempolicy", libc::SYS_get_mempolicy),
];

const NEW_NAMESPACES: [(&str, i32); 7] = [
    ("user namespace", libc::CLONE_NEWUSER),
    ("mount namespace", libc::CLONE_NEWNS),
    ("network namespace", libc::CLONE_NEWNET),
    ("process namespace", libc::CLONE_NEWPID),
    ("ipc namespace", libc::CLONE_NEWIPC),
    ("host name namespace", libc::CLONE_NEWUTS),
    ("control group namespace", libc::CLONE_NEWCGROUP),
];

/// Families, types and protocols that reach beyond the instance's own network, or far into the kernel.
const SOCKETS: [(&str, i32, i32, i32); 12] = [
    ("vsock", libc::AF_VSOCK, libc::SOCK_STREAM, 0),
    ("packet socket", libc::AF_PACKET, libc::SOCK_RAW, 0),
    ("raw socket", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
    ("raw IPv6 socket", libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6),
    ("alg socket", libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
    ("key socket", libc::AF_KEY, libc::SOCK_RAW, 2),
    ("bluetooth socket", libc::AF_BLUETOOTH, libc::SOCK_RAW, 1),
    ("xdp socket", libc::AF_XDP, libc::SOCK_RAW, 0),
    ("netfilter", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER),
    ("audit", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT),
    ("kernel events", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_KOBJECT_UEVENT),
    ("generic netlink", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_GENERIC),
];

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("to be run as the first process of an instance, and nowhere else");
        return ExitCode::FAILURE;
    }
    match std::env::args().nth(1).as_deref() {
        Some("use-up-inotify") => stay(inotify_instances()),
        Some("use-up-pipes") => stay(large_pipes()),
        Some("hold-memory") => hold(std::env::args().nth(2).and_then(|n| n.parse().ok()).unwrap_or(1)),
        _ => try_all(),
    }
    ExitCode::SUCCESS
}

fn call(number: c_long, a: [c_long; 5]) -> Result<c_long, i32> {
    // SAFETY: what is called here is refused, or takes numbers and null pointers.
    match unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4]) } {
        -1 => Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        answer => Ok(answer),
    }
}

fn report(name: &str, answer: Result<c_long, i32>, refusals: &[i32]) {
    if !answer.is_err_and(|errno| refusals.contains(&errno)) {
        println!("succeeded {name} ({answer:?})");
    }
}

fn try_all() {
    for (name, number) in REFUSED {
        report(name, call(*number, [0; 5]), &[libc::EPERM, libc::ENOSYS]);
    }
    for (name, flag) in NEW_NAMESPACES {
        let answer = call(libc::SYS_clone, [(flag | libc::SIGCHLD).into(), 0, 0, 0, 0]);
        if answer == Ok(0) {
            std::process::abort();
        }
        report(name, answer, &[libc::EPERM]);
    }
    for (name, family, kind, protocol) in SOCKETS {
        let answer = call(libc::SYS_socket, [family.into(), kind.into(), protocol.into(), 0, 0]);
        report(name, answer, &[libc::EPERM, libc::EAFNOSUPPORT, libc::EPROTONOSUPPORT]);
    }
    const NO_RANDOM_ADDRESSES: c_long = 0x0004_0000;
    report("personality", call(libc::SYS_personality, [NO_RANDOM_ADDRESSES, 0, 0, 0, 0]), &[libc::EPERM]);
    const TYPE_INTO_TERMINAL: c_long = libc::TIOCSTI as c_long;
    report("typing", call(libc::SYS_ioctl, [0, TYPE_INTO_TERMINAL, 0, 0, 0]), &[libc::EPERM]);
    for answer in executable_memory_files() {
        report("an executable file in memory", answer, &[libc::EACCES, libc::EPERM]);
    }
    report("code from a volatile path", map_code(), &[libc::EPERM]);
    report("full capabilities", raise_capabilities(), &[libc::EPERM]);
    println!("all tried");
}

/// Asked for as such, and made one later.
fn executable_memory_files() -> [Result<c_long, i32>; 2] {
    const EXECUTABLE: c_long = 0x10; // MFD_EXEC
    let make = |flags| call(libc::SYS_memfd_create, [c"x".as_ptr() as c_long, flags, 0, 0, 0]);
    let made_later = make(0).and_then(|fd| call(libc::SYS_fchmod, [fd, 0o755, 0, 0, 0]));
    [make(EXECUTABLE), made_later]
}

fn map_code() -> Result<c_long, i32> {
    let file = fs::File::options().read(true).write(true).create(true).truncate(true).open("/tmp/code");
    let mut file = file.expect("a volatile path");
    file.write_all(&[0xc3; 4096]).expect("room");
    let rights = (libc::PROT_READ | libc::PROT_EXEC).into();
    call(libc::SYS_mmap, [0, 4096, rights, libc::MAP_PRIVATE.into(), file.as_raw_fd().into()])
}

fn raise_capabilities() -> Result<c_long, i32> {
    let (header, all) = ([0x2008_0522u32, 0], [u32::MAX; 6]);
    call(libc::SYS_capset, [header.as_ptr() as c_long, all.as_ptr() as c_long, 0, 0, 0])
}

/// So many MiB of memory, every page of it written to, until it is ended.
fn hold(mebibytes: usize) {
    let memory = std::hint::black_box(vec![1u8; mebibytes << 20]);
    println!("holding {}", memory.len());
    loop {
        std::thread::park();
    }
}

/// Says how many there were, and stays.
fn stay(number: usize) {
    println!("there were {number}");
    loop {
        std::thread::park();
    }
}

fn inotify_instances() -> usize {
    let more = |_: &usize| call(libc::SYS_inotify_init1, [0; 5]).is_ok();
    (0..10_000).take_while(more).count()
}

/// Pipes as large as they usually are, until they become smaller or there are 1200.
fn large_pipes() -> usize {
    let most = libc::rlimit { rlim_cur: 4096, rlim_max: 4096 };
    // SAFETY: the kernel reads one limit.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const most) };
    let mut number = 0;
    while number < 1200 {
        let mut ends = [0; 2];
        // SAFETY: the kernel writes two numbers; the descriptors stay open on purpose.
        let size = unsafe {
            if libc::pipe(ends.as_mut_ptr()) != 0 {
                break;
            }
            libc::fcntl(ends[0], libc::F_GETPIPE_SZ)
        };
        if size < 65_536 {
            break;
        }
        number += 1;
    }
    number
}
