//! Opening the state directory: new, known, newer, foreign, and after a crash.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use kiln_store::{HostLock, Store, StoreError};
use rustix::fs::{FlockOperation, flock};
use support::Scratch;

#[test]
fn a_new_directory_is_private_and_can_be_opened_again() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(store.root().to_owned()), 0o700);
    assert_eq!(mode(store.objects_dir().to_owned()), 0o755);
    assert!(store.run_dir().is_dir() && store.output_dir().is_dir());
    assert_eq!(fs::read_to_string(store.root().join("version")).unwrap(), "1\n");
    scratch.open();
}

/// What is in it is for root, also where somebody has made it before.
#[test]
fn an_empty_directory_becomes_a_private_one() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.root()).unwrap();
    fs::set_permissions(scratch.root(), fs::Permissions::from_mode(0o755)).unwrap();
    // A new file system has it.
    fs::create_dir(scratch.root().join("lost+found")).unwrap();
    let store = scratch.open();
    assert_eq!(fs::metadata(store.root()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn many_can_begin_at_once() {
    let scratch = Scratch::new();
    let threads: Vec<_> = (0..16)
        .map(|_| {
            let root = scratch.root();
            std::thread::spawn(move || Store::open(&root).map(|_| ()))
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap().unwrap());
}

#[test]
fn a_newer_layout_is_refused() {
    let scratch = Scratch::new();
    scratch.open();
    fs::write(scratch.root().join("version"), "2\n").unwrap();
    let error = Store::open(&scratch.root()).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 2, known: 1, .. }), "{error}");
    assert!(
        error.to_string().ends_with("has layout 2 and this Kiln knows layouts up to 1: run a newer Kiln")
    );
    fs::write(scratch.root().join("version"), "one").unwrap();
    assert!(matches!(Store::open(&scratch.root()).unwrap_err(), StoreError::Damaged { .. }));
}

#[test]
fn somebody_elses_directory_is_left_alone() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.root()).unwrap();
    fs::write(scratch.root().join("thesis.tex"), "years of work").unwrap();
    let error = Store::open(&scratch.root()).unwrap_err();
    assert!(error.to_string().ends_with("it holds `thesis.tex`, and no file `version`"), "{error}");
    assert_eq!(fs::read_dir(scratch.root()).unwrap().count(), 1);
}

#[test]
fn only_what_a_dead_process_left_is_removed() {
    let scratch = Scratch::new();
    let living = scratch.open();
    let batch = living.objects().batch().unwrap();
    let (digest, size) = batch.put_bytes(b"under way").unwrap();

    let dead = scratch.root().join("tmp/4194304-0");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("7"), "torn").unwrap();
    let held = scratch.root().join("tmp/4194305-0");
    fs::create_dir(&held).unwrap();
    let lock = fs::File::open(&held).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();

    let other = scratch.open();
    assert!(!dead.exists() && held.exists());
    assert!(!other.objects().contains(&digest, size).unwrap(), "not yet committed");
    assert_eq!(batch.commit().unwrap(), 1);
    assert!(other.objects().contains(&digest, size).unwrap());
}

#[test]
fn nothing_temporary_stays_behind() {
    let scratch = Scratch::new();
    let store = scratch.open();
    store.objects().put_bytes(b"kept").unwrap();
    let batch = store.objects().batch().unwrap();
    batch.put_bytes(b"given up").unwrap();
    drop(batch);
    drop(store);
    assert_eq!(fs::read_dir(scratch.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn who_ends_leaves_nothing_however_many_still_write() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let held = store.scratch(b"being written").unwrap();
    fs::create_dir(scratch.root().join("tmp/1-0")).unwrap();
    store.write_no_more().unwrap();
    assert_eq!(fs::read_dir(scratch.root().join("tmp")).unwrap().count(), 0);
    assert!(store.scratch(b"too late").is_err());
    drop(held);
}

#[test]
fn a_second_host_is_told_who_the_first_is() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let first = HostLock::take(&store).unwrap();
    let error = HostLock::take(&store).unwrap_err();
    let me = std::process::id();
    assert!(matches!(error, StoreError::Locked { pid: Some(pid), .. } if pid == me), "{error}");
    drop(first);
    HostLock::take(&store).unwrap();
}

#[test]
fn errors_name_the_path_and_know_a_full_disk() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let missing = kiln_model::ObjectDigest(kiln_model::Sha256::of(b"nothing"));
    let error = store.objects().open(&missing).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("could not open the object {}", store.objects().path(&missing).display())
    );
    assert!(!error.is_no_space());

    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let source = std::io::Write::write(&mut &full, b"x").unwrap_err();
    let error = store.objects().put_reader(&mut Failing(Some(source))).unwrap_err();
    assert!(error.is_no_space(), "{error}");
}

struct Failing(Option<std::io::Error>);

impl std::io::Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(self.0.take().expect("read once"))
    }
}

#[test]
fn a_directory_of_files_being_written_that_was_removed_is_made_again() {
    let scratch = Scratch::new();
    drop(scratch.open());
    fs::remove_dir_all(scratch.root().join("tmp")).unwrap();
    scratch.open().scratch(b"something").unwrap();
}
