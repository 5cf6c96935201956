#![no_main]

use kiln_edge::trace::{is_traceparent, traced};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if is_traceparent(bytes) {
        // What later versions say behind it does not matter.
        assert!(is_traceparent(&bytes[..55]));
        let start = std::str::from_utf8(&bytes[..55]).expect("it is of digits and hyphens");
        let id = traced(start).expect("there is an id in it");
        assert!(
            id.len() == 32
                && id.bytes().all(|byte| byte.is_ascii_hexdigit())
                && id.bytes().any(|b| b != b'0')
        );
    }
});
