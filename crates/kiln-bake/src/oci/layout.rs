//! An OCI image layout: a directory with `oci-layout`, `index.json` and `blobs/sha256/…`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use kiln_model::{OciReference, Which};
use kiln_store::BlobDraft;

use super::document::{Descriptor, LARGEST_MANIFEST, Top};
use super::error::OciError;
use super::source::Source;

pub(crate) struct Layout {
    dir: PathBuf,
    which: Which,
    reference: OciReference,
}

impl Layout {
    pub(crate) fn open(dir: PathBuf, which: &Which, reference: &OciReference) -> Result<Self, OciError> {
        if !dir.join("oci-layout").is_file() {
            let problem = "it has no file `oci-layout`".into();
            return Err(OciError::Shape { path: dir, problem });
        }
        Ok(Self { dir, which: which.clone(), reference: reference.clone() })
    }

    fn path(&self, descriptor: &Descriptor) -> PathBuf {
        self.dir.join("blobs/sha256").join(descriptor.digest.hex())
    }
}

/// The image that `which` means of those in `index.json`.
pub(crate) fn named(
    index: &[u8],
    which: &Which,
    path: &Path,
    reference: &OciReference,
) -> Result<Descriptor, OciError> {
    let document = |source| OciError::Document { what: "index", reference: reference.to_string(), source };
    let problem = |problem: String| OciError::Shape { path: path.into(), problem };
    let Top::Index(images) = Top::parse(index).map_err(document)? else {
        return Err(problem("its index.json is no index".into()));
    };
    let meant: Vec<&Descriptor> = match which {
        Which { digest: Some(digest), .. } => images.iter().filter(|d| d.digest == *digest).collect(),
        Which { tag: Some(asked), .. } => {
            images.iter().filter(|d| d.name.as_deref().is_some_and(|name| answers(name, asked))).collect()
        }
        Which { tag: None, digest: None } => images.iter().collect(),
    };
    let names: Vec<String> = images
        .iter()
        .filter_map(|d| d.name.as_ref())
        .map(|name| format!("`{}`", name.escape_debug()))
        .collect();
    match meant.as_slice() {
        [] => Err(OciError::not_named(path, false, &names)),
        [only] => Ok((*only).clone()),
        several if several.iter().all(|d| d.digest == several[0].digest) => Ok(several[0].clone()),
        _ => Err(OciError::not_named(path, true, &names)),
    }
}

/// Whether an image of this name is meant by `asked`: the name itself, or one half of it. Some tools write the whole
/// reference as the name.
pub(crate) fn answers(name: &str, asked: &str) -> bool {
    name == asked || name.rsplit_once(':').is_some_and(|(repository, tag)| [repository, tag].contains(&asked))
}

/// A whole file of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, OciError> {
    let failed = |source| OciError::Read { path: path.into(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(failed(io::Error::other(format!("it has more than {limit} bytes"))));
    }
    Ok(bytes)
}

impl Source for Layout {
    fn top(&self) -> Result<Vec<u8>, OciError> {
        let index = read(&self.dir.join("index.json"), LARGEST_MANIFEST)?;
        self.manifest(&named(&index, &self.which, &self.dir, &self.reference)?)
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>, OciError> {
        read(&self.path(descriptor), LARGEST_MANIFEST)
    }

    fn blob(
        &self,
        descriptor: &Descriptor,
        draft: &mut BlobDraft,
        news: &dyn Fn(u64),
    ) -> Result<(), OciError> {
        let path = self.path(descriptor);
        draft.restart()?;
        let file = File::open(&path).map_err(|source| OciError::Read { path, source })?;
        draft.write_all(&mut file.take(descriptor.size + 1))?;
        news(draft.length());
        Ok(())
    }
}
