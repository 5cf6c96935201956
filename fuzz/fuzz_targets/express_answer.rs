#![no_main]

use std::mem::MaybeUninit;

use kiln_edge::express::answer::{FIELDS, Parsed, parse};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (mut room, mut again) = ([MaybeUninit::uninit(); FIELDS], [MaybeUninit::uninit(); FIELDS]);
    match parse(bytes, &mut room, "GET", 100) {
        Parsed::Whole(answer) => {
            assert!(answer.length <= bytes.len() && answer.status >= 200);
            let Parsed::Whole(same) = parse(&bytes[..answer.length], &mut again, "GET", 100) else { panic!() };
            assert_eq!((same.length, same.framing, same.keeps), (answer.length, answer.framing, answer.keeps));
        }
        Parsed::Interim(length) => assert!(length <= bytes.len()),
        Parsed::Partial | Parsed::Garbage => {}
    }
});
