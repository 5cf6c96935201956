#![no_main]

use kiln_edge::proxy_header::{ENOUGH, ProxyHeader, parse};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let ProxyHeader::Complete(length, _) = parse(bytes) {
        assert!(length <= bytes.len() && length <= ENOUGH);
        // What has been understood is understood in the same way whatever follows.
        assert_eq!(parse(&bytes[..length]), parse(bytes));
    }
});
