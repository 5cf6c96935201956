#![no_main]

use std::sync::LazyLock;

/// Emptied by nobody: what is imported is refused or the same again.
static DIR: LazyLock<std::path::PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("kiln-fuzz-{}", std::process::id())));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = std::fs::remove_dir_all(&*DIR);
    let store = kiln_store::Store::open(&DIR).expect("a directory for a store");
    kiln_store::any_bytes::export(bytes, &store);
});
