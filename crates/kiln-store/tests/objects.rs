//! Objects: named by content, shared, repaired, and committed together.

#[path = "support/overwritten.rs"]
mod overwritten;
mod support;

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use kiln_model::ObjectDigest;
use kiln_store::{Look, Store, Verity, Wanted};
use overwritten::overwrite;
use support::Scratch;

/// Bytes that repeat nowhere near a block.
fn content(seed: usize, size: usize) -> Vec<u8> {
    (0..size).map(|i| (i * 31 + i / 251 + seed) as u8).collect()
}

fn read(store: &Store, bytes: &[u8]) -> Vec<u8> {
    let mut found = Vec::new();
    store.objects().open(&Verity::of(bytes)).unwrap().read_to_end(&mut found).unwrap();
    found
}

#[test]
fn what_is_put_is_found_under_its_digest() {
    let scratch = Scratch::new();
    let store = scratch.open();
    for size in [0, 1, 4096, 300_000] {
        let bytes = content(size, size);
        let (digest, length) = store.objects().put_bytes(&bytes).unwrap();
        assert_eq!((digest, length), (Verity::of(&bytes), size as u64));
        assert_eq!(read(&store, &bytes), bytes);
        assert_eq!(store.objects().put_reader(&mut &bytes[..]).unwrap(), (digest, length));
        let meta = fs::metadata(store.objects().path(&digest)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o7777, 0o644);
    }
}

#[test]
fn an_intact_object_stays_the_file_it_is() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let bytes = content(1, 200_000);
    let (digest, _) = store.objects().put_bytes(&bytes).unwrap();
    let inode = || fs::metadata(store.objects().path(&digest)).unwrap().ino();
    let before = inode();
    store.objects().put_bytes(&bytes).unwrap();
    store.objects().put_reader(&mut &bytes[..]).unwrap();
    let batch = store.objects().batch().unwrap();
    batch.put_bytes(&bytes).unwrap();
    batch.put_reader(&mut &bytes[..]).unwrap();
    assert_eq!(batch.commit().unwrap(), 0);
    assert_eq!(inode(), before);
}

#[test]
fn a_damaged_object_is_made_again() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let bytes = content(2, 150_000);
    let mut flipped = bytes.clone();
    flipped[140_000] ^= 1;
    let longer = [&bytes[..], b"x"].concat();
    for damage in [&bytes[..100], &flipped, &longer, b""] {
        let (digest, _) = store.objects().put_bytes(&bytes).unwrap();
        let path = store.objects().path(&digest);
        let put: [&dyn Fn(); 4] = [
            &|| assert_eq!(store.objects().put_bytes(&bytes).unwrap().0, digest),
            &|| assert_eq!(store.objects().put_reader(&mut &bytes[..]).unwrap().0, digest),
            &|| {
                let batch = store.objects().batch().unwrap();
                batch.put_bytes(&bytes).unwrap();
                assert_eq!(batch.commit().unwrap(), 1);
            },
            &|| {
                let batch = store.objects().batch().unwrap();
                batch.put_reader(&mut &bytes[..]).unwrap();
                assert_eq!(batch.commit().unwrap(), 1);
            },
        ];
        for put_again in put {
            fs::write(&path, damage).unwrap();
            assert_eq!(store.verify().unwrap().len(), 1);
            put_again();
            assert_eq!(read(&store, &bytes), bytes);
            assert_eq!(store.verify().unwrap(), []);
        }
    }
}

#[test]
fn threads_share_a_batch() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let batch = store.objects().batch().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for n in 0..100 {
                    batch.put_bytes(&content(n, n * 50)).unwrap();
                }
            });
        }
    });
    assert!(
        !store.objects().contains(&Verity::of(&content(3, 150)), 150).unwrap(),
        "nothing before the commit"
    );
    assert_eq!(batch.commit().unwrap(), 100);
    (0..100).for_each(|n| assert_eq!(read(&store, &content(n, n * 50)), content(n, n * 50)));
    assert_eq!(store.verify().unwrap(), []);
}

#[test]
fn a_reader_that_fails_leaves_nothing() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let bytes = content(4, 300_000);
    let mut failing = (&bytes[..]).chain(Failing);
    assert!(store.objects().put_reader(&mut failing).is_err());
    assert_eq!(fs::read_dir(store.objects_dir()).unwrap().count(), 0);
    let temporary = store.root().join(format!("tmp/{}-0", std::process::id()));
    assert!(fs::read_dir(temporary).map_or(0, Iterator::count) == 0);
}

struct Failing;

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::UnexpectedEof.into())
    }
}

/// Fifty objects, the n-th of `content(n, 100 + n)`.
fn fifty(store: &Store) -> Vec<(ObjectDigest, u64)> {
    (0..50).map(|n| store.objects().put_bytes(&content(n, 100 + n)).unwrap()).collect()
}

/// As [`Store::has_all`] is asked for them.
fn wanted(all: &[(ObjectDigest, u64)]) -> Vec<Wanted> {
    all.iter().map(|(digest, size)| (*digest, Some(*size))).collect()
}

#[test]
fn an_object_overwritten_where_it_lies_is_missed_although_others_came_meanwhile() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let all = fifty(&store);
    let (key, list) = (kiln_model::Sha256::of(b"the list"), || Ok(wanted(&all)));
    assert!(store.has_all(&key, Look::Glance, None, list).unwrap());
    let damaged = all[7].0;
    overwrite(&store, &damaged, |bytes| bytes[3] ^= 1);
    // What a bake adds, in another directory than the damaged one's.
    let elsewhere = (0..).map(|n| content(n, 5000)).find(|new| Verity::of(new).0.0[0] != damaged.0.0[0]);
    store.objects().put_bytes(&elsewhere.unwrap()).unwrap();
    assert!(!store.has_all(&key, Look::Glance, None, list).unwrap(), "it was not looked at");
    assert!(!store.objects().path(&damaged).exists(), "it is gone, and made again by whoever needs it");
    store.objects().put_bytes(&content(7, 107)).unwrap();
    assert!(store.has_all(&key, Look::Glance, None, list).unwrap());
}

#[test]
fn of_objects_that_were_written_to_those_that_are_whole_stay() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let all = fifty(&store);
    let (key, list) = (kiln_model::Sha256::of(b"the list"), || Ok(wanted(&all)));
    assert!(store.has_all(&key, Look::Glance, None, list).unwrap());
    let unasked = || panic!("no directory has changed");
    // In the order of the list: one that is whole before the damaged one, and one behind it.
    for whole in [3, 30] {
        overwrite(&store, &all[whole].0, |_| {});
    }
    overwrite(&store, &all[20].0, |bytes| bytes[3] ^= 1);
    assert!(!store.has_all(&key, Look::Glance, None, unasked).unwrap());
    let there = |n: usize| store.objects().path(&all[n].0).exists();
    assert_eq!([3, 20, 30].map(there), [true, false, true]);
    store.objects().put_bytes(&content(20, 120)).unwrap();
    assert!(store.has_all(&key, Look::Glance, None, list).unwrap());
    // All of them whole: that is remembered, and not read again.
    overwrite(&store, &all[3].0, |_| {});
    assert!(store.has_all(&key, Look::Glance, None, unasked).unwrap());
    assert_eq!(store.verify().unwrap(), []);
}

#[test]
fn an_object_that_goes_is_missed_although_all_were_there_before() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let batch = store.objects().batch().unwrap();
    let all: Vec<_> = (0..700).map(|n| batch.put_bytes(&content(n, 100 + n)).unwrap()).collect();
    batch.commit().unwrap();
    let key = kiln_model::Sha256::of(b"the list");
    let list = || Ok(wanted(&all));
    assert!(store.has_all(&key, Look::Glance, None, list).unwrap());
    // Found again without looking at the list.
    assert!(store.has_all(&key, Look::Glance, None, || panic!("nothing has changed")).unwrap());
    let gone = store.objects().path(&all[350].0);
    let bytes = fs::read(&gone).unwrap();
    fs::remove_file(&gone).unwrap();
    assert!(!store.has_all(&key, Look::Glance, None, list).unwrap());
    assert!(!store.has_all(&key, Look::Glance, None, list).unwrap());
    store.objects().put_bytes(&bytes).unwrap();
    assert!(store.has_all(&key, Look::Glance, None, list).unwrap());
    // Nor is it an error when nothing shows it but the object itself.
    let dir = fs::File::open(gone.parent().unwrap()).unwrap();
    let modified = dir.metadata().unwrap().modified().unwrap();
    fs::remove_file(&gone).unwrap();
    dir.set_modified(modified).unwrap();
    assert!(!store.has_all(&key, Look::Glance, None, || panic!("no directory has changed")).unwrap());
    store.objects().put_bytes(&bytes).unwrap();
    // One of another size is not the one.
    let wrong = || Ok(vec![(all[0].0, Some(1))]);
    assert!(!store.has_all(&kiln_model::Sha256::of(b"another list"), Look::Glance, None, wrong).unwrap());
}
