//! The tree of an image: its packages' configured tree with the project's files, and what it says of itself.

use std::collections::BTreeMap;

use kiln_model::spec::{BuildNetwork, BuildStep, DirSpec, LinkSpec, UserSpec};
use kiln_model::{
    ByteSize, Content, Meta, Node, ObjectDigest, RunSettings, Tree, TreeError, Volatile, Xattrs,
};
use kiln_store::Store;
use serde::Serialize;

use crate::debian::Root;
use crate::description::describe;
use crate::files::{FilesError, Found, What};
use crate::handmade::Foundation;
use crate::nearest::{did_you_mean, nearest};
use crate::order::{BakeOrder, FileSpec};
use crate::settings::{Settings, is_program, why_no_program};
use crate::tree_edit::{TreeEdit, resolve, root_meta};
use crate::users::Users;
use crate::{BakeError, accounts, files, handmade, machine_own, skeleton};

/// How far before the epoch the times of project files reach, in seconds: about half a year.
const TIMES: u64 = 1 << 24;

/// A tree, and how its program is run.
pub(crate) struct Merged {
    pub(crate) tree: Tree,
    pub(crate) run: RunSettings,
    pub(crate) volatile: Vec<Volatile>,
}

/// `root` with all that the order puts into it: users, directories, files and links.
pub(crate) fn laid(
    order: &BakeOrder,
    root: Root,
    (found, contents): (&[Found], &[Option<Content>]),
    store: &Store,
) -> Result<Tree, BakeError> {
    let mut edit = TreeEdit::new(root.tree);
    skeleton::complete(&mut edit, root.epoch)?;
    accounts::add(&mut edit, &order.users, root.epoch, store)
        .map_err(|source| BakeError::Account { image: order.image.clone(), source })?;
    let users = Users::of(edit.tree(), store)?;
    let mut merge = Merge { order, users, edit, epoch: root.epoch };
    order.dirs.iter().try_for_each(|d| merge.dir(d))?;
    found.iter().zip(contents).try_for_each(|(f, content)| merge.lay(f, content.as_ref()))?;
    order.links.iter().try_for_each(|l| merge.link(l))?;
    // Here, for a build runs in it, and again of what the build made of it.
    check_mount_points(order, merge.edit.tree())?;
    Ok(merge.edit.into_tree())
}

/// A whole tree, with what it says of itself; `over` is the handmade image it starts from, if it does.
pub(crate) fn finished(
    order: &BakeOrder,
    settings: Settings,
    (tree, epoch): (Tree, i64),
    over: Option<&Foundation>,
    store: &Store,
) -> Result<Merged, BakeError> {
    let mut edit = TreeEdit::new(tree);
    check_mount_points(order, edit.tree())?;
    machine_own::check(edit.tree())
        .map_err(|source| BakeError::MachineOwn { image: order.image.clone(), source })?;
    machine_own::link_machine_id(&mut edit, epoch)?;
    let volatile = make_volatile(&mut edit, order, epoch)?;
    if let Some(base) = over {
        handmade::check_hides_nothing(order, base, &volatile)?;
    }
    let run = run_settings(order, settings, edit.tree(), store)?;
    describe(&mut edit, &run, &volatile, over.map(|base| &base.record.digest));
    Ok(Merged { tree: edit.into_tree(), run, volatile })
}

struct Merge<'a> {
    order: &'a BakeOrder,
    users: Users,
    edit: TreeEdit,
    epoch: i64,
}

impl Merge<'_> {
    /// With its content, if it is a file.
    fn lay(&mut self, found: &Found, content: Option<&Content>) -> Result<(), BakeError> {
        let spec = &self.order.files[found.spec];
        let (uid, gid) = self.owner(spec)?;
        match (&found.what, content) {
            (What::Directory, _) | (What::File { .. }, None) => self.directory(found, spec, uid, gid),
            (What::File { executable, digest, .. }, Some(content)) => {
                let mode = spec.mode.unwrap_or(if *executable { 0o755 } else { 0o644 });
                let mtime = time_of(self.epoch, digest);
                let meta = Meta { mode: (mode & 0o7777) as u16, uid, gid, mtime, xattrs: Xattrs::new() };
                self.file(found, spec, Node::File(meta, content.clone()))
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
        let place = resolve(self.edit.tree(), &found.dst, true).map_err(|e| self.in_the_way(spec, e))?;
        let is_new = self.edit.tree().get(&place).is_none();
        self.edit.ensure_directory(&place, self.epoch).map_err(|e| self.in_the_way(spec, e))?;
        if let Some(Node::Directory(meta)) = self.edit.node_mut(&place).filter(|_| is_new) {
            (meta.uid, meta.gid) = (uid, gid);
        }
        Ok(())
    }

    fn file(&mut self, found: &Found, spec: &FileSpec, node: Node) -> Result<(), BakeError> {
        let place = self.edit.resolve_parents(&found.dst).map_err(|e| self.in_the_way(spec, e))?;
        if self.edit.tree().get(&place).is_some_and(Node::is_directory) {
            let problem =
                "it is a directory in the image (end `dst` with a slash to put the file into it)".into();
            return Err(self.in_the_way(spec, TreeError { path: place, problem }));
        }
        self.edit.ensure_parent(&place, self.epoch).map_err(|e| self.in_the_way(spec, e))?;
        Ok(self.edit.put(&place, node)?)
    }

    /// A directory that is there keeps what is not asked for.
    fn dir(&mut self, spec: &DirSpec) -> Result<(), BakeError> {
        let owner = spec.owner.as_deref().map(|o| self.users.owner(o)).transpose();
        let owner = owner.map_err(|e| self.user_error(e))?;
        let place = resolve(self.edit.tree(), spec.path.as_bytes(), true);
        let place = place.map_err(|e| self.place_error(&spec.path, e.problem))?;
        if let Err(e) = self.edit.ensure_directory(&place, self.epoch) {
            return Err(self.place_error(&spec.path, e.problem));
        }
        if let Some(Node::Directory(meta)) = self.edit.node_mut(&place) {
            if let Some((uid, gid)) = owner {
                (meta.uid, meta.gid) = (uid, gid);
            }
            if let Some(mode) = spec.mode {
                meta.mode = (mode & 0o7777) as u16;
            }
        }
        Ok(())
    }

    fn link(&mut self, spec: &LinkSpec) -> Result<(), BakeError> {
        let place = self.edit.resolve_parents(spec.path.as_bytes());
        let place = place.map_err(|e| self.place_error(&spec.path, e.problem))?;
        if self.edit.tree().get(&place).is_some_and(Node::is_directory) {
            return Err(self.place_error(&spec.path, "it is a directory in the image".into()));
        }
        if let Err(e) = self.edit.ensure_parent(&place, self.epoch) {
            return Err(self.place_error(&spec.path, e.problem));
        }
        let link = Node::Symlink(root_meta(0o777, self.epoch), spec.to.clone().into_bytes());
        Ok(self.edit.put(&place, link)?)
    }

    fn place_error(&self, path: &str, problem: String) -> BakeError {
        BakeError::Place { image: self.order.image.clone(), path: path.to_owned(), problem }
    }
}

/// What comes from the kernel is mounted here: over a directory of the image, never where a link leads.
fn check_mount_points(order: &BakeOrder, tree: &Tree) -> Result<(), BakeError> {
    for path in ["/dev", "/proc", "/sys"] {
        if !tree.get(path.as_bytes()).is_some_and(Node::is_directory) {
            let problem = "every instance mounts something there, and it is no directory".into();
            return Err(BakeError::Place { image: order.image.clone(), path: path.into(), problem });
        }
    }
    Ok(())
}

/// Each where it really is: an instance mounts over the place a link leads to, never over one that leads elsewhere.
fn make_volatile(edit: &mut TreeEdit, order: &BakeOrder, epoch: i64) -> Result<Vec<Volatile>, BakeError> {
    let mut volatile = BTreeMap::new();
    for one in &order.volatile {
        if let Err(TreeError { path, .. }) = edit.ensure_directory(one.path.as_bytes(), epoch) {
            let there = String::from_utf8_lossy(&path);
            let problem =
                format!("it is volatile, so a directory, and what the image has at {there} is none");
            return Err(BakeError::Place { image: order.image.clone(), path: one.path.clone(), problem });
        }
        let place = resolve(edit.tree(), one.path.as_bytes(), true)?;
        let path = String::from_utf8(place).map_err(|e| TreeError {
            path: e.into_bytes(),
            problem: format!("the volatile path {} leads to it, and its name is no text", one.path),
        })?;
        let room = volatile.entry(path).or_insert((one.size, one.exec));
        *room = (room.0.max(one.size), room.1 || one.exec);
    }
    Ok(volatile.into_iter().map(|(path, (size, exec))| Volatile { path, size, exec }).collect())
}

fn run_settings(
    order: &BakeOrder,
    mut settings: Settings,
    tree: &Tree,
    store: &Store,
) -> Result<RunSettings, BakeError> {
    // The project's files and the build may have brought users of their own.
    let users = Users::of(tree, store)?;
    let user = users.user(settings.user.as_deref(), settings.lone_group);
    let user = user.map_err(|source| BakeError::User { image: order.image.clone(), source })?;
    settings.find_program(tree);
    check_program(order, &settings, tree)?;
    Ok(RunSettings {
        user: user.name,
        uid: user.uid,
        gid: user.gid,
        groups: user.groups,
        workdir: settings.workdir().to_owned(),
        stop_signal: settings.stop_signal(),
        argv: settings.argv,
        env: settings.env,
        stop_grace: order.stop_grace,
    })
}

/// A program that is not there would only show when an instance starts.
fn check_program(order: &BakeOrder, settings: &Settings, tree: &Tree) -> Result<(), BakeError> {
    let Some(program) = settings.argv.first().filter(|program| !program.is_empty()) else {
        return Err(BakeError::NoProgram(order.image.clone()));
    };
    if is_program(tree, program) {
        return Ok(());
    }
    if let Some(why) = why_no_program(tree, program) {
        let (image, program) = (order.image.clone(), program.clone());
        return Err(BakeError::NotExecutable { image, program, why });
    }
    Err(BakeError::Program {
        image: order.image.clone(),
        program: program.clone(),
        hint: likely_programs(tree, program),
    })
}

fn likely_programs(tree: &Tree, program: &str) -> String {
    let files = tree.iter().filter_map(|(path, node)| match node {
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

/// A time that depends on the content alone. The time of the checkout would differ from machine to machine, and one
/// time for all would be worse: web servers tell versions of a page apart by time and size, and would answer "not
/// modified" for a page that is.
pub(crate) fn time_of(epoch: i64, digest: &ObjectDigest) -> i64 {
    let head = digest.0.0.first_chunk::<8>().map_or(0, |b| u64::from_be_bytes(*b));
    epoch - (head % TIMES) as i64
}

/// What decides on the merged tree, beside the packages: part of the key of an unchanged bake.
#[derive(Serialize)]
pub(crate) struct Inputs<'a> {
    image: &'a str,
    from: String,
    files: Vec<InputFile<'a>>,
    dirs: &'a [DirSpec],
    links: &'a [LinkSpec],
    users: &'a [UserSpec],
    build: &'a [BuildStep],
    build_network: BuildNetwork,
    run: &'a [String],
    user: Option<&'a str>,
    env: &'a BTreeMap<String, String>,
    workdir: Option<&'a str>,
    stop_signal: Option<i32>,
    stop_grace: u64,
    volatile: Vec<(&'a str, ByteSize)>,
    /// Those of them from which programs may be executed. Left out where there are none, so that images from before
    /// this could be asked for are found again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    executable: Vec<&'a str>,
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
            dirs: &order.dirs,
            links: &order.links,
            users: &order.users,
            build: &order.build,
            build_network: order.build_network,
            run: &order.run,
            user: order.user.as_deref(),
            env: &order.env,
            workdir: order.workdir.as_deref(),
            stop_signal: order.stop_signal,
            stop_grace: order.stop_grace.0,
            volatile: order.volatile.iter().map(|v| (v.path.as_str(), v.size)).collect(),
            executable: order.volatile.iter().filter(|v| v.exec).map(|v| v.path.as_str()).collect(),
        }
    }
}
