#![no_main]

use kiln_edge::visitor::known;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(number) = known(text.lines()) {
        assert!(text.to_ascii_lowercase().contains(&format!("kiln-user={number:016x}")));
        // What has been understood is understood in the same way whatever follows.
        assert_eq!(known(text.lines().chain(["kiln-user=0123456789abcdef", "=;;="])), Some(number));
    }
});
