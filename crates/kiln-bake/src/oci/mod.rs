//! OCI images: root filesystems made from them.
//!
//! ```text
//!   reference ── source (layout, archive, registry) ──▶ manifest ── pinned in kiln.lock
//!                   └─▶ blobs in the store ── unpack (once per layer) ──▶ layers ── apply ──▶ tree, settings
//! ```
//! | module | does |
//! |---|---|
//! | `source`, `layout`, `archive`, `registry` | the places an image can be in |
//! | `http`, `way`, `auth`, `credentials` | asking a registry: how it is spoken to, and who is asking |
//! | `document`, `written` | manifests, indexes, configurations: read and written |
//! | `compressed`, `layer`, `unpack`, `apply` | layers: decompressed, read, kept, laid over each other |
//!
//! Nothing is believed of whoever serves an image: every byte is compared with the digest that the lock, or what the
//! lock pins, gives it.

pub(crate) mod apply;
mod archive;
mod auth;
mod compressed;
mod credentials;
pub(crate) mod document;
mod error;
pub(crate) mod http;
pub(crate) mod layer;
mod layout;
pub(crate) mod pull;
mod registry;
mod root;
mod source;
mod unpack;
mod way;
pub(crate) mod written;

pub use document::{BadDocument, parse_any_document};
pub use error::OciError;
pub use layer::{LayerError, parse_any_layer};
pub use registry::RegistryError;
pub(crate) use root::{lock, root};

/// What a reader says that is no longer wanted.
const CALLED_OFF: &str = "called off";
