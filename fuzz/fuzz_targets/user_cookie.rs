#![no_main]

use kiln_edge::visitor::known;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let lines = || bytes.split(|byte| *byte == b'\n');
    if let Some(number) = known(lines()) {
        let text = bytes.to_ascii_lowercase();
        let said = format!("kiln-user={number:016x}");
        assert!(text.windows(said.len()).any(|part| part == said.as_bytes()));
        // What has been understood is understood in the same way whatever follows.
        let more: [&[u8]; 2] = [b"kiln-user=0123456789abcdef", b"=;;="];
        assert_eq!(known(lines().chain(more)), Some(number));
    }
});
