//! Whether a directory shows what an image holds.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;

use kiln_model::{Meta, Node, Tree};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, openat2, readlinkat, statx,
};

/// How ids of an image are seen from where it is looked at: (inside, outside, how many) each.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ids {
    /// Of users.
    pub users: Vec<(u32, u32, u32)>,
    /// Of groups.
    pub groups: Vec<(u32, u32, u32)>,
}

impl Ids {
    /// What an id inside is outside; nothing if it is not mapped.
    pub fn outside(map: &[(u32, u32, u32)], inside: u32) -> Option<u32> {
        let within = |(from, to, count): &(u32, u32, u32)| {
            let offset = inside.checked_sub(*from).filter(|offset| offset < count)?;
            to.checked_add(offset)
        };
        map.iter().find_map(within)
    }
}

/// More are not listed: who reads them has understood.
const MOST: usize = 20;

/// What the directory `root` shows otherwise than `tree` holds: names, kinds, modes, owners, times, sizes, targets and
/// devices. What is mounted below it is not looked at. Contents are those of objects, which are looked at where they
/// are kept.
pub fn differences(root: &File, tree: &Tree, ids: &Ids) -> Vec<String> {
    let mut walk = Walk { root, tree, ids, mount: None, found: Vec::new() };
    walk.mount = walk.stat(b"/").map(|s| s.stx_mnt_id);
    walk.all();
    if walk.found.len() > MOST {
        let more = walk.found.len() - MOST;
        walk.found.truncate(MOST);
        walk.found.push(format!("and {more} paths more"));
    }
    walk.found
}

struct Walk<'a> {
    root: &'a File,
    tree: &'a Tree,
    ids: &'a Ids,
    mount: Option<u64>,
    found: Vec<String>,
}

impl Walk<'_> {
    fn all(&mut self) {
        // In order of paths, a directory before what is in it; what is below a mount or is no directory is skipped.
        let mut skipped: Option<Vec<u8>> = None;
        for (path, node) in self.tree.iter() {
            if skipped.as_ref().is_some_and(|s| path.starts_with(s)) {
                continue;
            }
            let Some(stat) = self.stat(path) else {
                self.note(path, "is missing");
                continue;
            };
            if Some(stat.stx_mnt_id) != self.mount {
                skipped = Some([path, b"/"].concat());
                continue;
            }
            let node = match node {
                Node::Hardlink(first) => self.tree.get(first).unwrap_or(node),
                node => node,
            };
            self.compare(path, node, &stat);
            if node.is_directory() {
                self.names(path);
            }
        }
    }

    fn note(&mut self, path: &[u8], what: &str) {
        self.found.push(format!("{} {what}", String::from_utf8_lossy(path)));
    }

    fn stat(&self, path: &[u8]) -> Option<Statx> {
        let flags = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
        statx(self.root, relative(path), AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH, flags).ok()
    }

    fn compare(&mut self, path: &[u8], node: &Node, stat: &Statx) {
        let Some(meta) = node.meta() else { return };
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        if kind != kind_of(node) {
            return self.note(path, &format!("is a {kind:?}, not a {:?}", kind_of(node)));
        }
        let mode = stat.stx_mode & 0o7777;
        if mode != meta.mode {
            self.note(path, &format!("has mode {mode:04o}, not {:04o}", meta.mode));
        }
        if !self.is_owner(meta, stat) {
            self.note(path, &format!("belongs to somebody else than {}:{}", meta.uid, meta.gid));
        }
        if (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec) != (meta.mtime, 0) {
            self.note(path, "has another time");
        }
        match node {
            Node::File(_, content) if stat.stx_size != content.size() => {
                self.note(path, &format!("has {} bytes, not {}", stat.stx_size, content.size()));
            }
            Node::Symlink(_, target) if self.target(path).as_deref() != Some(target) => {
                self.note(path, "leads elsewhere");
            }
            Node::CharDevice(_, major, minor) | Node::BlockDevice(_, major, minor)
                if (stat.stx_rdev_major, stat.stx_rdev_minor) != (*major, *minor) =>
            {
                self.note(path, "is another device");
            }
            _ => {}
        }
    }

    fn is_owner(&self, meta: &Meta, stat: &Statx) -> bool {
        Ids::outside(&self.ids.users, meta.uid) == Some(stat.stx_uid)
            && Ids::outside(&self.ids.groups, meta.gid) == Some(stat.stx_gid)
    }

    fn target(&self, path: &[u8]) -> Option<Vec<u8>> {
        readlinkat(self.root, relative(path), Vec::new()).ok().map(|target| target.into_bytes())
    }

    /// Names in a directory that the image does not have.
    fn names(&mut self, path: &[u8]) {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        let opened = openat2(self.root, relative(path), flags, Mode::empty(), within);
        let Some(directory) = opened.ok().and_then(|fd| Dir::read_from(fd).ok()) else {
            return self.note(path, "cannot be looked into");
        };
        let prefix = if path == b"/" { b"" } else { path };
        let names: BTreeSet<Vec<u8>> =
            directory.filter_map(|e| Some(e.ok()?.file_name().to_bytes().to_vec())).collect();
        for name in names.iter().filter(|n| !matches!(n.as_slice(), b"." | b"..")) {
            let path = [prefix, b"/", name].concat();
            if self.tree.get(&path).is_none() {
                self.note(&path, "is not of the image");
            }
        }
    }
}

fn relative(path: &[u8]) -> &std::path::Path {
    let relative = match path {
        b"/" => &b"."[..],
        path => &path[1..],
    };
    std::path::Path::new(std::ffi::OsStr::from_bytes(relative))
}

fn kind_of(node: &Node) -> FileType {
    match node {
        Node::Directory(_) => FileType::Directory,
        Node::File(..) | Node::Hardlink(_) => FileType::RegularFile,
        Node::Symlink(..) => FileType::Symlink,
        Node::CharDevice(..) => FileType::CharacterDevice,
        Node::BlockDevice(..) => FileType::BlockDevice,
        Node::Fifo(_) => FileType::Fifo,
        Node::Socket(_) => FileType::Socket,
    }
}
