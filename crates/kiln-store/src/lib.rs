//! The only code that writes Kiln's state directory.
//!
//! ```text
//! <root>/                         0700
//! ├── version                     the number of this layout: 1
//! ├── objects/xx/yyyy…            contents of files, named by fs-verity digest; the overlay's data-only layer
//! ├── images/<digest>/            one per image; it exists when its record does
//! │   ├── metadata.erofs          the image: its fs-verity digest names the directory
//! │   ├── record.json             ImageRecord, of the first bake that came to it
//! │   ├── objects                 the objects it needs, its SBOM and provenance among them, one digest a line
//! │   └── checks/<key>.json       results of its checks
//! ├── inputs/<sha256>             a digest of inputs → the record of the image baked from them (may be lost: it costs a bake)
//! ├── packages/<sha256>.deb       packages as the mirror served them
//! ├── blobs/<sha256>              parts of OCI images as registries served them; `.draft`: on its way
//! ├── releases/<release id>.json  releases in their canonical encoding: the id is its hash
//! ├── releases/<release id>.documents/  the spec and the lock it was made from
//! ├── secrets/                    0700: values of secrets, encrypted (`secrets/mod.rs` draws it)
//! ├── cache/<kind>/<sha256>       results worth keeping (may be lost: they cost time)
//! ├── log/operations.jsonl        the operation log: append-only, each line holds the hash of the one before
//! ├── log/damaged-<hash>.jsonl    one that was not what was appended, as it was found (`log_repair.rs`); never removed
//! ├── state/<name>.json           small documents that are not history; `handmade`: images by the names people gave them
//! ├── output/                     instances' output, written by the keeper
//! ├── run/                        sockets, and `lock`: the one host that runs on this directory
//! └── tmp/<process>/              files being written; locked by their process, removed when it is gone
//! ```
//!
//! **GC roots**: `releases/` (they name images, which name objects), the images in `state/handmade.json`, and what the
//! provenance of such an image says it was made from: packages, and the manifest in `blobs/` of an OCI image, which names
//! the other blobs. What no root leads to may be collected (`sweep.rs`, `sweep_blobs.rs`); nothing is collected without
//! being asked for.
//!
//! **Writes**: every file appears whole or not at all: it is written in `tmp/`, flushed to disk, renamed, and the
//! directory is flushed. Three exceptions, each with its reason where it is made: the operation log is appended to
//! and flushed; cache entries are not flushed (a checksum tells torn ones apart); the lock file is only locked.
//! Several processes may have the same directory open, `kiln bake` beside a daemon say; the log belongs to the one
//! that holds the [`HostLock`].

pub mod age;
pub mod any_bytes;
mod batch;
mod beginning;
mod blobs;
pub mod boundary;
mod broom;
mod cache;
mod chain;
mod documents;
mod error;
mod export;
mod flush;
mod handmade;
mod host_lock;
mod image_damage;
mod images;
mod layout;
mod log_repair;
mod medium;
mod moment;
mod new_blob;
mod objects;
mod operation_log;
mod outputs;
mod packages;
mod presence;
mod random;
mod releases;
mod secrets;
mod shelves;
mod side_by_side;
mod sparse;
mod staged_image;
mod sweep;
mod sweep_blobs;
mod temp;
mod verify;
mod verity;

pub use batch::Batch;
pub use beginning::Beginning;
pub use blobs::BlobDraft;
pub use error::{StoreError, has_no_space};
pub use export::{Imported, SecretsOfImport, Sound};
pub use host_lock::HostLock;
pub use layout::Store;
pub use log_repair::Repair;
pub use medium::Medium;
pub use moment::Moment;
pub use new_blob::NewBlob;
pub use objects::Objects;
pub use operation_log::{LogReader, OperationLog};
pub use outputs::StoredOutput;
pub use presence::{Look, Wanted};
pub use secrets::{
    Holders, PresentSecrets, SecretRecord, SecretRemoval, SecretSetting, SecretsLock, version_of_secret,
};
pub use staged_image::StagedImage;
pub use sweep::{GRACE, InUse, Keep, Sweeper};
pub use temp::Scratch;
pub use verify::{Damage, Needing};
pub use verity::Verity;

/// What operations of the store come to.
pub type Result<T> = std::result::Result<T, StoreError>;
