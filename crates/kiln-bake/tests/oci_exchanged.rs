//! OCI images at a path that are exchanged after they were locked. Needs root; no mirror.

mod common;
mod oci_support;

use std::fs;

use common::{baked, locked, try_bake};
use kiln_store::Store;
use oci_support::{Image, from_oci, layers, run, tool};

/// It was exchanged after it was locked, which is no fault of the image that is there now.
#[test]
fn an_image_that_is_another_than_was_locked_is_said_to_be() {
    let (project, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let base = project.path().join("base");
    let put = |layers: &[Vec<u8>]| {
        let _ = fs::remove_dir_all(&base);
        Image::of(layers, run()).layout(&base, "one");
        let archive = project.path().join("base.tar");
        tool("tar", &["-cf", archive.to_str().unwrap(), "-C", base.to_str().unwrap(), "."]);
    };
    for (number, reference) in ["./base", "base.tar:one"].into_iter().enumerate() {
        put(&layers());
        let store = Store::open(&dir.path().join(number.to_string())).unwrap();
        let order = from_oci(project.path(), reference);
        let lock = locked(&order, &store);
        put(&layers()[..1]);
        let failure = try_bake(&order, &lock, &store).unwrap_err();
        let told = format!("{}: {}", failure.message, failure.causes.join(": "));
        assert!(
            told.contains(&format!("`{reference}` is another image than the one that was locked")),
            "{told}"
        );
        assert!(!told.contains("is no OCI image"), "{told}");
        assert!(failure.hint.unwrap().ends_with(&format!("`kiln lock --update {}`", order.image)));
        let again = locked(&order, &store);
        baked(&order, &again, &store);
    }
}
