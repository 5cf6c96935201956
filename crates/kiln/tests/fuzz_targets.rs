//! What the fuzz targets assert, on inputs that take no fuzzer: they compile with everything else, and hold for every seed,
//! for what differs from one in a few places, and for bytes of no sense.

extern crate self as libfuzzer_sys;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use kiln_testkit::storm::Chance;

/// What libFuzzer's macro makes a program of is a function here.
#[macro_export]
macro_rules! fuzz_target {
    (|$bytes:ident: &[u8]| $body:expr) => {
        pub(crate) fn run($bytes: &[u8]) {
            $body
        }
    };
}

/// A module for each file, and all of them by name.
macro_rules! targets {
    ($($name:ident $path:literal,)*) => {
        $(
            #[path = $path]
            #[allow(unused_attributes, reason = "`no_main` is for a program")]
            mod $name;
        )*
        const TARGETS: &[(&str, fn(&[u8]))] = &[$((stringify!($name), $name::run)),*];
    };
}

targets! {
    certificate "../../../fuzz/fuzz_targets/certificate.rs",
    chunks "../../../fuzz/fuzz_targets/chunks.rs",
    copyright "../../../fuzz/fuzz_targets/copyright.rs",
    deb "../../../fuzz/fuzz_targets/deb.rs",
    deb822 "../../../fuzz/fuzz_targets/deb822.rs",
    encrypted "../../../fuzz/fuzz_targets/encrypted.rs",
    export "../../../fuzz/fuzz_targets/export.rs",
    express_answer "../../../fuzz/fuzz_targets/express_answer.rs",
    express_request "../../../fuzz/fuzz_targets/express_request.rs",
    forwarded "../../../fuzz/fuzz_targets/forwarded.rs",
    head_check "../../../fuzz/fuzz_targets/head_check.rs",
    image "../../../fuzz/fuzz_targets/image.rs",
    oci_document "../../../fuzz/fuzz_targets/oci_document.rs",
    oci_layer "../../../fuzz/fuzz_targets/oci_layer.rs",
    proxy_header "../../../fuzz/fuzz_targets/proxy_header.rs",
    relation "../../../fuzz/fuzz_targets/relation.rs",
    release "../../../fuzz/fuzz_targets/release.rs",
    signature "../../../fuzz/fuzz_targets/signature.rs",
    traceparent "../../../fuzz/fuzz_targets/traceparent.rs",
    tree "../../../fuzz/fuzz_targets/tree.rs",
    user_cookie "../../../fuzz/fuzz_targets/user_cookie.rs",
    websocket_frames "../../../fuzz/fuzz_targets/websocket_frames.rs",
}

/// Inputs of each target beside its seeds.
const INPUTS: u64 = 300;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn some_bytes(chance: &mut Chance, length: u64) -> Vec<u8> {
    (0..length).map(|_| chance.below(256) as u8).collect()
}

/// The same as a seed with some bytes exchanged, left out or put in.
fn changed(chance: &mut Chance, seed: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=chance.below(4) {
        let from = chance.below(bytes.len() as u64 + 1) as usize;
        let to = (from + chance.below(4) as usize).min(bytes.len());
        let length = chance.below(4);
        bytes.splice(from..to, some_bytes(chance, length));
    }
    bytes
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let files = fs::read_dir(fuzz().join("seeds").join(name)).into_iter().flatten();
    files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect()
}

#[test]
fn what_the_fuzz_targets_assert_holds_for_their_seeds_and_what_is_like_them() {
    let mut chance = Chance::new(20_170_823);
    for (name, run) in TARGETS {
        let mut seeds = seeds(name);
        seeds.iter().for_each(|seed| run(seed));
        seeds.push(Vec::new());
        for n in 0..INPUTS {
            let seed = &seeds[(n as usize) % seeds.len()];
            let length = chance.below(200);
            let input =
                if seed.is_empty() { some_bytes(&mut chance, length) } else { changed(&mut chance, seed) };
            run(&input);
        }
    }
}

#[test]
fn no_fuzz_target_is_left_out() {
    let files = fs::read_dir(fuzz().join("fuzz_targets")).unwrap();
    let files: BTreeSet<String> =
        files.map(|f| f.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(files, TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect());
}
