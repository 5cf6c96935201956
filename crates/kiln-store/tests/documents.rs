//! Images, packages, releases, cache entries and state: kept whole, and noticed when damaged.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use kiln_model::{ImageDigest, ImageFormat, ImageRecord, Millis, ObjectDigest, Release, RunSettings, Sha256};
use kiln_store::{Keep, Store, StoreError, Verity};
use serde_json::json;
use support::Scratch;

const METADATA: &[u8] = b"stands for an EROFS file";

fn record(metadata: &[u8]) -> ImageRecord {
    let run = RunSettings::as_root(["/bin/true"]);
    ImageRecord {
        format: ImageFormat::default(),
        digest: ImageDigest(Verity::of(metadata).0),
        name: "web".parse().unwrap(),
        metadata_bytes: metadata.len() as u64,
        content_bytes: 0,
        entries: 1,
        packages: vec![],
        run,
        volatile: vec![],
        inputs: Sha256::of(b"inputs"),
        documents: BTreeMap::new(),
        left_out: vec![],
        handmade: None,
    }
}

fn release() -> Release {
    Release {
        format: Release::FORMAT,
        app: "hello".parse().unwrap(),
        services: BTreeMap::new(),
        routes: BTreeMap::new(),
        tcp: BTreeMap::new(),
        certificates: vec![],
        drain: Millis(1),
        keep_warm: Millis(2),
        schema: None,
        canary: None,
        automatic_tls: false,
        policy: Default::default(),
    }
}

fn with_image(store: &Store) -> ImageRecord {
    let record = record(METADATA);
    put_image(store, METADATA, &record, &BTreeSet::new()).unwrap();
    record
}

fn put_image(
    store: &Store,
    metadata: &[u8],
    record: &ImageRecord,
    objects: &BTreeSet<ObjectDigest>,
) -> Result<(), StoreError> {
    let batch = store.objects().batch().unwrap();
    let staged = batch.stage_image(metadata, &objects.iter().copied().collect::<Vec<_>>()).unwrap();
    batch.commit_image(staged, record)
}

/// Two images of a spec may come to the same bytes; each keeps what is recorded of how it came to be.
#[test]
fn an_image_is_found_by_each_of_the_inputs_it_was_made_from() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let first = with_image(&store);
    let document = store.objects().put_bytes(&[1; 5000]).unwrap().0;
    let mut second = first.clone();
    (second.name, second.inputs) = ("second".parse().unwrap(), Sha256::of(b"second"));
    second.documents.insert(ImageRecord::SBOM.into(), document);
    put_image(&store, METADATA, &second, &BTreeSet::new()).unwrap();
    put_image(&store, METADATA, &first, &BTreeSet::new()).unwrap();
    for record in [&first, &second] {
        assert_eq!(store.image_by_inputs(&record.inputs).unwrap().as_ref(), Some(record));
    }
    // Its own document stays with the image, and without it the record is worth nothing.
    let keep = Keep::default();
    store.sweeper().unwrap().sweep(&keep, false).unwrap();
    assert_eq!(store.image_by_inputs(&second.inputs).unwrap(), Some(second.clone()));
    fs::remove_file(store.objects().path(&document)).unwrap();
    assert_eq!(store.image_by_inputs(&second.inputs).unwrap(), None);
    assert_eq!(store.image_by_inputs(&first.inputs).unwrap(), Some(first.clone()));
    // What was written before hints were records.
    let hint = scratch.root().join("inputs").join(first.inputs.hex());
    fs::write(hint, format!("{}\n", first.digest)).unwrap();
    assert_eq!(store.image_by_inputs(&first.inputs).unwrap(), Some(first));
}

/// Whoever bakes the same bytes from something else edits nothing: the record stays with its documents, until one of them
/// is lost.
#[test]
fn the_first_record_of_an_image_stays() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let documented = |text: &[u8], name: &str| {
        let document = store.objects().put_bytes(text).unwrap().0;
        let documents = [(ImageRecord::SBOM.to_owned(), document)].into();
        let inputs = Sha256::of(name.as_bytes());
        ImageRecord { name: name.parse().unwrap(), inputs, documents, ..record(METADATA) }
    };
    let (first, second) = (documented(&[1; 5000], "first"), documented(&[2; 5000], "second"));
    let put = |record| put_image(&store, METADATA, record, &BTreeSet::new()).unwrap();
    let path = scratch.root().join("images").join(first.digest.hex()).join("record.json");
    put(&first);
    let (bytes, listed) = (fs::read(&path).unwrap(), store.image_objects(&first.digest).unwrap());
    put(&second);
    assert_eq!((fs::read(&path).unwrap(), store.image_objects(&first.digest).unwrap()), (bytes, listed));
    assert_eq!(store.image_by_inputs(&second.inputs).unwrap().as_ref(), Some(&second));
    fs::write(store.objects().path(&first.documents[ImageRecord::SBOM]), "damaged").unwrap();
    put(&second);
    assert_eq!(store.image(&first.digest).unwrap(), Some(second.clone()));
    fs::write(&path, "torn").unwrap();
    put(&second);
    assert_eq!(store.image(&first.digest).unwrap(), Some(second));
}

#[test]
fn an_image_is_found_by_digest_and_by_inputs() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let record = with_image(&store);
    assert_eq!(store.image(&record.digest).unwrap(), Some(record.clone()));
    assert_eq!(store.image_by_inputs(&record.inputs).unwrap(), Some(record.clone()));
    assert_eq!(store.images().unwrap(), [record.digest]);
    let handle = store.handle(&record.digest).unwrap();
    assert_eq!(fs::read(&handle.metadata).unwrap(), METADATA);
    assert_eq!((handle.digest, handle.objects.as_path()), (record.digest, store.objects_dir()));

    let other = ImageDigest(Sha256::of(b"other"));
    assert_eq!(store.image(&other).unwrap(), None);
    assert_eq!(store.image_by_inputs(&Sha256::of(b"other")).unwrap(), None);
    assert!(matches!(store.handle(&other).unwrap_err(), StoreError::NoSuchImage(d) if d == other));
}

#[test]
fn a_record_of_other_bytes_is_refused() {
    let scratch = Scratch::new();
    let store = scratch.open();
    assert!(put_image(&store, b"other bytes", &record(METADATA), &BTreeSet::new()).is_err());
    assert_eq!(store.images().unwrap(), []);
}

#[test]
fn damaged_metadata_is_not_handed_out_and_is_repaired_by_putting_it_again() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let record = with_image(&store);
    let path = store.handle(&record.digest).unwrap().metadata;
    fs::write(&path, b"stands for an EROFS filE").unwrap();
    let error = store.handle(&record.digest).unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { path: p, .. } if *p == path), "{error}");
    assert_eq!(store.verify().unwrap()[0].path, path);
    fs::remove_file(&path).unwrap();
    assert_eq!(store.verify().unwrap()[0].problem, "it is missing");
    with_image(&store);
    store.handle(&record.digest).unwrap();
}

#[test]
fn an_object_an_image_needs_is_missed() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let record = record(METADATA);
    let (object, _) = store.objects().put_bytes(b"needed").unwrap();
    let needed = BTreeSet::from([object]);
    put_image(&store, METADATA, &record, &needed).unwrap();
    assert_eq!(store.image_objects(&record.digest).unwrap(), Some(needed));
    assert_eq!(store.verify().unwrap(), []);
    fs::remove_file(store.objects().path(&object)).unwrap();
    assert_eq!(store.verify().unwrap()[0].path, store.objects().path(&object));
    // Another image that needs it as well is no second damage.
    let other = self::record(b"other metadata");
    put_image(&store, b"other metadata", &other, &BTreeSet::from([object])).unwrap();
    let found = store.verify().unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].problem, "it is missing, and 2 images need it");
    assert_eq!(store.who_needs(&found).unwrap()[0].images.len(), 2);
}

#[test]
fn what_is_found_out_about_an_image_is_kept_beside_it() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let image = with_image(&store).digest;
    let key = Sha256::of(b"nginx -t");
    assert_eq!(store.check_result::<bool>(&image, &key).unwrap(), None);
    store.put_check_result(&image, &key, &json!({"passed": true})).unwrap();
    assert_eq!(store.check_result::<serde_json::Value>(&image, &key).unwrap(), Some(json!({"passed": true})));
    let absent = ImageDigest(Sha256::of(b"absent"));
    assert!(matches!(store.put_check_result(&absent, &key, &1), Err(StoreError::NoSuchImage(_))));
}

#[test]
fn documents_of_an_image_are_objects_named_by_its_record() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let (sbom, _) = store.objects().put_bytes(b"{}").unwrap();
    let record = ImageRecord { documents: [(ImageRecord::SBOM.into(), sbom)].into(), ..record(METADATA) };
    put_image(&store, METADATA, &record, &BTreeSet::new()).unwrap();
    let read = |name| store.image_document(&record.digest, name);
    assert_eq!(read(ImageRecord::SBOM).unwrap().as_deref(), Some(&b"{}"[..]));
    assert_eq!(read(ImageRecord::PROVENANCE).unwrap(), None);
    fs::write(store.objects().path(&sbom), b"[]").unwrap();
    assert!(matches!(read(ImageRecord::SBOM), Err(StoreError::Damaged { .. })));
    fs::remove_file(store.objects().path(&sbom)).unwrap();
    assert!(matches!(read(ImageRecord::SBOM), Err(StoreError::Damaged { .. })));
}

#[test]
fn an_image_of_a_newer_format_is_not_handed_out() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let format = ImageFormat { version: 2, ..ImageFormat::default() };
    let record = ImageRecord { format, ..record(METADATA) };
    put_image(&store, METADATA, &record, &BTreeSet::new()).unwrap();
    let error = store.handle(&record.digest).unwrap_err().to_string();
    assert!(error.contains("has format 2, and this Kiln reads up to 1: run a newer Kiln"), "{error}");
}

#[test]
fn an_image_exists_only_once_it_has_its_record() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let record = with_image(&store);
    let metadata = store.handle(&record.digest).unwrap().metadata;
    fs::remove_file(metadata.with_file_name("record.json")).unwrap();
    assert_eq!((store.images().unwrap(), store.image(&record.digest).unwrap()), (vec![], None));
    with_image(&store);
    assert_eq!(store.images().unwrap(), [record.digest]);
}

#[test]
fn a_package_must_have_its_hash() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let hash = Sha256::of(b"a package");
    assert_eq!(store.package(&hash).unwrap(), None);
    let error = store.put_package(&hash, &mut &b"another"[..]).unwrap_err();
    assert!(matches!(error, StoreError::WrongHash { expected, .. } if expected == hash), "{error}");
    assert_eq!(store.package(&hash).unwrap(), None);

    let path = store.put_package(&hash, &mut &b"a package"[..]).unwrap();
    assert_eq!(store.package(&hash).unwrap(), Some(path.clone()));
    fs::write(&path, b"a packagE").unwrap();
    assert_eq!(store.package(&hash).unwrap(), None, "a damaged one is as good as none");
    assert_eq!(store.verify().unwrap()[0].path, path);
}

#[test]
fn a_release_still_has_its_id() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let id = store.put_release(&release()).unwrap();
    assert_eq!(store.release(&id).unwrap(), release());
    assert_eq!(store.releases().unwrap(), std::slice::from_ref(&id));
    let path = scratch.root().join(format!("releases/{id}.json"));
    fs::write(&path, Release { drain: Millis(9), ..release() }.encode()).unwrap();
    assert!(matches!(store.release(&id).unwrap_err(), StoreError::Damaged { .. }));
    assert_eq!(store.verify().unwrap()[0].path, path);
    fs::remove_file(&path).unwrap();
    assert!(matches!(store.release(&id).unwrap_err(), StoreError::NoSuchRelease(_)));
}

#[test]
fn a_torn_cache_entry_is_absent() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let (key, other) = (Sha256::of(b"key"), Sha256::of(b"other"));
    assert_eq!(store.cache_get("index", &key), None);
    store.cache_put("index", &key, b"entry").unwrap();
    assert_eq!(store.cache_get("index", &key).as_deref(), Some(&b"entry"[..]));
    assert_eq!(store.cache_get("other", &key), None);

    let dir = scratch.root().join("cache/index");
    let whole = fs::read(dir.join(key.hex())).unwrap();
    fs::write(dir.join(other.hex()), &whole).unwrap();
    assert_eq!(store.cache_get("index", &other), None, "an entry of another key");
    for length in 0..whole.len() {
        fs::write(dir.join(key.hex()), &whole[..length]).unwrap();
        assert_eq!(store.cache_get("index", &key), None, "cut at {length}");
    }
    fs::remove_dir_all(scratch.root().join("cache/index")).unwrap();
    store.cache_put("index", &key, b"again").unwrap();
}

#[test]
fn state_is_replaced_and_removed() {
    let scratch = Scratch::new();
    let store = scratch.open();
    assert_eq!(store.state::<u32>("generation").unwrap(), None);
    store.put_state("generation", &1).unwrap();
    store.put_state("generation", &2).unwrap();
    assert_eq!(store.state::<u32>("generation").unwrap(), Some(2));
    store.remove_state("generation").unwrap();
    store.remove_state("generation").unwrap();
    assert_eq!(store.state::<u32>("generation").unwrap(), None);
    fs::write(scratch.root().join("state/generation.json"), "{").unwrap();
    assert!(matches!(store.state::<u32>("generation"), Err(StoreError::Damaged { .. })));
    assert!(matches!(store.put_state("../version", &1), Err(StoreError::BadName(_))));
}
