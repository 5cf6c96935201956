//! What differs between two releases, with what the store knows of their images.

use kiln_model::{Contents, Difference, ImageDigest, Release, differences};
use kiln_store::Store;

/// The differences from `old` to `new`, one line each, for those who are about to deploy: packages and settings, no
/// single files and no values of the environment.
pub(crate) fn between(old: Option<&Release>, new: &Release, store: &Store) -> Vec<String> {
    let Some(old) = old else { return vec!["everything: nothing serves yet".into()] };
    let packages = |image: &ImageDigest| {
        let record = store.image(image).ok().flatten()?;
        Some(Contents { packages: record.packages, ..Contents::default() })
    };
    differences(old, new, &packages).iter().map(Difference::discreetly).collect()
}

/// All of them, files included.
pub(crate) fn in_full(old: &Release, new: &Release, store: &Store) -> Vec<Difference> {
    let contents = |image: &ImageDigest| {
        let record = store.image(image).ok().flatten()?;
        let handle = store.handle(image).ok()?;
        // Without its files an image still has its packages.
        let files = kiln_bake::listing::files(&handle).unwrap_or_default();
        Some(Contents { packages: record.packages, files })
    };
    differences(old, new, &contents)
}
