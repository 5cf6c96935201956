//! From a spec to an image, reproducibly.
//!
//! [`lock()`] pins every package of an order by hash; [`bake()`] makes the image of an order and its lock, or finds the
//! one it made before. Neither reads a clock that could show in an image, nor anything of the host but its apt
//! sources.
//!
//! ```text
//!   order ── lock ──▶ kiln.lock ── bake ──▶ image in the store
//!            │                      │
//!            debian: sources,       debian: unpack ▶ assemble ▶ configure (sandbox) ▶ capture ▶ normalise
//!            archive, resolver      files ▶ merge ▶ erofs
//! ```
//!
//! | module | does |
//! |---|---|
//! | `order` | what is asked for |
//! | `lock`, `bake` | the two things this crate does |
//! | `debian` | root filesystems from Debian packages |
//! | `sandbox`, `sandboxed` | programs run inside a tree, away from everything else, and what they write |
//! | `fetch`, `looked_up` | bytes from a mirror |
//! | `oci` | root filesystems from OCI images, and OCI images from images |
//! | `handmade` | images of instances as they are, and images baked over those |
//! | `files`, `accounts`, `merge`, `users`, `settings`, `skeleton` | the project's files, users and settings over a root filesystem |
//! | `build` | commands run in the tree so far |
//! | `export` | images for the world outside |
//! | `machine_own` | what no image holds |
//! | `tree_edit`, `tree_file`, `content` | trees: changed, cached, filled |
//! | `erofs` | trees as metadata files |
//! | `sbom`, `provenance` | what is inside, and what it was made from |

mod accounts;
pub mod any_bytes;
mod bake;
mod build;
mod content;
mod debian;
mod description;
pub mod erofs;
mod error;
pub mod export;
mod fetch;
mod files;
mod handmade;
mod hidden;
pub mod inspect;
pub mod listing;
mod lock;
mod looked_up;
mod machine_own;
mod merge;
mod nearest;
mod oci;
mod order;
mod packed;
mod provenance;
mod report;
mod sandbox;
mod sandboxed;
mod sbom;
mod settings;
mod skeleton;
mod tree_edit;
mod tree_file;
mod users;

pub use accounts::AccountError;
pub use bake::{bake, baked_before};
pub use build::BuildError;
pub use debian::archive::ArchiveError;
pub use debian::assemble::AssembleError;
pub use debian::capture::CaptureError;
pub use debian::configure::ConfigureError;
pub use debian::deb::DebError;
pub use debian::index::BadIndex;
pub use debian::package::Impostor;
pub use debian::reasons::Reason;
pub use debian::release::ReleaseError;
pub use debian::resolver::Unresolvable;
pub use debian::signature::SignatureError;
pub use debian::sources::SourcesError;
pub use debian::version::compare as compare_versions;
pub use description::objects_of_foreign;
pub use error::{BakeError, LockProblem};
pub use fetch::FetchError;
pub use files::{FilesError, missing_file};
pub use handmade::{Committed, HandmadeError, Source, commit};
pub use lock::{Reasons, lock, lock_with_reasons};
pub use machine_own::MachineOwn;
pub use nearest::nearest_name;
pub use oci::{BadDocument, LayerError, OciError, RegistryError, parse_any_document, parse_any_layer};
pub use order::{BakeOrder, Baked, Base, FileSpec, Report, Sources, Suite, Update};
pub use sandbox::WorkplaceError;
pub use sandboxed::SandboxError;
pub use users::UserError;
