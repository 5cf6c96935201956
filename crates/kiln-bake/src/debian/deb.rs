//! A Debian package file: an `ar` archive of two tar archives, `control` and `data`.
//!
//! The bytes come from outside. They are signed for by the archive's index, and still nothing in them may leave the
//! tree, name what is not there, or grow without bound.

use std::io::{self, Read};

use kiln_model::{Content, Meta, Node, Tree, TreeError, Xattrs};
use liblzma::stream::{CONCATENATED, Stream};

use super::ar::Archive;
use crate::packed::{self, BadEntry, Entries, Entry, MOST_ENTRIES, normal};

/// A package may unpack to this many bytes.
const LARGEST_DATA: u64 = 16 << 30;
/// A package may always unpack to this many bytes, and beyond it to so many times its size.
const ALWAYS_ALLOWED: u64 = 64 << 20;
const MOST_GROWTH: u64 = 200;
/// The control part may unpack to this many bytes.
const LARGEST_CONTROL: u64 = 64 << 20;
/// Decompressing may take this much memory: what `xz -9` needs, twice.
const XZ_MEMORY: u64 = 128 << 20;

/// A package file that cannot be used, and where it goes wrong.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// It cannot be read, or is damaged where a decompressor notices.
    #[error("could not read {part}")]
    Read {
        /// Which part of the package.
        part: &'static str,
        /// What happened.
        source: io::Error,
    },
    /// It is not made as a package is.
    #[error("{0}")]
    Shape(String),
    /// It holds a path that no image can have.
    #[error("it holds an impossible path")]
    Path(#[from] TreeError),
    /// The content of a file could not be kept.
    #[error("could not keep the content of {path}")]
    Keep {
        /// The file.
        path: String,
        /// Why not.
        source: io::Error,
    },
}

impl From<BadEntry> for DebError {
    fn from(BadEntry(problem): BadEntry) -> Self {
        Self::Shape(problem)
    }
}

/// What takes the contents of files.
pub(crate) trait Sink {
    /// Keeps all that `content` gives, `size` bytes.
    fn keep(&self, content: &mut dyn Read, size: u64) -> io::Result<Content>;
}

/// A package, unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Deb {
    /// The control files by name (`/control`, `/postinst`, …), contents inside.
    pub(crate) control: Tree,
    /// The tree it ships.
    pub(crate) data: Tree,
}

/// The most that the data of a package file of `size` bytes may unpack to. Real ones unpack to ten or twenty times
/// their size; xz turns a thousandth of it into a full disk.
pub(crate) fn most_data(size: u64) -> u64 {
    size.saturating_mul(MOST_GROWTH).clamp(ALWAYS_ALLOWED, LARGEST_DATA)
}

/// Unpacks a package whose data is at most `most_data` bytes; contents of files go to `sink`.
pub(crate) fn unpack(package: impl Read, most_data: u64, sink: &dyn Sink) -> Result<Deb, DebError> {
    let mut archive = Archive::open(package).map_err(read("the archive"))?;
    let mut deb = Deb::default();
    let (mut has_control, mut has_data) = (false, false);
    while let Some((name, member)) = archive.next().map_err(read("the archive"))? {
        match name.trim_end_matches('/') {
            "debian-binary" => check_version(member)?,
            n if n.starts_with("control.tar") && !has_control => {
                deb.control =
                    tar_tree(decompressed(n, member)?, "its control part", LARGEST_CONTROL, &Inside)?;
                has_control = true;
            }
            n if n.starts_with("data.tar") && !has_data => {
                deb.data = tar_tree(decompressed(n, member)?, "its data part", most_data, sink)?;
                has_data = true;
            }
            n if n.starts_with('_') => {}
            n => return Err(DebError::Shape(format!("it has an unknown or repeated member `{n}`"))),
        }
    }
    if has_control && has_data {
        Ok(deb)
    } else {
        Err(DebError::Shape("it lacks its control or data part".into()))
    }
}

fn read(part: &'static str) -> impl Fn(io::Error) -> DebError {
    move |source| DebError::Read { part, source }
}

fn check_version(mut member: impl Read) -> Result<(), DebError> {
    let mut text = [0; 4];
    member.read_exact(&mut text).map_err(read("its version"))?;
    if text.starts_with(b"2.") { Ok(()) } else { Err(DebError::Shape("it is not of format 2".into())) }
}

fn decompressed<'a>(name: &str, member: impl Read + 'a) -> Result<Box<dyn Read + 'a>, DebError> {
    match name.rsplit('.').next() {
        Some("xz") => {
            let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)
                .map_err(|e| read("its compressed part")(e.into()))?;
            Ok(Box::new(liblzma::read::XzDecoder::new_stream(member, stream)))
        }
        // One frame, as dpkg-deb writes it; the decoder refuses windows over 100 MiB.
        Some("zst") => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(member)
                .map_err(|e| read("its compressed part")(io::Error::other(e)))?;
            Ok(Box::new(decoder))
        }
        Some("gz") => Ok(Box::new(flate2::read::MultiGzDecoder::new(member))),
        Some("tar") => Ok(Box::new(member)),
        other => Err(DebError::Shape(format!(
            "its part `{name}` is compressed with {}, and packages of Debian's archive are with xz, zst or gz",
            other.unwrap_or("something")
        ))),
    }
}

/// Contents of control files stay in memory.
pub(crate) struct Inside;

impl Sink for Inside {
    fn keep(&self, content: &mut dyn Read, _size: u64) -> io::Result<Content> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        Ok(Content::Inline(bytes))
    }
}

fn tar_tree(archive: impl Read, part: &'static str, limit: u64, sink: &dyn Sink) -> Result<Tree, DebError> {
    // One byte more than allowed, so that reaching the limit shows.
    let mut archive = Entries::new(archive.take(limit + 1));
    let mut tree = Tree::new();
    let mut total = 0;
    while let Some(mut entry) = archive.next().map_err(read(part))? {
        total = entry.size().saturating_add(total);
        if total > limit || tree.len() >= MOST_ENTRIES {
            return Err(DebError::Shape(format!("{part} is larger than any package of the archive")));
        }
        let path = normal(&entry.path())?;
        let node = node(&mut entry, &path, &tree, part, sink)?;
        let both_directories = tree.get(&path).is_some_and(Node::is_directory) && node.is_directory();
        if tree.insert(path.clone(), node)?.is_some() && !both_directories {
            return Err(DebError::Shape(format!("{part} lists {} twice", String::from_utf8_lossy(&path))));
        }
    }
    Ok(tree)
}

fn node<R: Read>(
    entry: &mut Entry<'_, R>,
    path: &[u8],
    so_far: &Tree,
    part: &'static str,
    sink: &dyn Sink,
) -> Result<Node, DebError> {
    let xattrs = packed::xattrs(entry, path)?;
    let meta = Meta { xattrs, ..meta(entry).map_err(read(part))? };
    let file = |entry: &mut Entry<'_, R>, meta| {
        let size = entry.size();
        let keep = |source| DebError::Keep { path: String::from_utf8_lossy(path).into_owned(), source };
        Ok(Node::File(meta, sink.keep(entry, size).map_err(keep)?))
    };
    let name = |target: Vec<u8>| first_name(&target, path, so_far).map(Node::Hardlink);
    packed::node(entry, path, meta, "packages", file, name)
}

fn meta<R: Read>(entry: &Entry<'_, R>) -> io::Result<Meta> {
    let header = entry.header();
    let id = |n: u64| u32::try_from(n).map_err(|_| io::Error::other("a user id is larger than 32 bits"));
    let mtime =
        i64::try_from(header.mtime()?).map_err(|_| io::Error::other("a time is beyond all measure"))?;
    let mode = (header.mode()? & 0o7777) as u16;
    Ok(Meta { mode, uid: id(entry.uid()?)?, gid: id(entry.gid()?)?, mtime, xattrs: Xattrs::new() })
}

/// The file that a hard link means: one that came before, by its first name.
fn first_name(target: &[u8], path: &[u8], so_far: &Tree) -> Result<Vec<u8>, DebError> {
    match so_far.get(target) {
        Some(Node::File(..)) => Ok(target.to_vec()),
        Some(Node::Hardlink(first)) => Ok(first.clone()),
        _ => Err(DebError::Shape(format!(
            "{} is another name of {}, which is no file before it",
            String::from_utf8_lossy(path),
            String::from_utf8_lossy(target)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Put<'a> = &'a dyn Fn(&mut tar::Builder<Vec<u8>>);

    fn tar(fill: Put<'_>) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        fill(&mut builder);
        builder.into_inner().unwrap()
    }

    fn add(b: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, path: &str, link: &str, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        // Written past the library's own checks: packages from elsewhere are not made with it.
        let fields = header.as_gnu_mut().unwrap();
        fields.name[..path.len()].copy_from_slice(path.as_bytes());
        fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        b.append(&header, content).unwrap();
    }

    fn deb(data: Vec<u8>) -> Vec<u8> {
        let control = tar(&|b| add(b, tar::EntryType::Regular, "./control", "", b"Package: x\n"));
        let mut out = ar::Builder::new(Vec::new());
        for (name, bytes) in
            [("debian-binary", b"2.0\n".to_vec()), ("control.tar", control), ("data.tar", data)]
        {
            out.append(&ar::Header::new(name.into(), bytes.len() as u64), bytes.as_slice()).unwrap();
        }
        out.into_inner().unwrap()
    }

    fn unpacked(fill: Put<'_>) -> Result<Deb, DebError> {
        unpack(deb(tar(fill)).as_slice(), LARGEST_DATA, &Inside)
    }

    #[test]
    fn a_package_is_read() {
        let deb = unpacked(&|b| {
            add(b, tar::EntryType::Directory, "./", "", b"");
            add(b, tar::EntryType::Regular, "./usr/a", "", b"hello");
            add(b, tar::EntryType::Link, "./usr/b", "./usr/a", b"");
            add(b, tar::EntryType::Link, "./usr/c", "usr/b", b"");
            add(b, tar::EntryType::Symlink, "./usr/d", "../../x", b"");
        })
        .unwrap();
        assert!(deb.control.get(b"/control").is_some());
        assert!(matches!(deb.data.get(b"/usr/a"), Some(Node::File(_, Content::Inline(c))) if c == b"hello"));
        assert_eq!(deb.data.get(b"/usr/c"), Some(&Node::Hardlink(b"/usr/a".to_vec())));
        assert!(matches!(deb.data.get(b"/usr/d"), Some(Node::Symlink(_, t)) if t == b"../../x"));
    }

    #[test]
    fn a_value_beside_a_header_may_end_lines() {
        let deb = unpacked(&|b| {
            let said: [(&str, &[u8]); 2] = [("SCHILY.xattr.user.a", b"b\n7 u=v"), ("path", b"./usr/of\ntwo")];
            b.append_pax_extensions(said).unwrap();
            add(b, tar::EntryType::Regular, "./usr/short", "", b"x");
        })
        .unwrap();
        let meta = deb.data.get(b"/usr/of\ntwo").and_then(Node::meta).unwrap();
        assert_eq!(meta.xattrs, Xattrs::from([(b"user.a".to_vec(), b"b\n7 u=v".to_vec())]));
        let broken = unpacked(&|b| {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::XHeader);
            header.set_size(6);
            header.set_cksum();
            b.append(&header, &b"7 u=v\n"[..]).unwrap();
            add(b, tar::EntryType::Regular, "./a", "", b"x");
        });
        let DebError::Read { source, .. } = broken.unwrap_err() else { panic!("it was read") };
        assert!(source.to_string().contains("a record at byte 0"), "{source}");
    }

    #[test]
    fn hostile_packages_are_refused() {
        let outside = unpacked(&|b| add(b, tar::EntryType::Regular, "./../etc/passwd", "", b"x"));
        assert!(outside.unwrap_err().to_string().contains("outside of any tree"));
        let dangling = unpacked(&|b| add(b, tar::EntryType::Link, "./a", "./b", b""));
        assert!(dangling.unwrap_err().to_string().contains("/a is another name of /b"));
        let twice = unpacked(&|b| {
            add(b, tar::EntryType::Regular, "./a", "", b"x");
            add(b, tar::EntryType::Regular, "a", "", b"y");
        });
        assert!(twice.unwrap_err().to_string().contains("lists /a twice"));
        let nothing = unpacked(&|b| add(b, tar::EntryType::Symlink, "./a", "", b""));
        assert!(nothing.unwrap_err().to_string().contains("link to nothing"));
        assert!(unpack(&b"!<arch>\n"[..], LARGEST_DATA, &Inside).is_err());
    }

    proptest::proptest! {
        #[test]
        fn damage_never_panics(at in 0_usize..4096, to in 0_u8.., cut in 0_usize..4096) {
            let mut bytes = deb(tar(&|b| {
                add(b, tar::EntryType::Regular, "./usr/a", "", b"hello");
                add(b, tar::EntryType::Link, "./usr/b", "./usr/a", b"");
            }));
            let n = bytes.len();
            bytes[at % n] = to;
            let _ = unpack(bytes.as_slice(), LARGEST_DATA, &Inside);
            let _ = unpack(&bytes[..cut % n], LARGEST_DATA, &Inside);
        }
    }
}
