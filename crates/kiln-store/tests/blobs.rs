//! Blobs: whole or not at all, and taken up where they were left.

mod support;

use kiln_model::Sha256;
use kiln_store::StoreError;
use support::Scratch;

#[test]
fn a_draft_is_taken_up_where_it_was_left() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let hash = Sha256::of(b"first second");
    let mut draft = store.blob_draft(&hash).unwrap();
    draft.write(b"first ").unwrap();
    drop(draft);
    assert_eq!(store.blob(&hash).unwrap(), None);
    let mut draft = store.blob_draft(&hash).unwrap();
    assert_eq!(draft.length(), 6);
    draft.write_all(&mut &b"second"[..]).unwrap();
    let place = draft.finish().unwrap();
    assert_eq!(store.blob(&hash).unwrap(), Some(place.clone()));
    // A damaged one is no blob.
    std::fs::write(&place, b"first secone").unwrap();
    assert_eq!(store.blob(&hash).unwrap(), None);
    assert_eq!(store.put_blob(b"first second").unwrap(), hash);
    assert_eq!(store.blob(&hash).unwrap(), Some(place));
}

#[test]
fn two_at_once_do_not_mix() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let hash = Sha256::of(b"ab");
    let mut one = store.blob_draft(&hash).unwrap();
    one.write(b"a").unwrap();
    let mut other = store.blob_draft(&hash).unwrap();
    assert_eq!(other.length(), 0);
    other.write(b"ab").unwrap();
    other.finish().unwrap();
    one.write(b"b").unwrap();
    one.finish().unwrap();
    assert!(store.blob(&hash).unwrap().is_some());
}

#[test]
fn a_wrong_one_leaves_nothing() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let hash = Sha256::of(b"right");
    let mut draft = store.blob_draft(&hash).unwrap();
    draft.write(b"wrong").unwrap();
    assert!(matches!(draft.finish(), Err(StoreError::WrongHash { what: "blob", .. })));
    assert_eq!(store.blob_draft(&hash).unwrap().length(), 0);
    let mut draft = store.blob_draft(&hash).unwrap();
    draft.write(b"wrong").unwrap();
    draft.restart().unwrap();
    draft.write(b"right").unwrap();
    draft.finish().unwrap();
}
