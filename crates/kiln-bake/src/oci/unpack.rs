//! Layers, unpacked once each: an index cached by the layer's digest, and contents in the store.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use kiln_model::Sha256;
use kiln_store::Store;
use sha2::Digest as _;

use super::compressed::decompressed;
use super::layer::{self, Layer, LayerError};
use crate::debian::unpack::has_objects;
use crate::tree_file;

/// Unpacked layers, under the digest of the layer as it is served. The number changes with the format.
const CACHE: &str = "oci-layer-1";
/// A layer may unpack to this many bytes, …
const LARGEST: u64 = 32 << 30;
/// … and, beyond a size that hurts nobody, to this many times its own size: a bomb is known by that.
const HARMLESS: u64 = 1 << 30;
const RATIO: u64 = 200;

/// The layer, if it has been unpacked before, its objects are all still there, and it is the one its image means.
pub(crate) fn from_cache(store: &Store, digest: &Sha256, diff_id: &Sha256) -> Option<Layer> {
    let bytes = store.cache_get(CACHE, digest)?;
    let (found, rest) = bytes.split_first_chunk::<32>()?;
    let layer = decode(rest).filter(|_| *found == diff_id.0)?;
    has_objects(store, CACHE, digest, &layer.tree).then_some(layer)
}

/// Unpacks the layer in `blob`, whose uncompressed bytes must have the digest `diff_id`.
pub(crate) fn unpack(
    store: &Store,
    blob: &Path,
    digest: &Sha256,
    diff_id: &Sha256,
    cancelled: &dyn Fn() -> bool,
) -> Result<Layer, LayerError> {
    let file = File::open(blob).map_err(LayerError::Read)?;
    let size = file.metadata().map_err(LayerError::Read)?.len();
    let limit = size.saturating_mul(RATIO).clamp(HARMLESS, LARGEST);
    let reader = BufReader::with_capacity(256 << 10, file);
    let source = decompressed(reader).map_err(LayerError::Read)?;
    let mut counted = Counted { source, hasher: sha2::Sha256::new(), left: limit, limit, cancelled };
    let keep = |source: kiln_store::StoreError| LayerError::Read(io::Error::other(source));
    let batch = store.objects().batch().map_err(keep)?;
    let layer = layer::read(&mut counted, &batch)?;
    // What follows the end of the archive is part of the layer all the same.
    io::copy(&mut counted, &mut io::sink()).map_err(LayerError::Read)?;
    let found = Sha256(counted.hasher.finalize().into());
    if found != *diff_id {
        return Err(LayerError::Shape(format!(
            "its content has sha256 {found}, and its image means {diff_id}"
        )));
    }
    batch.commit().map_err(keep)?;
    store.cache_put(CACHE, digest, &[&diff_id.0[..], &encode(&layer)].concat()).map_err(keep)?;
    Ok(layer)
}

/// Hashes what is read, and ends when it is too much.
struct Counted<'a> {
    source: Box<dyn Read + 'a>,
    hasher: sha2::Sha256,
    left: u64,
    limit: u64,
    cancelled: &'a dyn Fn() -> bool,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if (self.cancelled)() {
            return Err(io::Error::other(super::CALLED_OFF));
        }
        let n = self.source.read(buffer)?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| {
            io::Error::other(format!(
                "it unpacks to more than {} bytes, which is taken for a bomb",
                self.limit
            ))
        })?;
        self.hasher.update(&buffer[..n]);
        Ok(n)
    }
}

/// `count paths` twice, each path with its length before it, then the tree.
fn encode(layer: &Layer) -> Vec<u8> {
    let mut out = Vec::new();
    for paths in [&layer.gone, &layer.opaque] {
        out.extend((paths.len() as u32).to_le_bytes());
        for path in paths {
            out.extend((path.len() as u32).to_le_bytes());
            out.extend(path);
        }
    }
    out.extend(tree_file::encode(&layer.tree));
    out
}

fn decode(mut bytes: &[u8]) -> Option<Layer> {
    let gone = paths(&mut bytes)?;
    let opaque = paths(&mut bytes)?;
    Some(Layer { gone, opaque, tree: tree_file::decode(bytes).ok()? })
}

fn paths(bytes: &mut &[u8]) -> Option<Vec<Vec<u8>>> {
    (0..number(bytes)?)
        .map(|_| {
            let length = number(bytes)?;
            let (path, rest) = bytes.split_at_checked(length as usize)?;
            *bytes = rest;
            Some(path.to_vec())
        })
        .collect()
}

fn number(bytes: &mut &[u8]) -> Option<u32> {
    let (four, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*four))
}
