//! Which image is meant.

use std::path::Path;

use kiln_bake::export::{ExportError, Stored};
use kiln_control::{Project, pipeline};
use kiln_model::{ExitCode, Failure, ImageDigest, ImageName, ImageRecord};
use kiln_store::Store;

use crate::app;

/// Fewer digits could mean anything.
const FEWEST_DIGITS: usize = 4;

/// What is recorded of the image that `wanted` means: a digest, the beginning of one, a name of the app in `directory`, or
/// of a handmade one. By a name that is what is recorded under it, whatever others came to the same image.
pub(crate) fn find(wanted: &str, directory: &Path, store: &Store) -> Result<ImageRecord, Failure> {
    let hex = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    let is_hex =
        hex.len() >= FEWEST_DIGITS && hex.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
    if is_hex {
        let all = store.images().map_err(|e| Failure::from_error(ExitCode::Host, &e))?;
        let meant: Vec<_> = all.into_iter().filter(|digest| digest.hex().starts_with(hex)).collect();
        match meant.as_slice() {
            [only] => return recorded(only, store),
            [] => {}
            several => {
                let which: Vec<String> = several.iter().map(ImageDigest::short).collect();
                let message = format!("`{wanted}` is the beginning of {} images", several.len());
                return Err(Failure::new(ExitCode::Usage, message)
                    .because(which.join(", "))
                    .hint("give more digits"));
            }
        }
    }
    by_name(wanted, directory, store)
}

fn recorded(digest: &ImageDigest, store: &Store) -> Result<ImageRecord, Failure> {
    let record = store.image(digest).map_err(ExportError::Store)?;
    record.ok_or_else(|| Failure::new(ExitCode::Host, format!("image {digest} has gone from the store")))
}

/// Of a handmade image what is recorded where it got this name.
fn by_hand(name: &ImageName, digest: &ImageDigest, store: &Store) -> Result<ImageRecord, Failure> {
    let all = store.image_records_by_inputs().map_err(|e| Failure::from_error(ExitCode::Host, &e))?;
    let named = all.into_iter().find(|r| r.digest == *digest && r.handmade.is_some() && r.name == *name);
    named.map_or_else(|| recorded(digest, store), Ok)
}

fn by_name(wanted: &str, directory: &Path, store: &Store) -> Result<ImageRecord, Failure> {
    let none = |cause: String| {
        Failure::new(ExitCode::Usage, format!("there is no image `{wanted}`"))
            .because(cause)
            .hint("`kiln image list` shows the images of the store; names are those of the app in --app-dir, once baked")
    };
    let name: ImageName = wanted
        .parse()
        .map_err(|_| none("it is neither the beginning of a digest in the store nor a name".into()))?;
    let handmade = store.handmade().map_err(|e| Failure::from_error(ExitCode::Host, &e))?;
    let dir = match (app::checked_directory(directory), handmade.get(&name)) {
        (Ok(dir), _) => dir,
        (Err(_), Some(digest)) => return by_hand(&name, digest, store),
        (Err(no_app), None) => return Err(none(no_app.message)),
    };
    let project = Project::load(&dir)?;
    if !project.spec.images.contains_key(&name) {
        let names: Vec<String> = project.spec.images.keys().map(|name| format!("`{name}`")).collect();
        let none = || none(format!("the app in {} has {}", dir.display(), names.join(", ")));
        return by_hand(&name, handmade.get(&name).ok_or_else(none)?, store);
    }
    match pipeline::baked_before(&project, &name, store)? {
        Some(record) => Ok(record),
        None => Err(none(format!(
            "as kiln.toml, kiln.lock and the files are now, image `{name}` has not been baked"
        ))
        .hint("run `kiln bake`")),
    }
}

/// The image with its tree.
pub(crate) fn open<'a>(wanted: &str, directory: &Path, store: &'a Store) -> Result<Stored<'a>, Failure> {
    Stored::of(store, find(wanted, directory, store)?).map_err(Failure::from)
}
