//! User namespaces leave no process behind: a test with a process of its own, so that every child it sees is theirs.

use std::os::fd::AsFd;

use kiln_mount::{IdRange, UserNamespace};
use rustix::io::Errno;

const RANGE: IdRange = IdRange { inside: 0, outside: 700_000, count: 65_536 };

#[test]
fn namespaces_are_made_from_many_threads_and_leave_no_process_behind() {
    let make = || (0..10).map(|_| UserNamespace::new(&[RANGE]).expect("needs root")).collect::<Vec<_>>();
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(make)).collect();
    let made: Vec<_> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
    let mut inodes: Vec<_> = made.iter().map(|n| rustix::fs::fstat(n.as_fd()).unwrap().st_ino).collect();
    inodes.sort_unstable();
    inodes.dedup();
    assert_eq!(inodes.len(), 40, "each is a namespace of its own");

    // SAFETY: null is allowed where waitid would store what it found.
    let found = unsafe {
        libc::waitid(libc::P_ALL, 0, std::ptr::null_mut(), libc::WEXITED | libc::WNOHANG | libc::__WALL)
    };
    let answer = std::io::Error::last_os_error();
    assert_eq!((found, Errno::from_io_error(&answer)), (-1, Some(Errno::CHILD)));
}
