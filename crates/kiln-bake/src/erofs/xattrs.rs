//! Extended attributes, as they follow the head of an inode.
//!
//! ```text
//!   12 bytes   zeroes (no filter, none shared)
//!   then each: name length (1), namespace (1), value length (2), name without namespace, value, zeroes up to 4
//! ```

use kiln_model::{ObjectDigest, Xattrs, hex_pair};

use super::Contents;
use super::limits::Problem;
use super::pen::Pen;

pub(super) const HEADER: usize = 12;
/// What the inode's 16-bit count of 4-byte units allows.
const MAX_SIZE: usize = HEADER + 4 * (u16::MAX as usize - 1);
/// XATTR_NAME_MAX.
const MAX_NAME: usize = 255;
/// XATTR_LIST_MAX: the kernel lists no more names, each with its NUL.
const MAX_LIST: usize = 65536;

/// The two that lead to an object: 4 bytes of head and 16 of name each, values of 36 and 66 bytes, the latter filled up.
const TO_OBJECT: usize = 20 + 36 + 20 + 68;

const USER: u8 = 1;
const ACL_ACCESS: u8 = 2;
const ACL_DEFAULT: u8 = 3;
const TRUSTED: u8 = 4;
const SECURITY: u8 = 6;

/// Names that say all by themselves.
pub(super) const WHOLE: [(&[u8], u8); 2] =
    [(b"system.posix_acl_access", ACL_ACCESS), (b"system.posix_acl_default", ACL_DEFAULT)];
pub(super) const PREFIXES: [(&[u8], u8); 3] =
    [(b"user.", USER), (b"trusted.", TRUSTED), (b"security.", SECURITY)];

pub(super) const OVERLAY: &[u8] = b"trusted.overlay.";

/// Whether there are POSIX ACLs among `xattrs`.
pub(super) fn have_acl(xattrs: &Xattrs) -> bool {
    WHOLE.iter().any(|(name, _)| xattrs.contains_key(*name))
}

/// Whether there are some among `xattrs` that are written under another name.
pub(super) fn are_escaped(xattrs: &Xattrs) -> bool {
    xattrs.keys().any(|name| name.starts_with(OVERLAY))
}

/// The xattrs of an inode: its own, encoded, and the object that two more lead overlayfs to. Those two are made when they
/// are written, and not kept: almost every file has them.
pub(super) struct Attributes {
    object: Option<ObjectDigest>,
    own: Vec<u8>,
}

impl Attributes {
    pub(super) fn of(
        xattrs: &Xattrs,
        object: Option<ObjectDigest>,
        contents: Contents,
    ) -> Result<Self, Problem> {
        let mut own = Vec::new();
        // Overlayfs lists them all before it hides its own two.
        let mut listed = 2 * (OVERLAY.len() + "metacopy".len() + 1);
        for (name, value) in xattrs {
            // What no overlayfs will read is written as it is.
            let name = if contents == Contents::Outside { escaped(name) } else { name.clone() };
            listed += name.len() + 1;
            if name.len() > MAX_NAME || listed > MAX_LIST {
                return Err("the names of its xattrs are too long: 255 bytes each, 64 KiB in all");
            }
            let (namespace, rest) = namespace(&name)?;
            push(&mut own, namespace, rest, value)?;
        }
        let attributes = Self { object, own };
        if attributes.length() > MAX_SIZE { Err("its xattrs are more than 256 KiB") } else { Ok(attributes) }
    }

    /// How many bytes they take.
    pub(super) fn length(&self) -> usize {
        match (self.object, self.own.len()) {
            (None, 0) => 0,
            (None, own) => HEADER + own,
            (Some(_), own) => HEADER + TO_OBJECT + own,
        }
    }

    /// The inode's count of them.
    pub(super) fn count(&self) -> u16 {
        match self.length() {
            0 => 0,
            length => ((length - HEADER) / 4 + 1) as u16,
        }
    }

    pub(super) fn write(&self, pen: &mut Pen<'_>) {
        if self.length() == 0 {
            return;
        }
        pen.skip(HEADER);
        if let Some(digest) = &self.object {
            for (name, value) in
                [(b"overlay.metacopy", &metacopy(digest)[..]), (b"overlay.redirect", &redirect(digest)[..])]
            {
                pen.push(&[name.len() as u8, TRUSTED, value.len() as u8, 0]);
                pen.push(name);
                pen.push(value);
                pen.skip(value.len().next_multiple_of(4) - value.len());
            }
        }
        pen.push(&self.own);
    }
}

/// What overlayfs reads as its own is escaped, so that it shows it as the file's.
fn escaped(name: &[u8]) -> Vec<u8> {
    match name.strip_prefix(OVERLAY) {
        Some(rest) => [OVERLAY, b"overlay.", rest].concat(),
        None => name.to_vec(),
    }
}

fn namespace(name: &[u8]) -> Result<(u8, &[u8]), Problem> {
    if name.contains(&0) {
        return Err("the name of an xattr has a NUL byte");
    }
    if let Some((_, namespace)) = WHOLE.iter().find(|(whole, _)| *whole == name) {
        return Ok((*namespace, b""));
    }
    let split = |(prefix, namespace): &(&[u8], u8)| Some((*namespace, name.strip_prefix(*prefix)?));
    match PREFIXES.iter().find_map(split) {
        Some((_, b"")) => Err("an xattr has a namespace and no name"),
        Some(found) => Ok(found),
        None => Err("an xattr is not in user., trusted., security. or one of the POSIX ACLs"),
    }
}

fn push(out: &mut Vec<u8>, namespace: u8, name: &[u8], value: &[u8]) -> Result<(), Problem> {
    let length =
        u16::try_from(value.len()).map_err(|_| "the value of an xattr is longer than 65535 bytes")?;
    out.extend([name.len() as u8, namespace]);
    out.extend(length.to_le_bytes());
    out.extend(name);
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
    Ok(())
}

/// `struct ovl_metacopy`: version 0, its length, no flags, FS_VERITY_HASH_ALG_SHA256, the digest.
pub(super) fn metacopy(digest: &ObjectDigest) -> [u8; 36] {
    let mut value = [0; 36];
    value[..4].copy_from_slice(&[0, 36, 0, 1]);
    value[4..].copy_from_slice(&digest.0.0);
    value
}

/// `/xx/yyyy…`: where the object is among the others. Every file of an image asks for it.
pub(super) fn redirect(digest: &ObjectDigest) -> [u8; 66] {
    let mut path = [b'/'; 66];
    for (n, byte) in digest.0.0.iter().enumerate() {
        let at = if n == 0 { 1 } else { 2 + 2 * n };
        path[at..at + 2].copy_from_slice(&hex_pair(*byte));
    }
    path
}
