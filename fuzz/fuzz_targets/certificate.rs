#![no_main]

use kiln_edge::Certificate;
use kiln_edge::certificate::details;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(read) = details(bytes) {
        assert!(read.serial.len() <= 2 * bytes.len());
    }
    let text = String::from_utf8_lossy(bytes).into_owned();
    let _ = Certificate { chain: text.clone(), key: text }.inspect();
});
