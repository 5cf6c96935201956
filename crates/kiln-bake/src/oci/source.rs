//! Where an OCI image is: three places, asked for the same things.

use std::path::{Path, PathBuf};

use kiln_model::{OciReference, Which};
use kiln_store::BlobDraft;

use super::archive::Archive;
use super::document::Descriptor;
use super::error::OciError;
use super::layout::Layout;
use super::pull::Pull;
use crate::order::BakeOrder;

/// A place that has an image.
pub(crate) trait Source: Send + Sync {
    /// The document that the reference names: a manifest or an index.
    fn top(&self) -> Result<Vec<u8>, OciError>;

    /// The manifest or index with this digest; who asks checks it.
    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>, OciError>;

    /// Adds to `draft` what it lacks of the blob; who asks checks it. `news` is told of each piece as it arrives.
    fn blob(
        &self,
        descriptor: &Descriptor,
        draft: &mut BlobDraft,
        news: &dyn Fn(u64),
    ) -> Result<(), OciError>;
}

/// The place that `reference` names.
pub(crate) fn open<'a>(
    reference: &'a OciReference,
    order: &BakeOrder,
    cancelled: &'a (dyn Fn() -> bool + Sync),
) -> Result<Box<dyn Source + 'a>, OciError> {
    match reference {
        OciReference::Registry(registry) => Ok(Box::new(Pull::new(registry, cancelled)?)),
        OciReference::Path { path, which } => {
            let (path, which) = place(&order.project, path, which);
            match path.metadata() {
                Ok(meta) if meta.is_dir() => Ok(Box::new(Layout::open(path, &which, reference)?)),
                Ok(meta) if meta.is_file() => Ok(Box::new(Archive::open(path, &which, reference)?)),
                Ok(_) => {
                    let problem = "it is neither a directory nor a file".into();
                    Err(OciError::Shape { path, problem })
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    Err(OciError::Missing { path, reference: reference.to_string() })
                }
                Err(source) => Err(OciError::Read { path, source }),
            }
        }
    }
}

/// The path, and which of the images there. What stands behind a colon belongs to an image's full name
/// (`base.tar:localhost/team/base:1.0`) if what stands before it is there and the whole is not.
fn place(project: &Path, written: &str, which: &Which) -> (PathBuf, Which) {
    let is_there = |path: &str| !path.is_empty() && project.join(path).exists();
    let named = || written.match_indices(':').find(|(at, _)| is_there(&written[..*at]));
    match (!is_there(written)).then(named).flatten() {
        None => (project.join(written), which.clone()),
        Some((at, _)) => {
            let tag = which.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
            let name = format!("{}{tag}", &written[at + 1..]);
            (project.join(&written[..at]), Which { tag: Some(name), digest: which.digest })
        }
    }
}
