//! What is in an image, path by path, without reading the contents of large files: the metadata commits to them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use kiln_model::{ImageHandle, ObjectDigest, Sha256};

/// Every path of `image` but the root, each with its kind, mode, owner and what stands for its content, in words that
/// are the same for the same thing.
///
/// # Errors
/// In one sentence: if the image cannot be mounted or read.
pub fn files(image: &ImageHandle) -> Result<BTreeMap<String, String>, String> {
    let mount = kiln_mount::metadata(image).map_err(|e| format!("the image could not be mounted: {e}"))?;
    let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    walk(&root).map_err(|e| format!("the image could not be read: {e}"))
}

fn walk(root: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.join(".")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let meta = fs::symlink_metadata(&path)?;
            if meta.is_dir() {
                directories.push(path.clone());
            }
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy();
            found.insert(format!("/{}", name.trim_start_matches("./")), words(&path, &meta)?);
        }
    }
    Ok(found)
}

fn words(path: &Path, meta: &fs::Metadata) -> io::Result<String> {
    let kind = meta.file_type();
    if kind.is_symlink() {
        return Ok(format!("link to {}", fs::read_link(path)?.display()));
    }
    let attributes = format!("{:04o} {}:{}", meta.mode() & 0o7777, meta.uid(), meta.gid());
    Ok(if kind.is_dir() {
        format!("directory {attributes}")
    } else if kind.is_file() {
        format!("file {attributes} {} bytes {}", meta.len(), &content(path)?[..16])
    } else if kind.is_char_device() || kind.is_block_device() {
        format!("device {attributes} {:x}", meta.rdev())
    } else {
        format!("special {attributes}")
    })
}

/// The digest of a file's content: its object's, or that of the bytes in the metadata itself.
fn content(path: &Path) -> io::Result<String> {
    /// `struct ovl_metacopy` with a sha256: four bytes of head, then the digest.
    const BYTES: usize = 36;
    let mut value = [0; BYTES];
    match rustix::fs::lgetxattr(path, "trusted.overlay.metacopy", &mut value) {
        Ok(BYTES) => Ok(ObjectDigest(Sha256(value[4..].try_into().expect("32 bytes"))).hex()),
        _ => Ok(Sha256::of(&fs::read(path)?).hex()),
    }
}
