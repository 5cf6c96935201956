//! `kiln image list`

use clap::Args;
use kiln_model::{ExitCode, Failure, ImageRecord};
use serde_json::json;

use crate::context::Context;
use crate::table::table;
use crate::words;

/// The images of the store
#[derive(Debug, Args)]
pub(crate) struct List {}

pub(crate) fn run(_: &List, context: &Context) -> Result<(), Failure> {
    let store = context.store()?;
    let failed = |e: kiln_store::StoreError| Failure::from_error(ExitCode::Host, &e);
    let mut images = Vec::new();
    for digest in store.images().map_err(failed)? {
        images.extend(store.image(&digest).map_err(failed)?);
    }
    images.sort_by(|a, b| (&a.name, a.digest).cmp(&(&b.name, b.digest)));
    let value: Vec<_> = images.iter().map(summary).collect();
    context.output.result(&value, || words_for(&images))
}

fn summary(image: &ImageRecord) -> serde_json::Value {
    json!({
        "digest": image.digest.to_string(),
        "name": image.name.as_str(),
        "bytes": image.metadata_bytes + image.content_bytes,
        "entries": image.entries,
        "packages": image.packages.len(),
        "handmade": image.handmade,
    })
}

fn words_for(images: &[ImageRecord]) -> String {
    let row = |image: &ImageRecord| {
        let size = words::bytes(image.metadata_bytes + image.content_bytes);
        let counts = (image.packages.len().to_string(), image.entries.to_string());
        let origin = if image.handmade.is_some() { "handmade" } else { "baked" };
        [image.digest.short(), image.name.to_string(), origin.into(), counts.0, counts.1, size]
    };
    let rows: Vec<[String; 6]> = images.iter().map(row).collect();
    table(["IMAGE", "NAME", "ORIGIN", "PACKAGES", "PATHS", "SIZE"], &rows)
}
