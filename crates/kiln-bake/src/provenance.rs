//! What an image was made from and how: an in-toto statement with SLSA provenance v1.
//!
//! ```text
//!   subject                  the image: sha256 of its metadata file, and its fs-verity digest, which names it
//!   externalParameters       what the spec asked for
//!   internalParameters       which version of the recipes and of the format made it
//!   resolvedDependencies     OCI base, signed indexes, packages and project files, each by digest
//! ```
//! It names no moment, machine or directory: the same inputs give the same statement.

use kiln_model::{ImageRecord, LockedImage, Sha256};
use serde_json::{Value, json};

use crate::files::{Found, What};
use crate::order::BakeOrder;
use crate::sbom::Distribution;

/// How images are made: an order and its lock in, an image out.
const BUILD_TYPE: &str = "urn:kiln:bake:v1";

/// The statement about an image, whose metadata file has the sha256 `metadata`.
pub(crate) fn document(
    record: &ImageRecord,
    metadata: &Sha256,
    order: &BakeOrder,
    (locked, found): (&LockedImage, &[Found]),
    recipes: &[&str],
    distribution: &Distribution,
) -> Vec<u8> {
    let dependencies: Vec<Value> = base(locked)
        .chain(handmade_base(locked))
        .chain(indexes(locked))
        .chain(packages(locked, distribution))
        .chain(found.iter().filter_map(project_file))
        .collect();
    let definition = json!({
        "buildType": BUILD_TYPE,
        "externalParameters": parameters(order, locked),
        "internalParameters": {
            "recipes": recipes,
            "format": record.format,
            "inputs": record.inputs,
            "handmade": record.handmade,
        },
        "resolvedDependencies": dependencies,
    });
    statement(record, metadata, &definition)
}

/// The statement that an image was made as `definition`, a `buildDefinition` of SLSA, says.
pub(crate) fn statement(record: &ImageRecord, metadata: &Sha256, definition: &Value) -> Vec<u8> {
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{
            "name": record.name.as_str(),
            "digest": { "sha256": metadata.hex(), "fsverity_sha256": record.digest.hex() },
        }],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": definition,
            "runDetails": {
                "builder": {
                    "id": "urn:kiln:builder",
                    "version": { "kiln": env!("CARGO_PKG_VERSION") },
                },
            },
        },
    });
    serde_json::to_vec_pretty(&statement).expect("plain data that JSON can hold")
}

fn parameters(order: &BakeOrder, locked: &LockedImage) -> Value {
    json!({
        "image": order.image.as_str(),
        "request": locked.request,
        "files": order.files,
        "dirs": order.dirs,
        "links": order.links,
        "users": order.users,
        "build": order.build,
        "buildNetwork": order.build_network,
        "run": order.run,
        "user": order.user,
        "env": order.env,
        "workdir": order.workdir,
        "stopSignal": order.stop_signal,
        "stopGraceMillis": order.stop_grace.0,
        "volatile": order.volatile,
    })
}

fn base(locked: &LockedImage) -> impl Iterator<Item = Value> {
    locked.oci.iter().map(|oci| {
        json!({
            "name": "manifest of the OCI image it starts from",
            "digest": { "sha256": oci.manifest.hex() },
            "annotations": { "size": oci.size },
        })
    })
}

fn handmade_base(locked: &LockedImage) -> impl Iterator<Item = Value> {
    locked.handmade.iter().map(|image| {
        json!({
            "name": "handmade image it starts from",
            "digest": { "fsverity_sha256": image.hex() },
        })
    })
}

fn indexes(locked: &LockedImage) -> impl Iterator<Item = Value> {
    locked.indexes.iter().map(|index| {
        json!({
            "name": format!("index of {}", index.suite),
            "digest": { "sha256": index.sha256.hex() },
            "annotations": { "date": index.date },
        })
    })
}

fn packages(locked: &LockedImage, distribution: &Distribution) -> impl Iterator<Item = Value> {
    locked.packages.iter().map(|p| {
        json!({
            "name": p.name,
            "uri": distribution.purl(&p.name, &p.version, &p.architecture),
            "digest": { "sha256": p.sha256.hex() },
            "annotations": { "suite": p.suite, "path": p.path },
        })
    })
}

/// A file of the project, by where it went.
fn project_file(found: &Found) -> Option<Value> {
    match &found.what {
        What::Directory => None,
        What::File { digest, size, .. } => Some(json!({
            "name": String::from_utf8_lossy(&found.dst),
            "digest": { "fsverity_sha256": digest.hex() },
            "annotations": { "size": size },
        })),
    }
}
