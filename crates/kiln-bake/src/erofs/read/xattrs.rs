//! Extended attributes back from what follows the head of an inode.

use kiln_model::{ObjectDigest, Sha256, Xattrs};

use super::super::xattrs::{HEADER, OVERLAY, PREFIXES, WHOLE, metacopy, redirect};
use super::BadImage;
use super::bytes::{Bytes, number};
use super::inode::Found;

/// The xattrs at `offset`; `count` is how the inode gives their length.
pub(super) fn read(bytes: &mut Bytes<'_>, offset: usize, count: u16) -> Result<Found, BadImage> {
    let Some(rest) = usize::from(count).checked_sub(1) else {
        return Ok(Found { own: Xattrs::new(), object: None, length: 0 });
    };
    let length = HEADER + 4 * rest;
    let (header, mut entries) = bytes.once(offset, length)?.split_at(HEADER);
    if header.iter().any(|b| *b != 0) {
        return Err(BadImage::at(offset, "its xattrs are filtered or shared"));
    }
    let mut all = Xattrs::new();
    while !entries.is_empty() {
        let (name, value, after) =
            entry(entries).ok_or_else(|| BadImage::at(offset, "its xattrs are damaged"))?;
        if all.insert(name, value).is_some() {
            return Err(BadImage::at(offset, "it has an xattr twice"));
        }
        entries = after;
    }
    let object =
        object(&mut all).ok_or_else(|| BadImage::at(offset, "its content is where Kiln puts none"))?;
    let own =
        all.into_iter().map(|(name, value)| Some((unescaped(name)?, value))).collect::<Option<Xattrs>>();
    let own = own.ok_or_else(|| BadImage::at(offset, "it tells overlayfs more than Kiln does"))?;
    Ok(Found { own, object, length })
}

/// The first xattr of `entries`, and what follows it.
fn entry(entries: &[u8]) -> Option<(Vec<u8>, Vec<u8>, &[u8])> {
    let (head, rest) = entries.split_at_checked(4)?;
    let (name, rest) = rest.split_at_checked(usize::from(head[0]))?;
    let (value, _) = rest.split_at_checked(number::<2>(head, 2) as usize)?;
    let length = (4 + name.len() + value.len()).next_multiple_of(4);
    let whole = WHOLE.iter().find(|(_, namespace)| *namespace == head[1]);
    let prefix = PREFIXES.iter().find(|(_, namespace)| *namespace == head[1]);
    let name = match (whole, prefix) {
        (Some((whole, _)), _) if name.is_empty() => whole.to_vec(),
        (_, Some((prefix, _))) if !name.is_empty() && !name.contains(&0) => [prefix, name].concat(),
        _ => return None,
    };
    Some((name, value.to_vec(), entries.get(length..)?))
}

/// Takes out what leads overlayfs to the content: both of it, and of one object, or neither.
fn object(all: &mut Xattrs) -> Option<Option<ObjectDigest>> {
    let taken = (
        all.remove([OVERLAY, b"metacopy"].concat().as_slice()),
        all.remove([OVERLAY, b"redirect"].concat().as_slice()),
    );
    match taken {
        (None, None) => Some(None),
        (Some(copy), Some(to)) => {
            let digest = ObjectDigest(Sha256(copy.get(4..)?.try_into().ok()?));
            (copy == metacopy(&digest) && to == redirect(&digest)).then_some(Some(digest))
        }
        _ => None,
    }
}

/// An escaped name as the file's own; nothing if it speaks to overlayfs.
fn unescaped(name: Vec<u8>) -> Option<Vec<u8>> {
    match name.strip_prefix(OVERLAY) {
        None => Some(name),
        Some(rest) => rest.strip_prefix(b"overlay.").map(|own| [OVERLAY, own].concat()),
    }
}
