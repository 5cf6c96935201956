#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    kiln_store::any_bytes::encrypted(bytes);
    kiln_store::any_bytes::keys(bytes);
});
