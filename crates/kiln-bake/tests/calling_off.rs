//! A bake that is called off ends soon, and leaves no image, no mount and no process.

mod common;

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::{baked, file, locked, order, scratch};
use kiln_bake::{BakeError, BakeOrder, Report, bake};
use kiln_model::Progress;
use kiln_store::Store;

/// Calls off when a task of this name has begun.
struct CallsOff {
    at: &'static str,
    called: AtomicBool,
}

impl Report for CallsOff {
    fn progress(&self, progress: Progress) {
        if progress.task == self.at {
            self.called.store(true, Ordering::Relaxed);
        }
    }

    fn cancelled(&self) -> bool {
        self.called.load(Ordering::Relaxed)
    }
}

/// Processes whose root is not this process's: those of a sandbox.
fn sandboxed() -> usize {
    let ours = fs::read_link("/proc/self/ns/net").unwrap();
    let parent = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)).map(str::to_owned)
    };
    let me = std::process::id().to_string();
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|pid| parent(pid).as_deref() == Some(&me))
        .filter(|pid| fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|ns| ns != ours))
        .count()
}

/// Calls off when it has been asked so often whether it does.
struct Patient {
    patience: AtomicUsize,
}

impl Report for Patient {
    fn progress(&self, _: Progress) {}

    fn cancelled(&self) -> bool {
        let less = |left: usize| left.checked_sub(1);
        self.patience.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err()
    }
}

/// While it is read for its digest, while it is copied, and while what the store has of it is read again.
#[test]
fn a_large_file_of_the_project_is_read_no_further() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let mut order = scratch(project.path());
    fs::write(project.path().join("large"), vec![7; 16 << 20]).unwrap();
    order.files.push(file("large", "/large"));
    let lock = locked(&order, &store);
    let called_off_after = |order: &BakeOrder, patience: usize| {
        let result = bake(order, &lock, &store, &Patient { patience: patience.into() });
        assert!(matches!(result, Err(BakeError::Cancelled)), "{patience}: {result:?}");
    };
    // It is read in parts of at most 128 KiB.
    [100, 300].iter().for_each(|patience| called_off_after(&order, *patience));
    assert_eq!(store.images().unwrap().len(), 0);
    assert!(!baked(&order, &lock, &store).reused);
    order.env.insert("ANOTHER".into(), "image".into());
    called_off_after(&order, 450);
    assert_eq!(store.verify().unwrap(), []);
}

#[test]
fn nothing_is_left_behind() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let order = order(project.path(), &[]);
    let lock = locked(&order, &store);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    for at in ["fetching packages", "unpacking packages", "configuring packages"] {
        let report = CallsOff { at, called: AtomicBool::new(false) };
        let result = bake(&order, &lock, &store, &report);
        assert!(matches!(result, Err(BakeError::Cancelled)), "{at}: {result:?}");
        assert_eq!((store.images().unwrap().len(), sandboxed()), (0, 0), "{at}");
    }
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(), mounts);
    assert!(!baked(&order, &lock, &store).reused);
}
