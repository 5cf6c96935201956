//! OCI images at a path that are exchanged after they were locked. Needs root; no mirror.

mod common;
mod oci_support;

use std::fs;

use common::{baked, locked, try_bake, try_lock};
use kiln_model::Sha256;
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

/// The name may lead elsewhere by now: what is pinned is there all the same.
#[test]
fn what_is_pinned_is_taken_whatever_its_name_leads_to() {
    let (project, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let base = project.path().join("base");
    let open = |name: &str| Store::open(&dir.path().join(name)).unwrap();
    let archived = || {
        tool(
            "tar",
            &["-cf", project.path().join("base.tar").to_str().unwrap(), "-C", base.to_str().unwrap(), "."],
        )
    };
    for (number, reference) in ["./base:one", "base.tar:one"].into_iter().enumerate() {
        let _ = fs::remove_dir_all(&base);
        Image::of(&layers(), run()).layout(&base, "one");
        archived();
        let order = from_oci(project.path(), reference);
        let lock = locked(&order, &open(&format!("{number}")));
        // Renamed, then moved to another image that is there as well.
        let index = fs::read_to_string(base.join("index.json")).unwrap();
        fs::write(base.join("index.json"), index.replace("\"one\"", "\"two\"")).unwrap();
        archived();
        baked(&order, &lock, &open(&format!("{number}-renamed")));
        let failure = try_lock(&order, &open(&format!("{number}-lock"))).unwrap_err();
        let told = format!("{}: {}", failure.message, failure.causes.join(": "));
        assert!(
            told.contains("holds no such image, but `two`") && !told.contains("is no OCI image"),
            "{told}"
        );
        Image::of(&layers()[..1], run()).layout(&base, "one");
        archived();
        baked(&order, &lock, &open(&format!("{number}-moved")));
    }
}

/// Docker's own form has no manifests: they follow from the members.
#[test]
fn an_archive_of_dockers_own_that_was_exchanged_is_said_to_be() {
    let (project, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let put = |layer: &[u8]| {
        let saved = tempfile::tempdir().unwrap();
        let (digest, config) = (Sha256::of(layer), saved.path().join("config.json"));
        let written = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/bin/busybox"]}},"rootfs":{{"type":"layers","diff_ids":["sha256:{digest}"]}}}}"#
        );
        fs::write(config, written).unwrap();
        fs::write(saved.path().join("layer.tar"), layer).unwrap();
        let manifest = r#"[{"Config":"config.json","RepoTags":["base:one"],"Layers":["layer.tar"]}]"#;
        fs::write(saved.path().join("manifest.json"), manifest).unwrap();
        let archive = project.path().join("saved.tar");
        tool("tar", &["-cf", archive.to_str().unwrap(), "-C", saved.path().to_str().unwrap(), "."]);
    };
    put(&layers()[0]);
    let order = from_oci(project.path(), "saved.tar");
    let lock = locked(&order, &Store::open(&dir.path().join("one")).unwrap());
    put(&layers()[1]);
    let store = Store::open(&dir.path().join("two")).unwrap();
    let failure = try_bake(&order, &lock, &store).unwrap_err();
    let told = format!("{}: {}", failure.message, failure.causes.join(": "));
    assert!(told.contains("`saved.tar` is another image than the one that was locked"), "{told}");
    assert!(failure.hint.unwrap().contains("`kiln lock --update"));
}
