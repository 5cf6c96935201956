//! A disk that is full: whatever write it hits, the bake says so, the store stays whole, and with space it goes on.

mod common;

use std::fs::File;
use std::path::Path;
use std::process::Command;

use common::{locked, scratch, try_bake, write};
use kiln_bake::export::{OciForm, Stored, to_oci, to_tar};
use kiln_model::{ExitCode, Failure};
use kiln_store::Store;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// The disk: an ext4 file system of this size in a file, seen by one thread of this test alone.
const SIZE: u64 = 24 << 20;
/// How the free space grows from one bake to the next: about the size of one file of the image.
const STEP: u64 = 12 << 10;

/// Runs `test` with a small disk mounted at `at`, in mounts of its own that end with its thread.
fn with_small_disk(at: &Path, test: impl FnOnce(&Path) + Send) {
    let disk = at.join("disk.img");
    File::create(&disk).unwrap().set_len(SIZE).unwrap();
    run("mkfs.ext4", &["-q", "-F", "-m", "0", disk.to_str().unwrap()]);
    let on = at.join("disk");
    std::fs::create_dir(&on).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: this thread alone gets its own mounts; memory and descriptors stay shared.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("root is needed");
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            run("mount", &["-o", "loop", disk.to_str().unwrap(), on.to_str().unwrap()]);
            test(&on);
        });
    });
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Takes all space but `left` bytes.
fn fill(disk: &Path, left: u64) -> std::path::PathBuf {
    let path = disk.join("ballast");
    let space = statvfs(disk).unwrap();
    let mut take = (space.f_bavail * space.f_frsize).saturating_sub(left);
    let ballast = File::create(&path).unwrap();
    // What describes the ballast needs space as well.
    while take > 0 && fallocate(&ballast, FallocateFlags::empty(), 0, take).is_err() {
        ballast.set_len(0).unwrap();
        take = take.saturating_sub(4096);
    }
    path
}

#[test]
fn a_full_disk_stops_a_bake_and_breaks_nothing() {
    let place = tempfile::tempdir().unwrap();
    let project = tempfile::tempdir().unwrap();
    let mut order = scratch(project.path());
    for n in 0..24 {
        write(project.path(), &format!("site/{n}"), &format!("page {n} ").repeat(1000));
    }
    order.files.push(common::file("site/", "/srv"));
    with_small_disk(place.path(), |disk| {
        let (mut stopped, mut done) = (0, 0);
        for step in 0..60 {
            let state = disk.join("state");
            let store = Store::open(&state).unwrap();
            let lock = locked(&order, &store);
            let ballast = fill(disk, step * STEP);
            match try_bake(&order, &lock, &store) {
                Ok(_) => done += 1,
                Err(failure) => {
                    stopped += 1;
                    assert_says_no_space(&failure);
                }
            }
            let _ = std::fs::remove_file(ballast);
            assert_eq!(store.verify().unwrap(), [], "after {} bytes", step * STEP);
            drop(store);
            let store = Store::open(&state).unwrap();
            try_bake(&order, &lock, &store).unwrap_or_else(|f| panic!("with space again: {f:?}"));
            assert_eq!(store.verify().unwrap(), []);
            std::fs::remove_dir_all(&state).unwrap();
        }
        assert!(stopped > 10 && done > 0, "{stopped} bakes were stopped, {done} had space enough");
    });
}

#[test]
fn what_is_baked_is_known_to_be_on_a_full_disk_as_well() {
    let place = tempfile::tempdir().unwrap();
    let project = tempfile::tempdir().unwrap();
    let mut order = scratch(project.path());
    write(project.path(), "site/page", &"a page ".repeat(1000));
    order.files.push(common::file("site/", "/srv"));
    with_small_disk(place.path(), |disk| {
        let state = disk.join("state");
        let store = Store::open(&state).unwrap();
        let lock = locked(&order, &store);
        let record = common::baked(&order, &lock, &store).record;
        // Nothing is remembered of what was looked for, nor can it be.
        for kind in std::fs::read_dir(state.join("cache")).unwrap() {
            std::fs::remove_dir_all(kind.unwrap().path()).unwrap();
        }
        fill(disk, 0);
        let known = kiln_bake::baked_before(&order, &lock, &store).unwrap();
        assert_eq!(known.map(|record| record.digest), Some(record.digest));
        assert_eq!(store.damage_of(&record.digest).unwrap(), []);
    });
}

#[test]
fn a_full_disk_stops_an_export_with_the_way_out() {
    let place = tempfile::tempdir().unwrap();
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut order = scratch(project.path());
    write(project.path(), "site/page", &"a page ".repeat(1000));
    order.files.push(common::file("site/", "/srv"));
    let store = Store::open(state.path()).unwrap();
    let record = common::baked(&order, &locked(&order, &store), &store).record;
    let image = Stored::of(&store, record).unwrap();
    with_small_disk(place.path(), |disk| {
        let ballast = fill(disk, 0);
        let told = common::Told::default();
        for failed in [
            to_tar(&image, &disk.join("image.tar")).map(drop),
            to_oci(&image, &disk.join("image"), OciForm::Directory, "one", "amd64", &told).map(drop),
        ] {
            let failure = Failure::from(failed.expect_err("a full disk"));
            assert_eq!(failure.code, ExitCode::Host, "{failure:?}");
            let hint = failure.hint.as_deref().unwrap_or_default();
            assert!(hint.contains("free space on that disk"), "{failure:?}");
        }
        std::fs::remove_file(ballast).unwrap();
        to_tar(&image, &disk.join("image.tar")).expect("nothing is in the way of another attempt");
    });
}

fn assert_says_no_space(failure: &Failure) {
    assert_eq!(failure.code, ExitCode::Host, "{failure:?}");
    let text = format!("{} {}", failure.message, failure.causes.join(" "));
    assert!(text.contains("no space left to") || text.contains("No space left"), "{text}");
    let hint = failure.hint.as_deref().unwrap_or_default();
    assert!(["free space", "`kiln gc`", "--root"].iter().all(|way| hint.contains(way)), "{failure:?}");
}
