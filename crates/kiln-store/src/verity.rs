//! The fs-verity digest of a file, computed as it streams by.
//!
//! ```text
//!   data      ████ ████ ████ …  ██..      4 KiB blocks, the last one filled up with zeroes
//!               │    │    │       │       sha256 of each
//!   level 1   ████████████████ … ██..     128 hashes a block, again filled up
//!               ⋮                         until a level has one block; its sha256 is the root hash
//!   digest  = sha256(descriptor: version 1, sha256, block size 2^12, no salt, data size, root hash)
//! ```
//! No data: the root hash is all zeroes. One block of data: it is that block's sha256.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

use kiln_model::{ObjectDigest, Sha256};
use sha2::Digest as _;

use crate::side_by_side::each;
use crate::sparse::{SparseFile, Stretch};

const BLOCK: usize = 4096;

/// From this size on a second thread is worth its start.
const LARGE: usize = 512 << 10;
/// The hash of a block of zeroes, which files with holes have millions of.
static OF_ZEROES: LazyLock<[u8; 32]> = LazyLock::new(|| sha2::Sha256::digest(ZEROES).into());
static ZEROES: [u8; BLOCK] = [0; BLOCK];

/// So much is read and hashed at once.
const PART: usize = 64 << 10;

/// A level's last block, which is not hashed before more follows it: the top of the tree is the level that never
/// had more than one.
struct Level {
    block: Box<[u8; BLOCK]>,
    filled: usize,
}

impl Level {
    fn new() -> Self {
        Self { block: Box::new([0; BLOCK]), filled: 0 }
    }

    /// The hash of the block, filled up with zeroes; empties it.
    fn take_hash(&mut self) -> [u8; 32] {
        self.block[self.filled..].fill(0);
        self.filled = 0;
        sha2::Sha256::digest(self.block.as_slice()).into()
    }
}

/// The hash of a whole block.
fn hash(block: &[u8]) -> [u8; 32] {
    if block == ZEROES { *OF_ZEROES } else { sha2::Sha256::digest(block).into() }
}

/// Computes the digest that names an object, from its bytes in order. Uses 4 KiB per level: 20 KiB for a terabyte.
pub struct Verity {
    size: u64,
    levels: Vec<Level>,
}

impl Verity {
    /// For a file of which nothing has been seen yet.
    #[allow(clippy::new_without_default, reason = "nothing asks for a default digest")]
    pub fn new() -> Self {
        Self { size: 0, levels: vec![Level::new()] }
    }

    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> ObjectDigest {
        if bytes.len() < LARGE {
            let mut verity = Self::new();
            verity.update(bytes);
            return verity.finish();
        }
        let part = |range: Range<usize>| Ok::<_, Infallible>(Cow::Borrowed(&bytes[range]));
        let Ok(digest) = Self::in_parts(bytes.len(), part);
        digest
    }

    /// The digest of a file and its size. Its holes are not read. `look` is asked before each part whether to go on.
    ///
    /// # Errors
    /// What the system refused, or what `look` came to.
    pub fn of_sparse(file: &File, look: &dyn Fn() -> io::Result<()>) -> io::Result<(ObjectDigest, u64)> {
        let (mut verity, mut sparse, mut buffer) = (Self::new(), SparseFile::new(file)?, vec![0; PART]);
        while let Some(stretch) = look().and_then(|()| sparse.next(&mut buffer))? {
            verity.take(stretch);
        }
        let size = verity.size();
        Ok((verity.finish(), size))
    }

    /// The digest of a file of `size` bytes.
    pub(crate) fn of_file(file: &File, size: u64) -> io::Result<ObjectDigest> {
        let size = usize::try_from(size).map_err(io::Error::other)?;
        Self::in_parts(size, |range| {
            let mut bytes = vec![0; range.len()];
            file.read_exact_at(&mut bytes, range.start as u64)?;
            Ok(Cow::Owned(bytes))
        })
    }

    /// The digest of `size` bytes, whose blocks are hashed side by side: they do not need each other's hashes.
    fn in_parts<'b, E: Send>(
        size: usize,
        part: impl Fn(Range<usize>) -> Result<Cow<'b, [u8]>, E> + Sync,
    ) -> Result<ObjectDigest, E> {
        // All blocks with more behind them.
        let whole = size.saturating_sub(1) / BLOCK * BLOCK;
        let hashes = |_: usize, start: &usize| -> Result<Vec<u8>, E> {
            let blocks = part(*start..whole.min(start + PART))?;
            Ok(blocks.chunks(BLOCK).flat_map(hash).collect())
        };
        let starts: Vec<usize> = (0..whole).step_by(PART).collect();
        let mut verity = Self::new();
        for hashes in each(&starts, LARGE / PART, hashes)? {
            verity.push(1, &hashes);
        }
        verity.size = whole as u64;
        verity.update(&part(whole..size)?);
        Ok(verity.finish())
    }

    /// How many bytes it has seen.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.push(0, bytes);
    }

    /// Takes the next part of the file. A hole costs no more than its length has digits.
    pub(crate) fn take(&mut self, stretch: Stretch<'_>) {
        match stretch {
            Stretch::Bytes(bytes) => self.update(bytes),
            Stretch::Zeroes(zeroes) => {
                self.size += zeroes;
                self.push_alike(0, &[0], zeroes);
            }
        }
    }

    /// As `push` of `count` times `unit`, of which a whole number makes a block.
    fn push_alike(&mut self, level: usize, unit: &[u8], mut count: u64) {
        if self.levels.len() == level {
            self.levels.push(Level::new());
        }
        let per_block = (BLOCK / unit.len()) as u64;
        while count > 0 {
            let here = &mut self.levels[level];
            if here.filled == BLOCK {
                let hash = here.take_hash();
                self.push(level + 1, &hash);
            } else if here.filled == 0 && count > per_block {
                // All but the last block are whole and alike, and so are their hashes.
                let blocks = (count - 1) / per_block;
                let hash = hash(&unit.repeat(BLOCK / unit.len()));
                self.push_alike(level + 1, &hash, blocks);
                count -= blocks * per_block;
            } else {
                let n = count.min(((BLOCK - here.filled) / unit.len()) as u64) as usize;
                here.block[here.filled..here.filled + n * unit.len()].copy_from_slice(&unit.repeat(n));
                here.filled += n * unit.len();
                count -= n as u64;
            }
        }
    }

    fn push(&mut self, level: usize, mut bytes: &[u8]) {
        if self.levels.len() == level {
            self.levels.push(Level::new());
        }
        while !bytes.is_empty() {
            let here = &mut self.levels[level];
            if here.filled == BLOCK {
                let hash = here.take_hash();
                self.push(level + 1, &hash);
            } else if here.filled == 0 && bytes.len() > BLOCK {
                // A whole block with more behind it need not be copied.
                let hash = hash(&bytes[..BLOCK]);
                bytes = &bytes[BLOCK..];
                self.push(level + 1, &hash);
            } else {
                let n = bytes.len().min(BLOCK - here.filled);
                here.block[here.filled..here.filled + n].copy_from_slice(&bytes[..n]);
                here.filled += n;
                bytes = &bytes[n..];
            }
        }
    }

    /// The digest of all bytes seen.
    pub fn finish(mut self) -> ObjectDigest {
        let root = self.root_hash();
        let mut descriptor = [0; 256];
        descriptor[..3].copy_from_slice(&[1, 1, 12]);
        descriptor[8..16].copy_from_slice(&self.size.to_le_bytes());
        descriptor[16..48].copy_from_slice(&root);
        ObjectDigest(Sha256::of(&descriptor))
    }

    fn root_hash(&mut self) -> [u8; 32] {
        if self.size == 0 {
            return [0; 32];
        }
        let mut level = 0;
        loop {
            let hash = self.levels[level].take_hash();
            level += 1;
            if level == self.levels.len() {
                return hash;
            }
            self.push(level, &hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use rustix::fs::MemfdFlags;

    use super::*;

    /// What `fsverity digest` prints for the first `size` bytes of 0, 1, 2, … 250, 0, 1, …
    const VECTORS: [(usize, &str); 11] = [
        (0, "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95"),
        (1, "b803429503d95915829b29fdbc8bbad142f3abfd11b1cadf5526582e685c0551"),
        (4_095, "5f4953aad672b0188023d6cd6fbce9d09508eb7dad165b6298ce0086bc1e72db"),
        (4_096, "13e9b8848ae484a36acb3f3cac0ceb2f7601e96633d15c92f9bd3dd44e492157"),
        (4_097, "b0d074abef4d544404facfab6ba242f6a8ccbde90f1325cd286f3c8aa8d0f8aa"),
        (8_192, "e48d50c56c4f0178a98a035cb91d66be328eeff78bbddaa35c5ec4cc0d8340c0"),
        (524_288, "d82861203d50ae9b60948504a704f35f5118bd229aeb1a22d6dae47b1767c4c4"),
        (524_289, "4dc6905041c9c4ee73e13b53f63f5d289c46da359b664a965ead7f8cc4d799d4"),
        (600_000, "06d5be5c1f84f55006b5826aec720b80e5d95f30e170be7e1d6aae61755f1ae4"),
        (67_108_864, "196650e8bd05f8516c0ede56deeb4d1ff2be9809dc2d827261db4a7773957567"),
        (67_108_865, "acba6554fbff4e8b2fc0361086b9e8ed6afbbd3196ade159c0f3e2bf9ecb2ed1"),
    ];

    fn bytes(size: usize) -> Vec<u8> {
        (0..size).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn digests_are_those_of_the_reference_tool() {
        for (size, expected) in VECTORS {
            assert_eq!(Verity::of(&bytes(size)).hex(), expected, "{size} bytes");
        }
    }

    /// Against the definition, with each block hashed.
    #[test]
    fn a_hole_has_the_digest_of_its_zeroes() {
        let mut verity = Verity::new();
        let zeroes = vec![0; 1 << 20];
        (0..4).for_each(|_| verity.update(&zeroes));
        let plain = |bytes: &[u8]| {
            let mut level: Vec<u8> = bytes.to_vec();
            while level.len() > 32 {
                level.resize(level.len().next_multiple_of(BLOCK), 0);
                level = level.chunks(BLOCK).flat_map(|b| <[u8; 32]>::from(sha2::Sha256::digest(b))).collect();
            }
            level
        };
        let mut descriptor = [0; 256];
        descriptor[..3].copy_from_slice(&[1, 1, 12]);
        descriptor[8..16].copy_from_slice(&(4_u64 << 20).to_le_bytes());
        descriptor[16..48].copy_from_slice(&plain(&vec![0; 4 << 20]));
        assert_eq!(verity.finish().0, Sha256::of(&descriptor));
        assert_eq!(Verity::of(&vec![0; 4 << 20]).0, Sha256::of(&descriptor));
    }

    #[test]
    fn a_hole_that_is_passed_over_is_its_zeroes() {
        const MOST: usize = 128 * BLOCK;
        for (before, hole, behind) in [
            (0, 1, 0),
            (0, BLOCK, 0),
            (0, BLOCK + 1, 0),
            (0, MOST, 1),
            (1, MOST, 0),
            (BLOCK, 2 * MOST - BLOCK, BLOCK),
            (BLOCK - 1, MOST + 3, 5),
            (3 * BLOCK, 3 * MOST + 7, 2 * MOST),
        ] {
            let (mut verity, mut plain) = (Verity::new(), Verity::new());
            let bytes = bytes(before.max(behind));
            verity.take(Stretch::Bytes(&bytes[..before]));
            verity.take(Stretch::Zeroes(hole as u64));
            verity.take(Stretch::Bytes(&bytes[..behind]));
            [&bytes[..before], &vec![0; hole], &bytes[..behind]].into_iter().for_each(|b| plain.update(b));
            assert_eq!(verity.size(), plain.size());
            assert_eq!(verity.finish(), plain.finish(), "{before}, {hole}, {behind}");
        }
    }

    #[test]
    fn the_pieces_it_comes_in_make_no_difference() {
        let whole = bytes(600_000);
        for piece in [1, 4095, 4096, 4097, 8192, 100_000] {
            let mut verity = Verity::new();
            whole.chunks(piece).for_each(|c| verity.update(c));
            assert_eq!(verity.size(), 600_000);
            assert_eq!(verity.finish(), Verity::of(&whole), "pieces of {piece}");
        }
    }

    #[test]
    fn a_file_has_the_digest_of_its_bytes() {
        let mut file = File::from(rustix::fs::memfd_create("bytes", MemfdFlags::CLOEXEC).unwrap());
        let most = bytes(3 * LARGE);
        file.write_all(&most).unwrap();
        for size in [0, 1, 4096, PART, PART + 1, LARGE + 4096, most.len() - 1, most.len()] {
            let of_file = Verity::of_file(&file, size as u64).unwrap();
            let mut verity = Verity::new();
            verity.update(&most[..size]);
            assert_eq!(of_file, verity.finish(), "{size} bytes");
        }
        assert!(Verity::of_file(&file, most.len() as u64 + 1).is_err(), "it ends before");
    }
}
