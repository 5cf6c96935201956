//! What a sweep takes, and what it leaves.

#[path = "support/sample.rs"]
mod sample;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use kiln_model::{ImageDigest, ImageRecord, ReleaseId, Sha256};
use kiln_store::{GRACE, Keep, Store, StoreError};
use support::Scratch;

fn age(path: &Path) {
    let old = SystemTime::now() - 2 * GRACE;
    fs::File::open(path).unwrap().set_modified(old).unwrap();
}

/// The same, made long ago.
fn with_release(store: &Store, name: &str) -> (ImageDigest, ReleaseId) {
    let (image, release) = sample::with_release(store, name);
    let dir = store.root().join("images").join(image.hex());
    age(&dir.join("record.json"));
    age(&dir);
    (image, release.id())
}

fn objects(store: &Store) -> usize {
    let prefixes = fs::read_dir(store.objects_dir()).unwrap().map(|e| e.unwrap().path());
    prefixes.map(|p| fs::read_dir(p).unwrap().count()).sum()
}

#[test]
fn what_no_kept_release_leads_to_is_swept_and_the_rest_is_whole() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let ((old, old_release), (new, new_release)) = (with_release(&store, "old"), with_release(&store, "new"));
    assert_eq!(objects(&store), 5);
    let keep = Keep { releases: BTreeSet::from([new_release.clone()]), ..Keep::default() };
    let sweeper = store.sweeper().unwrap();
    let dry = sweeper.sweep(&keep, true).unwrap();
    assert_eq!((dry.releases.len(), objects(&store), store.images().unwrap().len()), (1, 5, 2));
    let swept = sweeper.sweep(&keep, false).unwrap();
    assert_eq!(swept, dry, "a dry run tells the truth");
    assert_eq!(swept.amounts["object"].count, 2);
    assert_eq!(swept.amounts["image"].count, 1);
    assert_eq!(store.images().unwrap(), [new]);
    assert!(matches!(store.release(&old_release), Err(StoreError::NoSuchRelease(_))));
    assert!(matches!(store.handle(&old), Err(StoreError::NoSuchImage(_))));
    assert_eq!(store.verify().unwrap(), []);
    assert!(store.release(&new_release).is_ok() && store.has_objects_of(&new).unwrap());
    assert_eq!(sweeper.sweep(&keep, false).unwrap().amounts, Default::default(), "nothing is left to sweep");
}

/// Which packages it was made from is not known any more, so all stay.
#[test]
fn an_image_whose_record_is_damaged_stays_with_its_objects_and_is_named() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let ((gone, _), (kept, release)) = (with_release(&store, "gone"), with_release(&store, "kept"));
    let package = store.put_package(&Sha256::of(b"a package"), &mut &b"a package"[..]).unwrap();
    age(&package);
    let hint = store.root().join("inputs").join(store.image(&kept).unwrap().unwrap().inputs.hex());
    for image in [gone, kept] {
        let record = store.root().join("images").join(image.hex()).join("record.json");
        let text = fs::read(&record).unwrap();
        fs::write(&record, &text[..text.len() / 2]).unwrap();
        age(&record);
    }
    age(&hint);
    let objects_needed = store.image_objects(&kept).unwrap().unwrap();
    let keep = Keep { releases: BTreeSet::from([release]), ..Keep::default() };
    let swept = store.sweeper().unwrap().sweep(&keep, false).unwrap();
    assert_eq!(swept.damaged.keys().collect::<Vec<_>>(), [&kept]);
    assert!(swept.damaged[&kept].contains("record.json is damaged"), "{swept:?}");
    assert_eq!(swept.images, [(gone, None)].into());
    assert_eq!(store.images().unwrap(), [kept]);
    assert!(objects_needed.iter().all(|object| store.objects().path(object).is_file()));
    assert!(package.is_file() && hint.is_file());
}

/// A host may run for years without opening its store again.
#[test]
fn what_a_dead_process_was_writing_is_swept() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let writing = store.scratch(b"being written").unwrap();
    let dead = scratch.root().join("tmp/4194304-0");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("7"), "torn").unwrap();
    let sweeper = store.sweeper().unwrap();
    sweeper.sweep(&Keep::default(), true).unwrap();
    assert!(dead.exists());
    sweeper.sweep(&Keep::default(), false).unwrap();
    assert!(!dead.exists() && writing.path().exists());
}

/// The blobs here, drafts as well.
fn blobs(store: &Store) -> BTreeSet<String> {
    fs::read_dir(store.root().join("blobs"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn blobs_stay_as_long_as_an_image_that_started_from_them() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let (image, release) = with_release(&store, "from an OCI image");
    let put = |bytes: &[u8]| store.put_blob(bytes).unwrap();
    let (layer, config, stray) = (put(b"layer"), put(b"{}"), put(b"of nobody"));
    let named = |hash: &Sha256| format!("{{\"digest\":\"sha256:{hash}\"}}");
    let manifest =
        put(format!("{{\"config\":{},\"layers\":[{}]}}", named(&config), named(&layer)).as_bytes());
    fs::write(store.root().join("blobs").join(format!("{stray}.draft")), b"half").unwrap();
    // Its provenance names the manifest, as the bake writes it.
    let provenance = format!("{{\"resolvedDependencies\":[{{\"digest\":{{\"sha256\":\"{manifest}\"}}}}]}}");
    let document = store.objects().put_bytes(provenance.as_bytes()).unwrap().0;
    let mut record = store.image(&image).unwrap().unwrap();
    record.documents.insert(ImageRecord::PROVENANCE.into(), document);
    let metadata = fs::read(store.handle(&image).unwrap().metadata).unwrap();
    let mut needed = store.image_objects(&image).unwrap().unwrap();
    needed.retain(|object| record.documents.values().all(|document| document != object));
    let needed: Vec<_> = needed.into_iter().collect();
    let batch = store.objects().batch().unwrap();
    let staged = batch.stage_image(&metadata, &needed).unwrap();
    batch.commit_image(staged, &record).unwrap();
    let keep = Keep { releases: BTreeSet::from([release]), ..Keep::default() };
    let sweep = |keep: &Keep| store.sweeper().unwrap().sweep(keep, false).unwrap();

    assert!(!sweep(&keep).amounts.contains_key("blob"), "young ones are left alone");
    let all = blobs(&store);
    all.iter().for_each(|name| age(&store.root().join("blobs").join(name)));
    let size = store.size().unwrap();
    let swept = sweep(&keep).amounts;
    assert_eq!((swept["blob"].count, swept.len()), (2, 1));
    assert_eq!(store.size().unwrap(), size - swept["blob"].bytes, "what is swept was counted before");
    assert_eq!(blobs(&store), [layer, config, manifest].map(|hash| hash.to_string()).into());
    age(&store.root().join("images").join(image.hex()).join("record.json"));
    age(&store.root().join("images").join(image.hex()));
    assert_eq!(sweep(&Keep::default()).amounts["blob"].count, 3);
    assert_eq!((blobs(&store), store.verify().unwrap()), (BTreeSet::new(), vec![]));
}

#[test]
fn an_image_that_was_just_baked_is_left_alone() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let (image, _) = with_release(&store, "new");
    let record = store.root().join("images").join(image.hex()).join("record.json");
    fs::File::open(&record).unwrap().set_modified(SystemTime::now()).unwrap();
    let sweeper = store.sweeper().unwrap();
    sweeper.sweep(&Keep::default(), false).unwrap();
    assert_eq!((store.images().unwrap(), objects(&store)), (vec![image], 3));
    // Unless it is said otherwise; and it is said which it is.
    let dir = store.root().join("images").join(image.hex());
    let ages = |span| {
        let then = SystemTime::now() - span;
        for path in [dir.join("record.json"), dir.clone()] {
            fs::File::open(path).unwrap().set_modified(then).unwrap();
        }
    };
    ages(2 * GRACE);
    let long = Keep { grace: 3 * GRACE, ..Keep::default() };
    assert_eq!(sweeper.sweep(&long, false).unwrap().images, Default::default());
    ages(GRACE / 2);
    let short = Keep { grace: GRACE / 3, ..Keep::default() };
    let swept = sweeper.sweep(&short, false).unwrap();
    assert_eq!(swept.images, [(image, Some("web".parse().unwrap()))].into());
    assert_eq!((store.images().unwrap(), objects(&store)), (vec![], 0));
}

/// Else the youngest releases would go first of all in vain: without them their images took as much room as before.
#[test]
fn an_image_goes_with_its_release_however_young() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let ((old, release), (new, _)) =
        (sample::with_release(&store, "old"), sample::with_release(&store, "new"));
    let keep = Keep { served: BTreeSet::from([old]), ..Keep::default() };
    let sweeper = store.sweeper().unwrap();
    let dry = sweeper.sweep(&keep, true).unwrap();
    let swept = sweeper.sweep(&keep, false).unwrap();
    assert_eq!(swept, dry, "a dry run tells the truth");
    assert_eq!(swept.images.into_keys().collect::<Vec<_>>(), [old]);
    assert_eq!((store.images().unwrap(), objects(&store)), (vec![new], 3));

    // What another release needs stays, young or not.
    let (image, kept) = sample::with_release(&store, "old");
    assert_eq!((image, kept.id()), (old, release.id()));
    let keep = Keep { releases: BTreeSet::from([kept.id()]), ..keep };
    assert_eq!(sweeper.sweep(&keep, false).unwrap().images, Default::default());
}

#[test]
fn a_handmade_image_stays_as_long_as_it_has_its_name() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let ((old, _), (new, _)) = (with_release(&store, "old"), with_release(&store, "new"));
    let name: kiln_model::ImageName = "fixed".parse().unwrap();
    store.name_handmade(&name, &old).unwrap();
    let sweep = || store.sweeper().unwrap().sweep(&Keep::default(), false).unwrap();
    sweep();
    assert_eq!((store.images().unwrap(), objects(&store)), (vec![old], 3));
    assert_eq!(store.verify().unwrap(), []);
    // Another has the name now.
    with_release(&store, "new");
    store.name_handmade(&name, &new).unwrap();
    sweep();
    assert_eq!((store.images().unwrap(), objects(&store)), (vec![new], 3));
}

/// What leads nowhere any more would only pile up.
#[test]
fn what_found_an_image_by_its_inputs_goes_after_it() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let ((_, _), (_, new_release)) = (with_release(&store, "old"), with_release(&store, "new"));
    let hint = |name: &str| store.root().join("inputs").join(Sha256::of(name.as_bytes()).hex());
    let keep = Keep { releases: BTreeSet::from([new_release]), ..Keep::default() };
    let sweep = |dry_run| store.sweeper().unwrap().sweep(&keep, dry_run).unwrap();
    fs::write(hint("nothing"), "torn").unwrap();
    let are_there = || ["old", "new", "nothing"].map(|name| hint(name).exists());
    ["new", "nothing"].iter().for_each(|name| age(&hint(name)));
    sweep(true);
    assert_eq!(are_there(), [true, true, true]);
    sweep(false);
    assert_eq!(are_there(), [true, true, false], "a young one may be somebody's who bakes");
    age(&hint("old"));
    sweep(false);
    assert_eq!(are_there(), [false, true, false]);
}

#[test]
fn nothing_is_swept_while_somebody_bakes() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let baking = store.while_in_use().unwrap();
    let another = store.while_in_use().unwrap();
    assert!(matches!(store.sweeper(), Err(StoreError::InUse)));
    drop((baking, another));
    assert!(store.sweeper().is_ok());
}

/// Broken off after any removal, a sweep has left nothing that a kept release lacks, and the next one ends it.
#[test]
fn a_sweep_that_cannot_tell_what_is_needed_removes_nothing() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let ((_, _), (new, new_release)) = (with_release(&store, "old"), with_release(&store, "new"));
    fs::remove_file(store.root().join("images").join(new.hex()).join("objects")).unwrap();
    let keep = Keep { releases: BTreeSet::from([new_release]), ..Keep::default() };
    let refused = store.sweeper().unwrap().sweep(&keep, false).unwrap_err();
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
    assert_eq!((objects(&store), store.images().unwrap().len(), store.releases().unwrap().len()), (5, 2, 2));
}

/// The same bytes may have been made from packages and from something else.
#[test]
fn packages_stay_for_everybody_who_made_an_image_of_them() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let (image, release) = with_release(&store, "made of packages");
    let metadata = fs::read(store.handle(&image).unwrap().metadata).unwrap();
    let listed = store.image_objects(&image).unwrap().unwrap();
    let sample = store.image(&image).unwrap().unwrap();
    let in_tree: Vec<_> =
        listed.into_iter().filter(|o| sample.documents.values().all(|document| document != o)).collect();
    let package = |text: &[u8]| {
        let hash = Sha256::of(text);
        (hash, store.put_package(&hash, &mut &text[..]).unwrap())
    };
    let packages = [package(b"of the first"), package(b"of the second")];
    let stray = package(b"of nobody").1;
    // The first takes the place of the sample, which is of the same inputs.
    for (inputs, (hash, _)) in [sample.inputs, Sha256::of(b"others")].into_iter().zip(&packages) {
        let document = store.objects().put_bytes(format!("{{\"sha256\":\"{hash}\"}}").as_bytes()).unwrap().0;
        let documents = [(ImageRecord::SBOM.to_owned(), document)].into();
        let batch = store.objects().batch().unwrap();
        let staged = batch.stage_image(&metadata, &in_tree).unwrap();
        batch.commit_image(staged, &ImageRecord { inputs, documents, ..sample.clone() }).unwrap();
    }
    let export = || {
        let mut file = Vec::new();
        store.export_release(&release, b"", &[], &mut file, Path::new("file")).map(|_| file)
    };
    let (file, whose) = (export().unwrap(), |hash: &Sha256| format!("packages/{hash}.deb").into_bytes());
    for (hash, path) in &packages {
        let name = whose(hash);
        assert!(file.windows(name.len()).any(|bytes| bytes == name), "{hash} is in an export as well");
        let whole = fs::read(path).unwrap();
        fs::write(path, b"of somebody else").unwrap();
        let refused = export().unwrap_err();
        assert!(matches!(&refused, StoreError::Damaged { path: named, .. } if named == path), "{refused:?}");
        fs::write(path, whole).unwrap();
    }
    let keep =
        Keep { releases: BTreeSet::from([release]), grace: std::time::Duration::ZERO, ..Keep::default() };
    store.sweeper().unwrap().sweep(&keep, false).unwrap();
    assert_eq!(packages.map(|(_, path)| path.is_file()), [true, true]);
    assert!(!stray.exists());
    assert_eq!(store.verify().unwrap(), []);
}
