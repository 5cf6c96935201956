//! What the fuzz targets `oci_document` and `oci_layer` do, on a few thousand inputs: good ones, spoilt.

mod common;
mod oci_support;

use kiln_bake::{parse_any_document, parse_any_layer};
use oci_support::{Image, Layer, run};

/// The same numbers at each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }
}

/// `bytes` with a few of them changed, taken out, doubled or cut off.
fn spoilt(bytes: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(out.len());
        let end = (at + 1 + numbers.below(40)).min(out.len());
        match numbers.below(5) {
            0 => out.truncate(at),
            1 => drop(out.drain(at..end)),
            2 => {
                let piece = out[at..end].to_vec();
                out.splice(at..at, piece);
            }
            _ => {
                if let Some(byte) = out.get_mut(at) {
                    *byte = numbers.below(256) as u8;
                }
            }
        }
        if out.is_empty() {
            break;
        }
    }
    out
}

#[test]
fn spoilt_documents_are_read_or_refused() {
    let image = Image::of(&[Layer::new().file("a", b"a").done()], run());
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"x","digest":"sha256:{}","size":7,
            "platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#,
        image.manifest
    );
    let mut numbers = Numbers(1);
    let good = image.blobs.into_values().chain([index.into_bytes()]);
    for bytes in good {
        parse_any_document(&bytes);
        (0..1500).for_each(|_| parse_any_document(&spoilt(&bytes, &mut numbers)));
    }
}

#[test]
fn spoilt_layers_are_read_or_refused() {
    let layer = Layer::new()
        .dir("d/", 0o755)
        .file("d/a", b"content")
        .hardlink("d/b", "d/a")
        .symlink("l", "d")
        .file("l/through", b"x")
        .file("d/.wh.gone", b"")
        .file("d/.wh..wh..opq", b"")
        .pax("SCHILY.xattr.user.a", b"b")
        .file("noted", b"")
        .pax("path", b"of two\nlines")
        .file("short", b"x")
        .special("pipe", tar::EntryType::Fifo)
        .special("device", tar::EntryType::Block)
        .done();
    parse_any_layer(&layer);
    let mut numbers = Numbers(2);
    (0..4000).for_each(|_| parse_any_layer(&spoilt(&layer, &mut numbers)));
}
