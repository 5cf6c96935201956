//! Documents of OCI images as Kiln writes them: the same image gives the same bytes.

use std::collections::BTreeMap;

use kiln_model::Sha256;
use serde::Serialize;

use super::document::Descriptor;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    media_type: &'a str,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, &'a str>,
}

impl<'a> Written<'a> {
    fn of(descriptor: &'a Descriptor) -> Self {
        let name = descriptor.name.as_deref().map(|name| ("org.opencontainers.image.ref.name", name));
        Self {
            media_type: &descriptor.media_type,
            digest: format!("sha256:{}", descriptor.digest.hex()),
            size: descriptor.size,
            annotations: name.into_iter().collect(),
        }
    }
}

/// Something with these bytes.
pub(crate) fn described(media_type: &str, bytes: &[u8]) -> Descriptor {
    let (digest, size) = (Sha256::of(bytes), bytes.len() as u64);
    Descriptor { media_type: media_type.into(), digest, size, platform: None, name: None }
}

/// The manifest of an image.
pub(crate) fn manifest(config: &Descriptor, layers: &[Descriptor]) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Manifest<'a> {
        schema_version: u32,
        media_type: &'a str,
        config: Written<'a>,
        layers: Vec<Written<'a>>,
    }
    bytes(&Manifest {
        schema_version: 2,
        media_type: MANIFEST,
        config: Written::of(config),
        layers: layers.iter().map(Written::of).collect(),
    })
}

/// The index of a layout.
pub(crate) fn index(manifests: &[Descriptor]) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Index<'a> {
        schema_version: u32,
        media_type: &'a str,
        manifests: Vec<Written<'a>>,
    }
    let manifests = manifests.iter().map(Written::of).collect();
    bytes(&Index { schema_version: 2, media_type: INDEX, manifests })
}

/// `value` as JSON.
pub(crate) fn bytes(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data that JSON can hold")
}
