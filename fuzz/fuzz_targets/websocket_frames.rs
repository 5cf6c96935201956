#![no_main]

use kiln_edge::websocket::Frames;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (mut whole, mut pieces) = (Frames::default(), Frames::default());
    whole.pass(bytes);
    bytes.chunks(3).for_each(|piece| pieces.pass(piece));
    assert_eq!((whole.is_between(), whole.is_closed()), (pieces.is_between(), pieces.is_closed()));
});
