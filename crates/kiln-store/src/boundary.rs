//! The places at which a control plane may die: right before and right after everything it writes or has done. Each file
//! that the store names or removes is one, too, however many of them one command comes to.
//!
//! For tests, `KILN_TEST_BOUNDARY` makes it die, or makes the disk refuse, at one of them:
//!
//! ```text
//!   count:FILE    each boundary is written into FILE, one a line
//!   die:N         SIGKILL at the N-th boundary
//!   refuse:N      the first write at or after the N-th boundary, and the two after it, fail with an error of the disk
//!   fill:N        the same, and there is no space
//! ```
//! Absent, as it always is but there, this is a look at a value that never changes.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::StoreError;

/// What a test wants.
enum Wanted {
    Nothing,
    Count(PathBuf),
    Die(u64),
    Refuse(u64, Lack),
}

/// What is wrong with a disk.
#[derive(Clone, Copy)]
enum Lack {
    /// It is broken for a moment: EIO.
    Order,
    /// It is full: ENOSPC.
    Space,
}

static WANTED: LazyLock<Wanted> = LazyLock::new(|| {
    let given = std::env::var("KILN_TEST_BOUNDARY").unwrap_or_default();
    let number = |text: &str| text.parse().ok();
    match given.split_once(':') {
        Some(("count", file)) => Wanted::Count(file.into()),
        Some(("die", n)) => number(n).map_or(Wanted::Nothing, Wanted::Die),
        Some(("refuse", n)) => number(n).map_or(Wanted::Nothing, |n| Wanted::Refuse(n, Lack::Order)),
        Some(("fill", n)) => number(n).map_or(Wanted::Nothing, |n| Wanted::Refuse(n, Lack::Space)),
        _ => Wanted::Nothing,
    }
});

static PASSED: AtomicU64 = AtomicU64::new(0);

/// Does what is written or done, with a boundary on each side of it.
pub fn between<T>(what: &'static str, act: impl FnOnce() -> T) -> T {
    pass(what);
    let done = act();
    pass(what);
    done
}

/// Refuses a write if it is time for the disk to refuse one.
///
/// # Errors
/// [`StoreError::Io`] or [`StoreError::NoSpace`], in a test that asked for it.
pub fn refuse(attempted: &'static str, path: impl FnOnce() -> PathBuf) -> Result<(), StoreError> {
    /// How many writes in a row are refused.
    const WRITES: u64 = 3;
    static REFUSED: AtomicU64 = AtomicU64::new(0);
    let Wanted::Refuse(at, lack) = &*WANTED else { return Ok(()) };
    let is_time = PASSED.load(Ordering::SeqCst) >= *at;
    if !is_time || REFUSED.fetch_add(1, Ordering::SeqCst) >= WRITES {
        return Ok(());
    }
    let path = path();
    Err(match lack {
        Lack::Order => StoreError::Io { attempted, path, source: rustix::io::Errno::IO.into() },
        Lack::Space => StoreError::NoSpace { attempted, path, source: rustix::io::Errno::NOSPC.into() },
    })
}

/// Changes a file of the store, or several: `what` is done to what is at `path`.
///
/// # Errors
/// What that came to, or what a test wants.
pub fn changed<T>(
    what: &'static str,
    path: impl FnOnce() -> PathBuf,
    act: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    between(what, || refuse(what, path).and_then(|()| act()))
}

/// Writes something else than history into the store.
///
/// # Errors
/// As [`changed`].
pub fn stored<T>(
    path: impl FnOnce() -> PathBuf,
    write: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    changed("store", path, write)
}

fn pass(what: &'static str) {
    if matches!(*WANTED, Wanted::Nothing) {
        return;
    }
    let number = PASSED.fetch_add(1, Ordering::SeqCst) + 1;
    match &*WANTED {
        Wanted::Count(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            // Whoever counts sees that a line is missing.
            let _ = file.and_then(|mut file| writeln!(file, "{number} {what}"));
        }
        Wanted::Die(at) if number == *at => {
            let me = rustix::process::getpid();
            let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
            // Nothing more may be done by this process, however long the signal takes.
            loop {
                std::thread::park();
            }
        }
        Wanted::Die(_) | Wanted::Refuse(..) | Wanted::Nothing => {}
    }
}
