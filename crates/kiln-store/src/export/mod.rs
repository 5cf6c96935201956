//! A release with all it needs, as one file.
//!
//! ```text
//! a tar archive (ustar and GNU long names, no compression), in which nothing depends on who wrote it or when
//! ├── manifest.json               format, release, and of every member that follows: path, bytes, sha256; in order
//! ├── release.json                the release in its canonical encoding: the id is its hash
//! ├── secrets.age                 if asked for: the values of its secrets, encrypted to recipients (see [`crate::age`])
//! ├── documents/<name>            kiln.toml, kiln.lock and the log's extract, as far as they were kept
//! ├── images/<digest>/…           objects, record.json, metadata.erofs of each image of the release
//! ├── objects/xx/yyyy…            contents of files and documents of images, by fs-verity digest
//! └── packages/<sha256>.deb       the packages its images were made from, as far as they are here
//! ```
//! No secret is in it unless somebody names recipients: a release names versions of secrets, and the same value is the
//! same version everywhere. With secrets the bytes are other ones each time, as no two encryptions are the same.
//!
//! Reading trusts nothing: the manifest is bounded, members must come in its order, in the size and with the hash it
//! says, under the names above; objects, images, packages and the release are compared with their own digests
//! before they enter the store, and what is recorded of an image with what the image says of itself. An image that is
//! here already is left as it is (what is damaged of it is made whole, and what was recorded of it here stays), and none
//! of them is found by the inputs its record claims. The release comes last into the store, so that half an import is
//! no release.

mod read;
mod secrets;
mod write;

pub use read::{Imported, Sound};
pub use secrets::SecretsOfImport;

use kiln_model::{AppName, ReleaseId, Sha256};
use serde::{Deserialize, Serialize};

/// The version of the format this code writes, and the only one it reads.
const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.json";
const SECRETS: &str = "secrets.age";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    app: AppName,
    release: ReleaseId,
    members: Vec<Member>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    path: String,
    bytes: u64,
    sha256: Sha256,
}
