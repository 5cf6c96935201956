//! What is remembered of where objects are may be lost, torn or old: it never stands for one that is not there.

#[path = "support/sample.rs"]
mod sample;
mod support;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use kiln_model::{ObjectDigest, Sha256};
use kiln_store::{Look, Store, Wanted};
use support::Scratch;

/// More than a glance looks at.
const OBJECTS: usize = 1400;

fn put(store: &Store, contents: impl Iterator<Item = String>) -> Vec<ObjectDigest> {
    let batch = store.objects().batch().unwrap();
    let all = contents.map(|content| batch.put_bytes(content.as_bytes()).unwrap().0).collect();
    batch.commit().unwrap();
    all
}

/// The two files in which it is remembered under `key`.
fn files(store: &Store, key: &Sha256) -> [PathBuf; 2] {
    let kinds = fs::read_dir(store.root().join("cache")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = kinds.map(|kind| kind.join(key.hex())).filter(|f| f.is_file()).collect();
    files.sort();
    files.try_into().unwrap()
}

/// What a crash may have left of a file that was not flushed.
fn leftovers(older: &[u8], newer: &[u8]) -> Vec<Option<Vec<u8>>> {
    let half = (newer.len() - 32) / 80 * 40 + 32;
    let mut zeroed = newer.to_vec();
    zeroed[half..].fill(0);
    let mixed = [&newer[..half], &older[half..]].concat();
    // Cut where an entry of either file ends: nothing about its length shows that there were more.
    let cut = |end: usize| newer[..end].to_vec();
    let bytes = [Vec::new(), cut(32), cut(half), zeroed, vec![0; newer.len()], mixed];
    let whole = [older.to_vec(), newer.to_vec()];
    [None].into_iter().chain(bytes.into_iter().chain(whole).map(Some)).collect()
}

#[test]
fn whatever_a_crash_leaves_of_what_is_remembered_no_missing_object_counts_as_there() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let all = put(&store, (0..OBJECTS).map(|n| format!("object {n}")));
    let key = Sha256::of(b"the list");
    let has_all = || {
        let list = || Ok(all.iter().map(|digest| (*digest, None)).collect::<Vec<Wanted>>());
        scratch.open().has_all(&key, Look::Glance, None, list).unwrap()
    };
    assert!(has_all());
    let older = files(&store, &key).map(|file| fs::read(file).unwrap());
    // Others came, and each of them is the file of another day: both caches change.
    put(&store, (0..300).map(|n| format!("another {n}")));
    for digest in &all {
        let file = fs::File::options().write(true).open(store.objects().path(digest)).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000)).unwrap();
    }
    // A glance sees a part of them each time.
    fs::remove_file(&files(&store, &key)[1]).unwrap();
    assert!(has_all());
    let names = files(&store, &key);
    let newer = names.clone().map(|file| fs::read(file).unwrap());
    assert!(older[0] != newer[0] && older[1] != newer[1]);

    let (firsts, seconds) = (leftovers(&older[0], &newer[0]), leftovers(&older[1], &newer[1]));
    let pairs: Vec<_> = firsts.iter().flat_map(|a| seconds.iter().map(move |b| [a, b])).collect();
    let leave = |pair: &[&Option<Vec<u8>>; 2]| {
        for (file, bytes) in names.iter().zip(pair) {
            match bytes {
                Some(bytes) => fs::write(file, bytes).unwrap(),
                None => drop(fs::remove_file(file)),
            }
        }
    };
    let gone = store.objects().path(&all[OBJECTS - 1]);
    let content = fs::read(&gone).unwrap();
    fs::remove_file(&gone).unwrap();
    for (n, pair) in pairs.iter().enumerate() {
        leave(pair);
        assert!(!has_all(), "a missing object was believed in, pair {n}");
    }
    store.objects().put_bytes(&content).unwrap();
    for (n, pair) in pairs.iter().enumerate() {
        leave(pair);
        assert!(has_all(), "all are there, and yet one was missed, pair {n}");
    }
}

/// An image baked again may need other documents than before, under the same digest.
#[test]
fn what_is_remembered_of_another_list_is_not_believed() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let (image, _) = sample::with_release(&store, "one");
    assert!(store.has_objects_of(&image).unwrap());
    let document = store.objects().put_bytes(b"the sbom of a later version").unwrap().0;
    let mut record = store.image(&image).unwrap().unwrap();
    record.documents.insert("notes".into(), document);
    let in_tree: Vec<_> = store.image_objects(&image).unwrap().unwrap().into_iter().collect();
    let directory = store.root().join("images").join(image.0.hex());
    let metadata = fs::read(directory.join("metadata.erofs")).unwrap();
    let batch = store.objects().batch().unwrap();
    let staged = batch.stage_image(&metadata, &in_tree).unwrap();
    batch.commit_image(staged, &record).unwrap();
    // In the same tick of the clock nobody bakes twice.
    let list = fs::File::options().write(true).open(directory.join("objects")).unwrap();
    list.set_modified(list.metadata().unwrap().modified().unwrap() + Duration::from_secs(1)).unwrap();
    fs::remove_file(store.objects().path(&document)).unwrap();
    assert!(!store.has_objects_of(&image).unwrap(), "the list that was looked at did not have it");
}
