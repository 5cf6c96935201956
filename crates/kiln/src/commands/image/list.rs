//! `kiln image list`

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use kiln_control::refused_by_store;
use kiln_model::{Failure, ImageDigest, ImageName, ImageRecord};
use kiln_store::StoreError;
use serde_json::json;

use crate::context::Context;
use crate::table::table;
use crate::words;

/// The images of the store
#[derive(Debug, Args)]
pub(crate) struct List {}

pub(crate) fn run(_: &List, context: &Context) -> Result<(), Failure> {
    let store = context.store()?;
    let failed = |e: StoreError| refused_by_store(&e);
    let handmade = store.handmade().map_err(failed)?;
    let baked = store.image_records_by_inputs().map_err(failed)?;
    let mut images = Vec::new();
    for digest in store.images().map_err(failed)? {
        let record = match store.image(&digest) {
            // No reason to hide the others.
            Err(damaged @ StoreError::Damaged { .. }) => Err(damaged.to_string()),
            found => match found.map_err(failed)? {
                Some(record) => Ok(record),
                // A sweep was quicker.
                None => continue,
            },
        };
        images.push(Named::of(digest, record, &baked, &handmade));
    }
    images.sort_by(|a, b| (&a.names, a.digest).cmp(&(&b.names, b.digest)));
    let value: Vec<_> = images.iter().map(summary).collect();
    context.output.result(&value, || words_for(&images))
}

/// An image with all its names: its own, those of others that came to the same, and those people gave it who made it by
/// hand.
struct Named {
    digest: ImageDigest,
    names: Vec<String>,
    /// Or how that is damaged.
    record: Result<ImageRecord, String>,
}

impl Named {
    fn of(
        digest: ImageDigest,
        record: Result<ImageRecord, String>,
        baked: &[ImageRecord],
        handmade: &BTreeMap<ImageName, ImageDigest>,
    ) -> Self {
        let own = record.as_ref().ok().map(|record| &record.name);
        let same = baked.iter().filter(|other| other.digest == digest).map(|other| &other.name);
        let given = handmade.iter().filter(|(_, named)| **named == digest).map(|(name, _)| name);
        let others: BTreeSet<&ImageName> = same.chain(given).filter(|name| Some(*name) != own).collect();
        let names = own.into_iter().chain(others).map(ToString::to_string).collect();
        Self { digest, names, record }
    }
}

fn summary(Named { digest, names, record }: &Named) -> serde_json::Value {
    match record {
        Ok(image) => json!({
            "digest": digest.to_string(),
            "name": image.name.as_str(),
            "names": names,
            "bytes": image.metadata_bytes + image.content_bytes,
            "entries": image.entries,
            "packages": image.packages.len(),
            "handmade": image.handmade,
        }),
        Err(damage) => json!({ "digest": digest.to_string(), "names": names, "damage": damage }),
    }
}

fn words_for(images: &[Named]) -> String {
    let row = |Named { digest, names, record }: &Named| {
        let [origin, packages, paths, size] = match record {
            Ok(image) => {
                let origin = if image.handmade.is_some() { "handmade" } else { "baked" };
                let size = words::bytes(image.metadata_bytes + image.content_bytes);
                [origin.into(), image.packages.len().to_string(), image.entries.to_string(), size]
            }
            Err(damage) => [format!("not known: {damage}"), String::new(), String::new(), String::new()],
        };
        [digest.short(), names.join(", "), origin, packages, paths, size]
    };
    let rows: Vec<[String; 6]> = images.iter().map(row).collect();
    table(["IMAGE", "NAME", "ORIGIN", "PACKAGES", "PATHS", "SIZE"], &rows)
}
