//! Layers of OCI images: read, and laid over nothing.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kiln_bake::parse_any_layer(bytes));
