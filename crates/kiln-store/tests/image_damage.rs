//! What is found of a damaged image before it is started.

#[path = "support/overwritten.rs"]
mod overwritten;
#[path = "support/sample.rs"]
mod sample;
mod support;

use std::fs;

use kiln_model::{ImageDigest, ObjectDigest};
use kiln_store::Store;
use overwritten::overwrite;
use support::Scratch;

/// An image, and one of its objects.
fn image(store: &Store) -> (ImageDigest, ObjectDigest) {
    let (image, _) = sample::with_release(store, "one");
    let object = store.image_objects(&image).unwrap().unwrap().into_iter().next().unwrap();
    (image, object)
}

/// That there is one damage to this object, of which this is said, and that the object is still there if it was.
fn assert_found(store: &Store, image: &ImageDigest, object: &ObjectDigest, says: &str) {
    let path = store.objects().path(object);
    let was_there = path.exists();
    let damage = store.damage_of(image).unwrap();
    assert_eq!(damage.iter().map(|d| &d.path).collect::<Vec<_>>(), [&path]);
    assert!(damage[0].problem.contains(says), "{damage:?}");
    assert_eq!(path.exists(), was_there);
}

#[test]
fn what_is_whole_is_found_so_also_if_somebody_has_touched_it() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let (image, object) = image(&store);
    assert_eq!(store.damage_of(&image).unwrap(), []);
    overwrite(&store, &object, |_| {});
    assert_eq!(store.damage_of(&image).unwrap(), []);
    assert!(store.has_objects_of(&image).unwrap());
}

#[test]
fn an_object_that_was_written_to_is_found_whether_it_was_looked_at_before_or_not() {
    let flipped = |bytes: &mut Vec<u8>| bytes[3] ^= 1;
    let emptied = |bytes: &mut Vec<u8>| bytes.clear();
    for looked_before in [false, true] {
        for change in [&flipped as &dyn Fn(&mut Vec<u8>), &emptied] {
            let scratch = Scratch::new();
            let store = scratch.open();
            let (image, object) = image(&store);
            if looked_before {
                assert_eq!(store.damage_of(&image).unwrap(), []);
            }
            overwrite(&store, &object, change);
            // Each time it is asked, not only the first.
            assert_found(&store, &image, &object, "its content is");
            assert_found(&store, &image, &object, "its content is");
            // A bake takes it for missing, and makes it again.
            assert!(!store.has_objects_of(&image).unwrap());
            assert_found(&store, &image, &object, "it is missing, and image");
        }
    }
}

#[test]
fn an_image_whose_own_files_are_damaged_is_found() {
    for (file, says) in [("objects", "digest"), ("metadata.erofs", "its digest is")] {
        let scratch = Scratch::new();
        let store = scratch.open();
        let (image, _) = image(&store);
        let path = store.handle(&image).unwrap().metadata.with_file_name(file);
        fs::write(&path, "something else\n").unwrap();
        let damage = store.damage_of(&image).unwrap();
        assert!(
            damage.len() == 1 && damage[0].path == path && damage[0].problem.contains(says),
            "{damage:?}"
        );
        fs::remove_file(&path).unwrap();
        let damage = store.damage_of(&image).unwrap();
        assert!(damage.len() == 1 && damage[0].problem == "it is missing", "{damage:?}");
    }
}
