//! The metadata file of an image: an EROFS filesystem without the contents of files, in composefs's conventions.
//!
//! ```text
//!      0  composefs header   magic d078629a, version 1, flags (bit 0: there are ACLs)
//!   1024  superblock         4 KiB blocks, root = inode 36, time = the most frequent mtime
//!   1152  inodes, at multiples of 32 (offset / 32 is their number), in order of paths; each:
//!         ├── head           32 bytes, or 64 if a value does not fit or the mtime is another than the superblock's
//!         ├── xattrs         if any; never shared between inodes
//!         └── tail           the end of a directory, the target of a link, a small content
//!    …    blocks             what is too long for a tail: whole blocks of directories, long targets
//! ```
//! | path | is written as |
//! |---|---|
//! | file with an object | one hole of its size, `trusted.overlay.metacopy` = 0, 36, 0, 1 and the fs-verity digest, `trusted.overlay.redirect` = `/xx/yyyy…`: overlayfs finds the content in its data-only layer |
//! | file with its content inline | that content |
//! | its own xattr `trusted.overlay.…` | `trusted.overlay.overlay.…`, which overlayfs shows without the repetition |
//! | hard link | a further entry of the same inode |
//!
//! The same tree gives the same bytes: nothing depends on anything but the tree. A tree that the kernel would not
//! show as it is (a missing parent, `..`, an xattr without a namespace, a whiteout, …) is an error before the first
//! byte, never a wrong image: see [`write`].

mod body;
mod directory;
mod head;
mod inode;
mod layout;
mod limits;
mod pen;
mod read;
mod xattrs;

use kiln_model::{ImageFormat, ObjectDigest, Tree, TreeError};

use inode::{Inode, Kind};
pub(crate) use limits::may_be_a_file_of;
pub use read::{BadImage, read};

/// A block, the unit in which EROFS addresses data.
pub(crate) const BLOCK: usize = 4096;

/// A metadata file, and what the tree it was made from adds up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The file.
    pub bytes: Vec<u8>,
    /// What a reader has to know to read it.
    pub format: ImageFormat,
    /// Number of paths.
    pub entries: u64,
    /// Sum of the sizes of all regular files, further names of a file not counted.
    pub content_bytes: u64,
    /// The objects it refers to, sorted, each once.
    pub objects: Vec<ObjectDigest>,
}

/// Writes the metadata file of `tree`.
///
/// # Errors
/// The first path, in byte order, that an image cannot hold: no root, a parent that is missing or no directory, a
/// name, path, target or xattr outside the kernel's limits, a hard link to nothing, to a directory or to a hard
/// link, a character device 0:0 (overlayfs's sign for "deleted"), a device number that does not fit.
pub fn write(tree: &Tree) -> Result<Written, TreeError> {
    let inodes = inode::of(tree, Contents::Outside)?;
    let (objects, bytes) = rayon::join(|| objects(&inodes), || layout::write(&inodes));
    Ok(Written {
        bytes,
        format: format(&inodes),
        entries: tree.len() as u64,
        content_bytes: inodes.iter().map(Inode::content_bytes).fold(0, u64::saturating_add),
        objects,
    })
}

/// Where the contents are that objects have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contents {
    /// In the store, where overlayfs finds them.
    Outside,
    /// In the file, in blocks of their own.
    Inside,
}

/// The beginning of a file system with all contents inside, and what belongs behind it.
pub(crate) struct Whole {
    /// Everything but the contents of objects.
    pub(crate) bytes: Vec<u8>,
    /// The objects that follow, each from the beginning of a block, with their sizes.
    pub(crate) contents: Vec<(ObjectDigest, u64)>,
}

/// Writes `tree` as a plain EROFS file system.
///
/// # Errors
/// As [`write`].
pub(crate) fn write_whole(tree: &Tree) -> Result<Whole, TreeError> {
    let inodes = inode::of(tree, Contents::Inside)?;
    let contents = inodes.iter().filter_map(|inode| match inode.kind {
        Kind::Stored { digest, size } => Some((digest, size)),
        _ => None,
    });
    Ok(Whole { bytes: layout::write(&inodes), contents: contents.collect() })
}

/// How many bytes a content lacks to whole blocks.
pub(crate) fn padding(size: u64) -> usize {
    (size.next_multiple_of(BLOCK as u64) - size) as usize
}

fn format(inodes: &[Inode<'_>]) -> ImageFormat {
    let any = |feature: fn(&Inode<'_>) -> bool| inodes.iter().any(feature);
    let features = [
        ("acl", any(|i| xattrs::have_acl(&i.meta.xattrs))),
        ("inline", any(|i| matches!(i.kind, Kind::Inline(content) if !content.is_empty()))),
        ("overlay-xattrs", any(|i| xattrs::are_escaped(&i.meta.xattrs))),
    ];
    ImageFormat::with(features.into_iter().filter(|(_, used)| *used).map(|(name, _)| name))
}

fn objects(inodes: &[Inode<'_>]) -> Vec<ObjectDigest> {
    let object = |inode: &Inode<'_>| match inode.kind {
        Kind::Object { digest, .. } => Some(digest),
        _ => None,
    };
    let mut objects: Vec<ObjectDigest> = inodes.iter().filter_map(object).collect();
    objects.sort_unstable();
    objects.dedup();
    objects
}
