//! A release with an image, small and made of nothing.

use std::collections::BTreeSet;

use kiln_model::{ImageDigest, ImageRecord, Release, RunSettings, Sha256};
use kiln_store::{Store, Verity};

/// An image of two objects, one of them every image's; and a release made from it. What stands for its tree names them
/// (`any_bytes::named_in`).
pub(crate) fn with_release(store: &Store, name: &str) -> (ImageDigest, Release) {
    let own = store.objects().put_bytes(format!("content of {name}").as_bytes()).unwrap().0;
    let shared = store.objects().put_bytes(b"shared by all").unwrap().0;
    let metadata = format!("metadata of {name}\n{own}\n{shared}\n").into_bytes();
    let run = RunSettings { stop_grace: kiln_model::Millis(1), ..RunSettings::as_root(["/bin/app"]) };
    let document = store.objects().put_bytes(format!("sbom of {name}").as_bytes()).unwrap().0;
    let record = ImageRecord {
        format: Default::default(),
        digest: ImageDigest(Verity::of(&metadata).0),
        name: "web".parse().unwrap(),
        metadata_bytes: 1,
        content_bytes: 1,
        entries: 1,
        packages: vec![],
        run,
        volatile: vec![],
        inputs: Sha256::of(name.as_bytes()),
        documents: [("notes".to_owned(), document)].into(),
        left_out: vec![],
        handmade: None,
    };
    let in_tree: Vec<_> = BTreeSet::from([own, shared]).into_iter().collect();
    let batch = store.objects().batch().unwrap();
    let staged = batch.stage_image(&metadata, &in_tree).unwrap();
    batch.commit_image(staged, &record).unwrap();
    let text = include_str!("../../../kiln-model/tests/fixtures/release-2.json");
    let mut release = Release::decode(text.trim_end().as_bytes()).unwrap();
    release.services.values_mut().next().unwrap().image = record.digest;
    release.services.values_mut().for_each(|service| service.secrets = Default::default());
    store.put_release(&release).unwrap();
    (record.digest, release)
}
