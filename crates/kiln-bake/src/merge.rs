//! The tree of an image: its packages' configured tree with the project's files, and what it says of itself.

use kiln_model::{
    ByteSize, Content, Meta, Node, ObjectDigest, RunSettings, Tree, TreeError, Volatile, Xattrs,
};
use kiln_store::{Batch, Store, Verity};
use serde::Serialize;

use crate::debian::Root;
use crate::debian::deb::Sink;
use crate::files::{FilesError, Found, What};
use crate::nearest::{did_you_mean, nearest};
use crate::order::{BakeOrder, FileSpec};
use crate::skeleton;
use crate::tree_edit::{TreeEdit, resolve};
use crate::users::Users;
use crate::{BakeError, files};

/// The xattr of the root directory that holds the run settings, so that the image's digest covers them.
const SETTINGS: &[u8] = b"user.kiln.image";
/// How far before the epoch the times of project files reach, in seconds: about half a year.
const TIMES: u64 = 1 << 24;

/// A tree, and how its program is run.
pub(crate) struct Merged {
    pub(crate) tree: Tree,
    pub(crate) run: RunSettings,
    pub(crate) volatile: Vec<Volatile>,
}

/// Lays `found` over `root` and completes it.
pub(crate) fn merged(
    order: &BakeOrder,
    root: Root,
    found: &[Found],
    store: &Store,
    batch: &Batch,
) -> Result<Merged, BakeError> {
    let users = Users::of(&root.tree, store)?;
    let mut merge = Merge { order, users, edit: TreeEdit::new(root.tree), epoch: root.epoch, batch };
    skeleton::complete(&mut merge.edit, root.epoch)?;
    found.iter().try_for_each(|f| merge.lay(f))?;
    let volatile = merge.volatile()?;
    // The project's files may have brought users of their own.
    merge.users = Users::of(merge.edit.tree(), store)?;
    let run = merge.run_settings()?;
    merge.settings(&run, &volatile)?;
    Ok(Merged { tree: merge.edit.into_tree(), run, volatile })
}

struct Merge<'a> {
    order: &'a BakeOrder,
    users: Users,
    edit: TreeEdit,
    epoch: i64,
    batch: &'a Batch,
}

impl Merge<'_> {
    fn lay(&mut self, found: &Found) -> Result<(), BakeError> {
        let spec = &self.order.files[found.spec];
        let (uid, gid) = self.owner(spec)?;
        match &found.what {
            What::Directory => self.directory(found, spec, uid, gid),
            What::File { executable, digest, size, path } => {
                let mode = spec.mode.unwrap_or(if *executable { 0o755 } else { 0o644 });
                let mtime = self.time_of(digest);
                let meta = Meta { mode: (mode & 0o7777) as u16, uid, gid, mtime, xattrs: Xattrs::new() };
                let content = self.content(path, *digest, *size)?;
                self.file(found, spec, Node::File(meta, content))
            }
        }
    }

    fn files_error(&self, source: FilesError) -> BakeError {
        BakeError::Files { image: self.order.image.clone(), source }
    }

    fn in_the_way(&self, spec: &FileSpec, error: TreeError) -> BakeError {
        let dst = String::from_utf8_lossy(&error.path).into_owned();
        self.files_error(FilesError::InTheWay { src: spec.src.clone(), dst, problem: error.problem })
    }

    fn owner(&self, spec: &FileSpec) -> Result<(u32, u32), BakeError> {
        match &spec.owner {
            None => Ok((0, 0)),
            Some(owner) => self.users.owner(owner).map_err(|e| self.user_error(e)),
        }
    }

    fn user_error(&self, source: crate::users::UserError) -> BakeError {
        BakeError::User { image: self.order.image.clone(), source }
    }

    /// A directory of the image keeps its mode; one that is new belongs to the files' owner.
    fn directory(&mut self, found: &Found, spec: &FileSpec, uid: u32, gid: u32) -> Result<(), BakeError> {
        let place = resolve(self.edit.tree(), &found.dst, true);
        let is_new = self.edit.tree().get(&place).is_none();
        self.edit.ensure_directory(&place, self.epoch).map_err(|e| self.in_the_way(spec, e))?;
        if let Some(Node::Directory(meta)) = self.edit.node_mut(&place).filter(|_| is_new) {
            (meta.uid, meta.gid) = (uid, gid);
        }
        Ok(())
    }

    fn file(&mut self, found: &Found, spec: &FileSpec, node: Node) -> Result<(), BakeError> {
        let place = self.edit.resolve_parents(&found.dst);
        if self.edit.tree().get(&place).is_some_and(Node::is_directory) {
            let problem =
                "it is a directory in the image (end `dst` with a slash to put the file into it)".into();
            return Err(self.in_the_way(spec, TreeError { path: place, problem }));
        }
        self.edit.ensure_parent(&place, self.epoch).map_err(|e| self.in_the_way(spec, e))?;
        Ok(self.edit.put(&place, node)?)
    }

    fn content(&self, path: &std::path::Path, digest: ObjectDigest, size: u64) -> Result<Content, BakeError> {
        let read = |source| self.files_error(FilesError::Read { path: path.into(), source });
        let mut file = std::fs::File::open(path).map_err(read)?;
        let content = self.batch.keep(&mut file, size).map_err(read)?;
        let found = match &content {
            Content::Inline(bytes) => Verity::of(bytes),
            Content::Object { digest, .. } => *digest,
        };
        if found == digest { Ok(content) } else { Err(self.files_error(FilesError::Changed(path.into()))) }
    }

    /// A time that depends on the content alone. The time of the checkout would differ from machine to machine, and
    /// one time for all would be worse: web servers tell versions of a page apart by time and size, and would answer
    /// "not modified" for a page that is.
    fn time_of(&self, digest: &ObjectDigest) -> i64 {
        let head = digest.0.0.first_chunk::<8>().map_or(0, |b| u64::from_be_bytes(*b));
        self.epoch - (head % TIMES) as i64
    }

    fn volatile(&mut self) -> Result<Vec<Volatile>, BakeError> {
        let mut volatile = self.order.volatile.clone();
        volatile.sort();
        for one in &volatile {
            self.edit.ensure_directory(one.path.as_bytes(), self.epoch)?;
        }
        Ok(volatile)
    }

    fn run_settings(&self) -> Result<RunSettings, BakeError> {
        let user = self.users.user(self.order.user.as_deref()).map_err(|e| self.user_error(e))?;
        self.check_program()?;
        Ok(RunSettings {
            argv: self.order.run.clone(),
            user: user.name,
            uid: user.uid,
            gid: user.gid,
            groups: user.groups,
            env: self.order.env.clone(),
            workdir: self.order.workdir.clone().unwrap_or_else(|| "/".into()),
            stop_signal: self.order.stop_signal,
            stop_grace: self.order.stop_grace,
        })
    }

    /// A program that is not there would only show when an instance starts.
    fn check_program(&self) -> Result<(), BakeError> {
        let tree = self.edit.tree();
        let program = self.order.run.first().map_or("", String::as_str);
        let place = resolve(tree, program.as_bytes(), true);
        let node = match tree.get(&place) {
            Some(Node::Hardlink(first)) => tree.get(first),
            node => node,
        };
        if program.starts_with('/') && matches!(node, Some(Node::File(meta, _)) if meta.mode & 0o111 != 0) {
            return Ok(());
        }
        Err(BakeError::Program {
            image: self.order.image.clone(),
            program: program.into(),
            hint: self.likely_programs(program),
        })
    }

    fn likely_programs(&self, program: &str) -> String {
        let files = self.edit.tree().iter().filter_map(|(path, node)| match node {
            Node::File(meta, _) if meta.mode & 0o111 != 0 => std::str::from_utf8(path).ok(),
            _ => None,
        });
        let name = program.rsplit('/').next().unwrap_or_default();
        let (same, other): (Vec<&str>, Vec<&str>) =
            files.partition(|p| !name.is_empty() && p.rsplit('/').next() == Some(name));
        if same.is_empty() {
            return did_you_mean(&nearest(program, other.into_iter()));
        }
        did_you_mean(&same.into_iter().take(3).map(str::to_owned).collect::<Vec<_>>())
    }

    fn settings(&mut self, run: &RunSettings, volatile: &[Volatile]) -> Result<(), BakeError> {
        #[derive(Serialize)]
        struct Settings<'a> {
            run: &'a RunSettings,
            volatile: &'a [Volatile],
        }
        let json = serde_json::to_vec(&Settings { run, volatile }).expect("plain data that JSON can hold");
        if let Some(Node::Directory(meta)) = self.edit.node_mut(b"/") {
            meta.xattrs.insert(SETTINGS.to_vec(), json);
        }
        Ok(())
    }
}

/// What decides on the merged tree, beside the packages: part of the key of an unchanged bake.
#[derive(Serialize)]
pub(crate) struct Inputs<'a> {
    image: &'a str,
    from: String,
    files: Vec<InputFile<'a>>,
    run: &'a [String],
    user: Option<&'a str>,
    env: &'a std::collections::BTreeMap<String, String>,
    workdir: Option<&'a str>,
    stop_signal: i32,
    stop_grace: u64,
    volatile: Vec<(&'a str, ByteSize)>,
}

#[derive(Serialize)]
struct InputFile<'a> {
    dst: &'a [u8],
    mode: Option<u32>,
    owner: Option<&'a str>,
    content: Option<(bool, ObjectDigest, u64)>,
}

impl<'a> Inputs<'a> {
    pub(crate) fn new(order: &'a BakeOrder, found: &'a [files::Found]) -> Self {
        let file = |f: &'a files::Found| InputFile {
            dst: &f.dst,
            mode: order.files[f.spec].mode,
            owner: order.files[f.spec].owner.as_deref(),
            content: match &f.what {
                What::Directory => None,
                What::File { executable, digest, size, .. } => Some((*executable, *digest, *size)),
            },
        };
        Self {
            image: order.image.as_str(),
            from: order.from.to_string(),
            files: found.iter().map(file).collect(),
            run: &order.run,
            user: order.user.as_deref(),
            env: &order.env,
            workdir: order.workdir.as_deref(),
            stop_signal: order.stop_signal,
            stop_grace: order.stop_grace.0,
            volatile: order.volatile.iter().map(|v| (v.path.as_str(), v.size)).collect(),
        }
    }
}
