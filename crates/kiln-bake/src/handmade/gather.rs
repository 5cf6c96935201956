//! What is on a volatile path, as nodes of a tree; contents go into the store.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use kiln_model::{ByteSize, Content, INSTANCE_IDS, InstanceId, Meta, Node, NotKept, Xattrs};
use kiln_store::{Batch, Verity};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, fstatvfs, openat2, readlinkat};

use super::HandmadeError;
use super::survey::{self, DEEPEST, MOST, NoSurvey, Seen, Survey, first_difference};
use crate::debian::deb::Sink;
use crate::merge::time_of;

/// How often it is tried to read what stays the same meanwhile.
const ATTEMPTS: u32 = 3;

/// What volatile paths are read for.
pub(super) struct Gatherer<'a> {
    pub(super) instance: &'a InstanceId,
    /// The instance's root directory.
    pub(super) root: &'a OwnedFd,
    /// Who on the host is root inside.
    pub(super) base_id: u32,
    /// The time of what has no content.
    pub(super) epoch: i64,
    pub(super) batch: &'a Batch,
}

/// The content of one volatile path.
pub(super) struct Gathered {
    /// By absolute path, the volatile path itself among them.
    pub(super) nodes: BTreeMap<Vec<u8>, Node>,
    pub(super) left_out: Vec<NotKept>,
}

/// How many bytes there can be on the file system of `top`.
fn room(top: &OwnedFd) -> io::Result<u64> {
    let system = fstatvfs(top)?;
    Ok(system.f_blocks.saturating_mul(system.f_frsize))
}

impl Gatherer<'_> {
    /// All that is at `path` and below.
    pub(super) fn gather(&self, path: &str) -> Result<Gathered, HandmadeError> {
        let read = |source| HandmadeError::Read { path: path.to_owned(), source };
        let top = survey::open(self.root, path).map_err(read)?;
        let mut changed = Vec::new();
        for _ in 0..ATTEMPTS {
            let before = self.survey(&top, path)?;
            let gathered = self.nodes(&top, path, &before);
            match first_difference(&before, &self.survey(&top, path)?) {
                None => return gathered,
                Some(what) => changed = what,
            }
        }
        let path = format!("{path}{}", String::from_utf8_lossy(&changed));
        Err(HandmadeError::Changing { instance: self.instance.clone(), path, attempts: ATTEMPTS })
    }

    fn survey(&self, top: &OwnedFd, path: &str) -> Result<Survey, HandmadeError> {
        survey::survey(top).map_err(|e| match e {
            NoSurvey::TooMuch => {
                HandmadeError::TooMuch { path: path.to_owned(), most: MOST, deepest: DEEPEST }
            }
            NoSurvey::System(source) => HandmadeError::Read { path: path.to_owned(), source },
        })
    }

    fn nodes(&self, top: &OwnedFd, path: &str, survey: &Survey) -> Result<Gathered, HandmadeError> {
        let mut gathered = Gathered { nodes: BTreeMap::new(), left_out: Vec::new() };
        let mut first_names: HashMap<u64, Vec<u8>> = HashMap::new();
        for (below, seen) in survey {
            let place = [path.as_bytes(), below].concat();
            let shown = String::from_utf8_lossy(&place).into_owned();
            if seen.has_names {
                if let Some(first) = first_names.get(&seen.inode) {
                    gathered.nodes.insert(place, Node::Hardlink(first.clone()));
                    continue;
                }
                first_names.insert(seen.inode, place.clone());
            }
            let read = |source| HandmadeError::Read { path: shown.clone(), source };
            let meta = self.meta(seen, &shown)?;
            let node = match seen.kind {
                FileType::Directory => Node::Directory(meta),
                FileType::RegularFile => {
                    let holds = room(top).map_err(read)?;
                    if seen.size > holds {
                        return Err(HandmadeError::Holes {
                            path: shown,
                            size: ByteSize(seen.size),
                            holds: ByteSize(holds),
                        });
                    }
                    self.file(top, below, seen, meta).map_err(read)?
                }
                FileType::Symlink => {
                    let target = readlinkat(top, &below[1..], Vec::new()).map_err(|e| read(e.into()))?;
                    Node::Symlink(meta, target.into_bytes())
                }
                FileType::Fifo => Node::Fifo(meta),
                FileType::Socket => {
                    gathered.left_out.push(NotKept { path: shown, why: "it is a socket".into() });
                    continue;
                }
                _ => {
                    gathered.left_out.push(NotKept { path: shown, why: "it is a device file".into() });
                    continue;
                }
            };
            gathered.nodes.insert(place, node);
        }
        Ok(gathered)
    }

    fn meta(&self, seen: &Seen, path: &str) -> Result<Meta, HandmadeError> {
        let inside = |id: u32| {
            let inside = id.checked_sub(self.base_id).filter(|id| *id < INSTANCE_IDS);
            inside.ok_or_else(|| HandmadeError::Stranger { path: path.to_owned(), user: id })
        };
        let (uid, gid) = (inside(seen.uid)?, inside(seen.gid)?);
        // As links always have it, whatever the file system shows.
        let mode = if seen.kind.is_symlink() { 0o777 } else { seen.mode };
        Ok(Meta { mode, uid, gid, mtime: self.epoch, xattrs: Xattrs::new() })
    }

    fn file(&self, top: &OwnedFd, below: &[u8], seen: &Seen, mut meta: Meta) -> io::Result<Node> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let file = openat2(top, &below[1..], flags, Mode::empty(), within)?;
        if Seen::of(&fstat(&file)?) != *seen {
            return Err(io::Error::other("it has just been replaced"));
        }
        let content = self.batch.keep(&mut File::from(file), seen.size)?;
        let digest = match &content {
            Content::Inline(bytes) => Verity::of(bytes),
            Content::Object { digest, .. } => *digest,
        };
        meta.mtime = time_of(self.epoch, &digest);
        Ok(Node::File(meta, content))
    }
}
