//! Manifests, indexes and configurations of OCI images.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kiln_bake::parse_any_document(bytes));
