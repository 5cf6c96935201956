//! Mounts of images, and the id maps they are seen through.
//!
//! An image is a metadata-only EROFS file over a directory of content objects. What mounts it is the same for a
//! bake (which configures packages inside an image) and for an engine (which runs instances of it), so it lives here
//! once, and nothing else asks the kernel for a composefs mount:
//!
//! ```text
//!   overlay (read-only, nosuid, nodev)            what instances see; also detached
//!   ├── lowerdir+  EROFS of image.metadata        names, modes, owners, xattrs, small contents
//!   └── datadir+   clone of image.objects         contents, found by `trusted.overlay.redirect` = /xx/yyyy…
//! ```
//!
//! With an id map both layers are idmapped clones (the kernel refuses to idmap an overlay itself), so that user 0 of
//! the image is an unprivileged user of the host. Everything here is *detached*: no path names it, dropping the file
//! descriptor unmounts it, and a crash at any point leaves nothing behind.
//!
//! | module | noun |
//! |---|---|
//! | `composefs` | the mount of an image |
//! | `user_namespace` | an id map, as the kernel wants it: a user namespace |
//! | `layer` | one detached layer below an overlay |
//! | `file_system` | a filesystem being configured, and what the kernel says of it |
//! | `support` | whether this host can do all that |

mod composefs;
mod error;
mod file_system;
mod layer;
mod support;
mod user_namespace;

pub use composefs::{ImageFiles, composefs, composefs_with_upper, metadata};
pub use error::MountError;
pub use support::{Missing, support};
pub use user_namespace::{IdRange, UserNamespace};
