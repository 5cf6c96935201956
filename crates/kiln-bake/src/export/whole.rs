//! An image as a file system that needs nothing else: EROFS with all contents inside.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::{ExportError, Stored};
use crate::erofs;

/// Writes the image as an EROFS file system to `path`, which must not be there yet; its size in bytes.
///
/// # Errors
/// If it is there, or cannot be written.
pub fn to_erofs(image: &Stored<'_>, path: &Path) -> Result<u64, ExportError> {
    ExportError::if_there(path)?;
    image.check_whole()?;
    let whole = erofs::write_whole(&image.tree)?;
    super::oci::new_file(path, |file: &mut File| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.write_all(&whole.bytes)?;
        for (digest, size) in &whole.contents {
            let mut object = image.store.objects().open(digest).map_err(io::Error::other)?;
            if io::copy(&mut object, &mut out)? != *size {
                return Err(io::Error::other(format!("the object {digest} is not {size} bytes long")));
            }
            out.write_all(&[0; erofs::BLOCK][..erofs::padding(*size)])?;
        }
        out.flush()
    })
}
