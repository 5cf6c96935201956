//! `kiln image list`

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use kiln_control::refused_by_store;
use kiln_model::{Failure, ImageDigest, ImageName, ImageRecord};
use serde_json::json;

use crate::context::Context;
use crate::table::table;
use crate::words;

/// The images of the store
#[derive(Debug, Args)]
pub(crate) struct List {}

pub(crate) fn run(_: &List, context: &Context) -> Result<(), Failure> {
    let store = context.store()?;
    let failed = |e: kiln_store::StoreError| refused_by_store(&e);
    let mut images = Vec::new();
    for digest in store.images().map_err(failed)? {
        images.extend(store.image(&digest).map_err(failed)?);
    }
    images.sort_by(|a, b| (&a.name, a.digest).cmp(&(&b.name, b.digest)));
    let handmade = store.handmade().map_err(failed)?;
    let baked = store.image_records_by_inputs().map_err(failed)?;
    let images: Vec<Named> = images.into_iter().map(|image| Named::of(image, &baked, &handmade)).collect();
    let value: Vec<_> = images.iter().map(summary).collect();
    context.output.result(&value, || words_for(&images))
}

/// An image with all its names: its own, those of others that came to the same, and those people gave it who made it by
/// hand.
struct Named {
    image: ImageRecord,
    names: Vec<String>,
}

impl Named {
    fn of(image: ImageRecord, baked: &[ImageRecord], handmade: &BTreeMap<ImageName, ImageDigest>) -> Self {
        let same = baked.iter().filter(|other| other.digest == image.digest).map(|other| &other.name);
        let given = handmade.iter().filter(|(_, digest)| **digest == image.digest).map(|(name, _)| name);
        let others: BTreeSet<&ImageName> = same.chain(given).filter(|name| **name != image.name).collect();
        let names = [&image.name].into_iter().chain(others).map(ToString::to_string);
        Self { names: names.collect(), image }
    }
}

fn summary(Named { image, names }: &Named) -> serde_json::Value {
    json!({
        "digest": image.digest.to_string(),
        "name": image.name.as_str(),
        "names": names,
        "bytes": image.metadata_bytes + image.content_bytes,
        "entries": image.entries,
        "packages": image.packages.len(),
        "handmade": image.handmade,
    })
}

fn words_for(images: &[Named]) -> String {
    let row = |Named { image, names }: &Named| {
        let size = words::bytes(image.metadata_bytes + image.content_bytes);
        let counts = (image.packages.len().to_string(), image.entries.to_string());
        let origin = if image.handmade.is_some() { "handmade" } else { "baked" };
        [image.digest.short(), names.join(", "), origin.into(), counts.0, counts.1, size]
    };
    let rows: Vec<[String; 6]> = images.iter().map(row).collect();
    table(["IMAGE", "NAME", "ORIGIN", "PACKAGES", "PATHS", "SIZE"], &rows)
}
