//! The indexes of a suite: fetched, their signatures and digests verified, and kept by digest.

use std::io::Read;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_model::{LockedIndex, Sha256};
use kiln_store::Store;
use liblzma::stream::{CONCATENATED, Stream};

use super::index::BadIndex;
use super::release::{Listed, Release, ReleaseError};
use super::signature::{self, SignatureError};
use super::sources::{COMPONENT, Keyring, Source, SourcesError};
use crate::fetch::{Client, FetchError};
use crate::report::Task;

/// Uncompressed indexes, under the digest that the signed index gives for them.
const CACHE: &str = "debian-packages";
/// No signed index is larger than this, in bytes.
const LARGEST_RELEASE: u64 = 16 << 20;
/// Decompressing an index may take this much memory.
const XZ_MEMORY: u64 = 256 << 20;

/// Why the indexes of a suite cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is not known where they are.
    #[error(transparent)]
    Sources(#[from] SourcesError),
    /// They cannot be fetched.
    #[error("could not fetch the index of `{suite}`")]
    Fetch {
        /// The suite.
        suite: String,
        /// Why not.
        source: FetchError,
    },
    /// The keyring that should vouch for them cannot be read.
    #[error("could not read the keyring {} for `{suite}`", path.display())]
    Keyring {
        /// The suite.
        suite: String,
        /// The keyring.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Their signature is not valid.
    #[error("the signature of the index of `{suite}` at {root} is not valid")]
    Signature {
        /// The suite.
        suite: String,
        /// The archive.
        root: String,
        /// Why not.
        source: SignatureError,
    },
    /// They are signed, and not what was asked for.
    #[error("the index of `{suite}` at {root} cannot be used")]
    Release {
        /// The suite.
        suite: String,
        /// The archive.
        root: String,
        /// Why not.
        source: ReleaseError,
    },
    /// What they list cannot be read.
    #[error("the list of packages of `{suite}` is damaged: {problem}")]
    Damaged {
        /// The suite.
        suite: String,
        /// How.
        problem: String,
    },
    /// A package in them lacks a field.
    #[error("the list of packages cannot be used")]
    Index(#[from] BadIndex),
    /// They could not be kept.
    #[error(transparent)]
    Store(#[from] kiln_store::StoreError),
}

/// The lists of packages of a suite with its updates and security updates.
pub(crate) struct Archive {
    /// Their texts.
    pub(crate) texts: Vec<String>,
    /// What they are, as the lock records it; in the order of `texts`.
    pub(crate) indexes: Vec<LockedIndex>,
    /// Where they are from; in the same order.
    pub(crate) sources: Vec<Source>,
}

/// How indexes are got.
pub(crate) struct Opener<'a> {
    pub(crate) store: &'a Store,
    pub(crate) client: &'a Client<'a>,
    pub(crate) architecture: &'a str,
    /// The date of the last index seen of a suite.
    pub(crate) seen: &'a dyn Fn(&str) -> Option<String>,
}

impl Opener<'_> {
    /// All of `sources`; those that need not be there are left out where they are not.
    pub(crate) fn open(&self, sources: &[Source], task: &Task<'_>) -> Result<Archive, ArchiveError> {
        let mut archive = Archive { texts: Vec::new(), indexes: Vec::new(), sources: Vec::new() };
        for source in sources {
            match self.open_one(source, task) {
                Ok((text, index)) => {
                    archive.texts.push(text);
                    archive.indexes.push(index);
                    archive.sources.push(source.clone());
                }
                Err(ArchiveError::Fetch { source: FetchError::NotFound { .. }, .. })
                    if source.optional && (self.seen)(&source.suite).is_none() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(archive)
    }

    fn open_one(&self, source: &Source, task: &Task<'_>) -> Result<(String, LockedIndex), ArchiveError> {
        let suite = || source.suite.clone();
        let unusable = |e| ArchiveError::Release { suite: suite(), root: source.root.clone(), source: e };
        let url = format!("{}/dists/{}/InRelease", source.root, source.suite);
        let signed = self
            .client
            .get(&url, LARGEST_RELEASE)
            .map_err(|e| ArchiveError::Fetch { suite: suite(), source: e })?;
        let text = verified(&signed, source)?;
        let release = Release::new(&text);
        release.check_suite(&source.suite).map_err(unusable)?;
        let seen = (self.seen)(&source.suite);
        release.check_dates(now(), source.check_valid_until, seen.as_deref()).map_err(unusable)?;
        let (packed, plain) = release.packages(COMPONENT, self.architecture).map_err(unusable)?;
        let packages = self.packages(source, release.by_hash(), &packed, &plain, task)?;
        let date = release.date().map_err(unusable)?.to_owned();
        Ok((packages, LockedIndex { suite: suite(), date, sha256: Sha256::of(&signed) }))
    }

    /// The list of packages: from the cache if it is the one that is signed for, else from the mirror.
    fn packages(
        &self,
        source: &Source,
        by_hash: bool,
        packed: &Listed,
        plain: &Listed,
        task: &Task<'_>,
    ) -> Result<String, ArchiveError> {
        let cached = self.store.cache_get(CACHE, &plain.sha256).filter(|b| Sha256::of(b) == plain.sha256);
        if let Some(text) = cached.and_then(|b| String::from_utf8(b).ok()) {
            return Ok(text);
        }
        let suite = || source.suite.clone();
        let url = url(source, by_hash, packed);
        let bytes = self
            .client
            .get_verified(&url, packed.size, packed.sha256, &|n| task.add(n))
            .map_err(|e| ArchiveError::Fetch { suite: suite(), source: e })?;
        let text = unpacked(&bytes, packed, plain)
            .map_err(|problem| ArchiveError::Damaged { suite: suite(), problem })?;
        self.store.cache_put(CACHE, &plain.sha256, text.as_bytes())?;
        Ok(text)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn verified(signed: &[u8], source: &Source) -> Result<String, ArchiveError> {
    let keyring = match &source.keyring {
        Keyring::Text(key) => key.clone().into_bytes(),
        Keyring::File(path) => std::fs::read(path).map_err(|e| ArchiveError::Keyring {
            suite: source.suite.clone(),
            path: path.clone(),
            source: e,
        })?,
    };
    signature::verified(&String::from_utf8_lossy(signed), &keyring, now()).map_err(|e| {
        ArchiveError::Signature { suite: source.suite.clone(), root: source.root.clone(), source: e }
    })
}

/// By its hash where the archive offers that, because the plain name may already mean the next version.
fn url(source: &Source, by_hash: bool, listed: &Listed) -> String {
    let dists = format!("{}/dists/{}", source.root, source.suite);
    let dir = listed.path.rsplit_once('/').map_or("", |(dir, _)| dir);
    if by_hash {
        format!("{dists}/{dir}/by-hash/SHA256/{}", listed.sha256)
    } else {
        format!("{dists}/{}", listed.path)
    }
}

fn unpacked(bytes: &[u8], packed: &Listed, plain: &Listed) -> Result<String, String> {
    let mut out = Vec::with_capacity(usize::try_from(plain.size).unwrap_or(0));
    let limit = plain.size + 1;
    let read = if packed.path.ends_with(".xz") {
        let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED).map_err(|e| e.to_string())?;
        liblzma::read::XzDecoder::new_stream(bytes, stream).take(limit).read_to_end(&mut out)
    } else {
        flate2::read::MultiGzDecoder::new(bytes).take(limit).read_to_end(&mut out)
    };
    read.map_err(|e| e.to_string())?;
    if Sha256::of(&out) != plain.sha256 {
        return Err("uncompressed, it does not have the digest that is signed for".into());
    }
    String::from_utf8(out).map_err(|_| "it is not UTF-8 text".into())
}
