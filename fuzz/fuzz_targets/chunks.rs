#![no_main]

use kiln_edge::express::chunks::Chunks;

fn data(bytes: &[u8], piece: usize) -> Option<(Vec<u8>, Chunks)> {
    let (mut chunks, mut data) = (Chunks::default(), Vec::new());
    for mut bytes in bytes.chunks(piece) {
        while !bytes.is_empty() && !chunks.is_done() {
            let (behind, part) = chunks.next(bytes).ok()?;
            data.extend_from_slice(part);
            bytes = &bytes[behind..];
        }
    }
    Some((data, chunks))
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    assert_eq!(data(bytes, 5), data(bytes, bytes.len().max(1)));
});
