//! Files with holes, read without reading the holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// A part of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stretch<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// So many zeroes.
    Zeroes(u64),
}

/// A file that is read from its beginning to its end, stretch by stretch.
#[derive(Debug)]
pub(crate) struct SparseFile<'f> {
    file: &'f File,
    at: u64,
    /// Where the next hole begins, or may begin.
    hole: u64,
}

impl<'f> SparseFile<'f> {
    /// For a file that can be sought in. Where that stands changes.
    ///
    /// # Errors
    /// What the system refused.
    pub(crate) fn new(file: &'f File) -> io::Result<Self> {
        let meta = file.metadata()?;
        // st_blocks counts 512 bytes each on every file system.
        let is_sparse = meta.blocks().saturating_mul(512) < meta.len();
        Ok(Self { file, at: 0, hole: if is_sparse { 0 } else { u64::MAX } })
    }

    /// What comes next, at most as much as `buffer` holds unless it is a hole; nothing at the end.
    ///
    /// # Errors
    /// What the system refused.
    pub(crate) fn next<'b>(&mut self, buffer: &'b mut [u8]) -> io::Result<Option<Stretch<'b>>> {
        let zeroes = if self.at == self.hole { self.pass_hole()? } else { 0 };
        if zeroes > 0 {
            return Ok(Some(Stretch::Zeroes(zeroes)));
        }
        let most = buffer.len().min(usize::try_from(self.hole - self.at).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += read as u64;
        Ok((read > 0).then_some(Stretch::Bytes(&buffer[..read])))
    }

    /// How long the hole is that begins here, if one does; goes behind it, and finds out where the next one begins.
    fn pass_hole(&mut self) -> io::Result<u64> {
        let begun = self.at;
        match seek(self.file, SeekFrom::Data(begun)) {
            Ok(data) => {
                self.at = data;
                self.hole = seek(self.file, SeekFrom::Hole(data))?;
            }
            // No data from here on.
            Err(Errno::NXIO) => {
                self.at = self.file.metadata()?.len().max(begun);
                self.hole = self.at;
            }
            // A file system that does not tell.
            Err(Errno::INVAL) => self.hole = u64::MAX,
            Err(error) => return Err(error.into()),
        }
        Ok(self.at - begun)
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    fn in_memory() -> File {
        File::from(memfd_create("sparse", MemfdFlags::CLOEXEC).unwrap())
    }

    #[test]
    fn bytes_and_holes_together_are_the_file() {
        const HOLE: u64 = 1 << 20;
        let file = in_memory();
        for at in [HOLE, HOLE + 5000, 3 * HOLE] {
            file.write_all_at(&[7; 5000], at).unwrap();
        }
        for end in [3 * HOLE + 5000, 5 * HOLE + 1, 2 * HOLE, 0] {
            file.set_len(end).unwrap();
            let mut expected = vec![0; end as usize];
            file.read_exact_at(&mut expected, 0).unwrap();
            let (mut found, mut read, mut buffer) = (Vec::new(), 0, [0; 3000]);
            let mut sparse = SparseFile::new(&file).unwrap();
            while let Some(stretch) = sparse.next(&mut buffer).unwrap() {
                match stretch {
                    Stretch::Bytes(bytes) => {
                        read += bytes.len();
                        found.extend_from_slice(bytes);
                    }
                    Stretch::Zeroes(n) => found.resize(found.len() + n as usize, 0),
                }
            }
            assert!(found == expected, "{end} bytes");
            assert!(read < 40_000, "{read} of {end} bytes were read");
        }
    }

    #[test]
    fn a_file_without_holes_is_read_to_its_end() {
        let file = in_memory();
        file.write_all_at(&[7; 10_000], 0).unwrap();
        let (mut sparse, mut buffer) = (SparseFile::new(&file).unwrap(), [0; 8192]);
        assert_eq!(sparse.next(&mut buffer).unwrap(), Some(Stretch::Bytes(&[7; 8192])));
        assert_eq!(sparse.next(&mut buffer).unwrap(), Some(Stretch::Bytes(&[7; 1808])));
        assert_eq!(sparse.next(&mut buffer).unwrap(), None);
    }
}
