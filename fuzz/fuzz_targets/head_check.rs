#![no_main]

use kiln_edge::head_check::HeadCheck;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (mut whole, mut pieces) = (HeadCheck::default(), HeadCheck::default());
    whole.pass(bytes);
    bytes.chunks(5).for_each(|piece| pieces.pass(piece));
    assert_eq!(whole.refused(), pieces.refused());
});
