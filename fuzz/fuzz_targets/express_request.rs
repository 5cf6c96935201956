#![no_main]

use std::mem::MaybeUninit;

use kiln_edge::express::request::{FIELDS, Parsed, Word, parse};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (mut room, mut again) = ([MaybeUninit::uninit(); FIELDS], [MaybeUninit::uninit(); FIELDS]);
    if let Parsed::Whole(request) = parse(bytes, &mut room, Word::Nothing) {
        let (head, body) = request.length;
        assert!(head + body <= bytes.len() && bytes[..head].ends_with(b"\r\n\r\n"));
        // What has been understood is understood in the same way whatever follows, and is partial until it is whole.
        let Parsed::Whole(same) = parse(&bytes[..head + body], &mut again, Word::Nothing) else { panic!() };
        assert_eq!((same.length, same.target, same.host), (request.length, request.target, request.host));
        let mut early = [MaybeUninit::uninit(); FIELDS];
        assert!(matches!(parse(&bytes[..head - 1], &mut early, Word::Nothing), Parsed::Partial));
    }
});
