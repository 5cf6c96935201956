//! Trees as bytes, for the caches of the store. Read back at every bake, so it is a plain walk through memory.
//!
//! ```text
//! file  := "kiln tree 1\n" count:varint node*
//! node  := shared:varint suffix:bytes kind:u8 body      paths in byte order, each after the one before it
//! body  := meta                                        directory (0), fifo (6), socket (7)
//!        | meta bytes                                  file with its content inside (1), symlink (3)
//!        | meta digest:32 size:varint                  file whose content is an object (2)
//!        | meta major:varint minor:varint              character (4) or block (5) device
//!        | bytes                                       a further name of the file at that path (8)
//! meta  := mode:varint uid:varint gid:varint mtime:varint(zigzag) n:varint (name:bytes value:bytes)*n
//! bytes := length:varint byte*
//! ```

use kiln_model::{Content, Meta, Node, ObjectDigest, Sha256, Tree, Xattrs};

const MAGIC: &[u8] = b"kiln tree 1\n";

/// Bytes that are not a tree. What is cached can be made again, so no more need be said.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a tree file of this version")]
pub(crate) struct BadTreeFile;

/// The bytes of `tree`; the same tree gives the same bytes.
pub(crate) fn encode(tree: &Tree) -> Vec<u8> {
    let mut out = Vec::with_capacity(tree.len() * 96);
    out.extend_from_slice(MAGIC);
    put_number(&mut out, tree.len() as u64);
    let mut before: &[u8] = b"";
    for (path, node) in tree.iter() {
        let shared = path.iter().zip(before).take_while(|(a, b)| a == b).count();
        put_number(&mut out, shared as u64);
        put_bytes(&mut out, &path[shared..]);
        put_node(&mut out, node);
        before = path;
    }
    out
}

/// The tree that `bytes` hold.
pub(crate) fn decode(bytes: &[u8]) -> Result<Tree, BadTreeFile> {
    let mut rest = Reader(bytes.strip_prefix(MAGIC).ok_or(BadTreeFile)?);
    let count = rest.number()?;
    // A node takes four bytes at least: a count that lies takes no memory.
    let most = rest.0.len() / 4;
    let mut nodes = Vec::with_capacity(usize::try_from(count).map_or(most, |n| n.min(most)));
    let mut path: Vec<u8> = Vec::new();
    for _ in 0..count {
        let shared = usize::try_from(rest.number()?).ok().filter(|n| *n <= path.len()).ok_or(BadTreeFile)?;
        path.truncate(shared);
        path.extend_from_slice(rest.bytes()?);
        let node = rest.node()?;
        nodes.push((path.clone(), node));
    }
    if rest.0.is_empty() { Tree::of(nodes).map_err(|_| BadTreeFile) } else { Err(BadTreeFile) }
}

fn put_number(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_meta(out: &mut Vec<u8>, kind: u8, meta: &Meta) {
    out.push(kind);
    put_number(out, meta.mode.into());
    put_number(out, meta.uid.into());
    put_number(out, meta.gid.into());
    put_number(out, ((meta.mtime << 1) ^ (meta.mtime >> 63)) as u64);
    put_number(out, meta.xattrs.len() as u64);
    for (name, value) in &meta.xattrs {
        put_bytes(out, name);
        put_bytes(out, value);
    }
}

fn put_node(out: &mut Vec<u8>, node: &Node) {
    match node {
        Node::Directory(meta) => put_meta(out, 0, meta),
        Node::File(meta, Content::Inline(bytes)) => {
            put_meta(out, 1, meta);
            put_bytes(out, bytes);
        }
        Node::File(meta, Content::Object { digest, size }) => {
            put_meta(out, 2, meta);
            out.extend_from_slice(&digest.0.0);
            put_number(out, *size);
        }
        Node::Symlink(meta, target) => {
            put_meta(out, 3, meta);
            put_bytes(out, target);
        }
        Node::CharDevice(meta, major, minor) => put_device(out, 4, meta, *major, *minor),
        Node::BlockDevice(meta, major, minor) => put_device(out, 5, meta, *major, *minor),
        Node::Fifo(meta) => put_meta(out, 6, meta),
        Node::Socket(meta) => put_meta(out, 7, meta),
        Node::Hardlink(target) => {
            out.push(8);
            put_bytes(out, target);
        }
    }
}

fn put_device(out: &mut Vec<u8>, kind: u8, meta: &Meta, major: u32, minor: u32) {
    put_meta(out, kind, meta);
    put_number(out, major.into());
    put_number(out, minor.into());
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Result<u64, BadTreeFile> {
        let mut n = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(BadTreeFile)?;
            self.0 = rest;
            n |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(BadTreeFile)
    }

    fn small<T: TryFrom<u64>>(&mut self) -> Result<T, BadTreeFile> {
        T::try_from(self.number()?).map_err(|_| BadTreeFile)
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], BadTreeFile> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(BadTreeFile)?;
        self.0 = rest;
        Ok(taken)
    }

    fn bytes(&mut self) -> Result<&'a [u8], BadTreeFile> {
        let n = self.small()?;
        self.take(n)
    }

    fn meta(&mut self) -> Result<Meta, BadTreeFile> {
        let (mode, uid, gid) = (self.small()?, self.small()?, self.small()?);
        let zigzag = self.number()?;
        let mtime = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        let mut xattrs = Xattrs::new();
        for _ in 0..self.number()? {
            xattrs.insert(self.bytes()?.to_vec(), self.bytes()?.to_vec());
        }
        Ok(Meta { mode, uid, gid, mtime, xattrs })
    }

    fn node(&mut self) -> Result<Node, BadTreeFile> {
        Ok(match self.take(1)?[0] {
            0 => Node::Directory(self.meta()?),
            1 => Node::File(self.meta()?, Content::Inline(self.bytes()?.to_vec())),
            2 => {
                let meta = self.meta()?;
                let digest = self.take(32)?.try_into().map_err(|_| BadTreeFile)?;
                Node::File(
                    meta,
                    Content::Object { digest: ObjectDigest(Sha256(digest)), size: self.number()? },
                )
            }
            3 => Node::Symlink(self.meta()?, self.bytes()?.to_vec()),
            4 => Node::CharDevice(self.meta()?, self.small()?, self.small()?),
            5 => Node::BlockDevice(self.meta()?, self.small()?, self.small()?),
            6 => Node::Fifo(self.meta()?),
            7 => Node::Socket(self.meta()?),
            8 => Node::Hardlink(self.bytes()?.to_vec()),
            _ => return Err(BadTreeFile),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Tree {
        let meta = |mode, mtime| Meta {
            mode,
            uid: 33,
            gid: u32::MAX,
            mtime,
            xattrs: [(b"user.a".to_vec(), vec![0, 255])].into(),
        };
        let mut tree = Tree::new();
        let object = Content::Object { digest: ObjectDigest(Sha256::of(b"x")), size: u64::MAX };
        for (path, node) in [
            ("/", Node::Directory(meta(0o755, 0))),
            ("/a", Node::Directory(meta(0o7777, i64::MIN))),
            ("/a/b", Node::File(meta(0o644, -1), Content::Inline(b"hello".to_vec()))),
            ("/a/c", Node::File(meta(0o644, i64::MAX), object)),
            ("/a/d", Node::Symlink(meta(0o777, 1), b"../b".to_vec())),
            ("/a/e", Node::Hardlink(b"/a/b".to_vec())),
            ("/b", Node::CharDevice(meta(0, 1), 1, 3)),
            ("/c", Node::BlockDevice(meta(0, 1), 8, 1 << 19)),
            ("/d", Node::Fifo(meta(0, 1))),
            ("/e", Node::Socket(meta(0, 1))),
        ] {
            tree.insert(path, node).unwrap();
        }
        tree
    }

    #[test]
    fn bytes_and_back() {
        let bytes = encode(&sample());
        assert_eq!(decode(&bytes).unwrap(), sample());
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), Err(BadTreeFile), "cut at {cut}");
        }
    }

    proptest::proptest! {
        #[test]
        fn damage_never_panics(at in 12_usize..300, to in 0_u8..) {
            let mut bytes = encode(&sample());
            let at = at % bytes.len();
            bytes[at] = to;
            let _ = decode(&bytes);
        }
    }
}
