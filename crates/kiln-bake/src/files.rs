//! The project's own files: found, kept inside the project, and known by their content.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use kiln_model::{Content, ObjectDigest};
use kiln_store::{Batch, Store, Verity};
use rayon::prelude::*;

use crate::erofs;
use crate::nearest::{did_you_mean, nearest};
use crate::order::{BakeOrder, FileSpec};
use crate::{BakeError, content};

/// Directories in directories, at most.
const DEEPEST: usize = 64;
/// To start threads takes longer than to read so few files with so little in them.
const FEW: usize = 64;
const LITTLE: u64 = 1 << 20;
/// Where `kiln up` keeps its state, beside the spec: never part of an image.
const OWN_STATE: &str = ".kiln";

/// A file of the spec that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// It was called off.
    #[error("called off")]
    Cancelled,
    /// It does not exist.
    #[error("there is no `{src}` in {}{hint}", project.display())]
    Missing {
        /// As the spec has it.
        src: String,
        /// The project's directory.
        project: PathBuf,
        /// Names that may have been meant, or nothing.
        hint: String,
    },
    /// It is not inside the project.
    #[error("`{src}` leads out of the project, to {}", to.display())]
    Outside {
        /// As the spec has it; of what is in a directory, from the project's on.
        src: String,
        /// Where it leads.
        to: PathBuf,
    },
    /// Its place in the image is not an absolute path.
    #[error("`{dst}` is not an absolute path without `..`")]
    Destination {
        /// As the spec has it.
        dst: String,
    },
    /// Its place in the image is a directory, or below a file.
    #[error("`{src}` cannot be put at {dst}: {problem}")]
    InTheWay {
        /// As the spec has it.
        src: String,
        /// Where it should go.
        dst: String,
        /// What is in the way.
        problem: String,
    },
    /// A link in a directory leads to one that it is in itself.
    #[error("`{src}` leads in a circle: it is below {}, to which it leads", to.display())]
    Circle {
        /// The link, from the project's directory on.
        src: String,
        /// Where it leads.
        to: PathBuf,
    },
    /// It is deeper than any project.
    #[error("{} has more than {DEEPEST} directories in one another", .0.display())]
    TooDeep(PathBuf),
    /// It is neither a file nor a directory.
    #[error("{} is neither a file nor a directory", .0.display())]
    Kind(PathBuf),
    /// It cannot be read.
    #[error("could not read {}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// It is larger than a file of an image can be.
    #[error("{} is larger than 8 TiB, and no file of an image can be", .0.display())]
    TooLarge(PathBuf),
    /// It was written to meanwhile.
    #[error("{} changed while it was read", .0.display())]
    Changed(PathBuf),
}

/// Whether the work is no longer wanted.
type Cancelled<'a> = &'a (dyn Fn() -> bool + Sync);

/// Something of the project that goes into the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Where it goes.
    pub(crate) dst: Vec<u8>,
    /// What it is.
    pub(crate) what: What,
    /// Which of the order's `files` it is from.
    pub(crate) spec: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Directory,
    File { path: PathBuf, executable: bool, digest: ObjectDigest, size: u64 },
}

/// All that `order.files` name, in order; of two at one place the later counts. `state`, the store's own directory, is
/// never among what is in another. Large files are read for as long as it is not `cancelled`.
pub(crate) fn find(
    order: &BakeOrder,
    state: &Path,
    cancelled: Cancelled<'_>,
) -> Result<Vec<Found>, FilesError> {
    if order.files.is_empty() {
        return Ok(Vec::new());
    }
    let project = order
        .project
        .canonicalize()
        .map_err(|source| FilesError::Read { path: order.project.clone(), source })?;
    let state = state.canonicalize().ok();
    let mut walk = Walk { project: &project, state: state.as_deref(), paths: Vec::new(), within: Vec::new() };
    for (i, spec) in order.files.iter().enumerate() {
        walk.spec(i, spec)?;
    }
    let (count, bytes) = (walk.paths.len(), walk.paths.iter().map(|met| met.size).sum::<u64>());
    if count <= FEW && bytes <= LITTLE {
        return walk.paths.into_iter().map(|met| known(met, cancelled)).collect();
    }
    walk.paths.into_par_iter().map(|met| known(met, cancelled)).collect()
}

/// Brings the contents of what was found into the store; of each file its content, in order.
///
/// # Errors
/// [`FilesError::Changed`] if one is not what was found any more; otherwise what the system refused, or that it was
/// called off.
pub(crate) fn kept(
    order: &BakeOrder,
    found: &[Found],
    store: &Store,
    cancelled: Cancelled<'_>,
) -> Result<Vec<Option<Content>>, BakeError> {
    let batch = store.objects().batch()?;
    let keep = |found: &Found| match &found.what {
        What::Directory => Ok(None),
        What::File { path, digest, size, .. } => kept_one(path, *digest, *size, &batch, cancelled).map(Some),
    };
    let contents: Result<_, FilesError> = match found.len() <= FEW {
        true => found.iter().map(keep).collect(),
        false => found.par_iter().map(keep).collect(),
    };
    let contents = contents.map_err(|error| BakeError::of_files(order, error))?;
    batch.commit()?;
    Ok(contents)
}

fn kept_one(
    path: &Path,
    digest: ObjectDigest,
    size: u64,
    batch: &Batch,
    cancelled: Cancelled<'_>,
) -> Result<Content, FilesError> {
    let read = |source| not_read(path, source, cancelled);
    let file = File::open(path).map_err(read)?;
    let content = content::of_file(batch, &file, size, &|| still_wanted(cancelled)).map_err(read)?;
    let found = match &content {
        Content::Inline(bytes) => Verity::of(bytes),
        Content::Object { digest, .. } => *digest,
    };
    if found == digest { Ok(content) } else { Err(FilesError::Changed(path.into())) }
}

/// The first of `order.files` that names nothing, by its place among them, and what is wrong.
pub fn missing_file(order: &BakeOrder) -> Option<(usize, FilesError)> {
    let walk = Walk { project: &order.project, state: None, paths: Vec::new(), within: Vec::new() };
    let is_missing = |spec: &FileSpec| order.project.join(&spec.src).symlink_metadata().is_err();
    let (index, spec) = order.files.iter().enumerate().find(|(_, spec)| is_missing(spec))?;
    Some((index, walk.missing(spec)))
}

/// A path that goes into the image, its content not looked at yet.
struct Met {
    dst: Vec<u8>,
    path: PathBuf,
    directory: bool,
    size: u64,
    spec: usize,
}

struct Walk<'a> {
    project: &'a Path,
    state: Option<&'a Path>,
    paths: Vec<Met>,
    /// The directories that are being walked, each in the one before it.
    within: Vec<PathBuf>,
}

impl Walk<'_> {
    fn spec(&mut self, index: usize, spec: &FileSpec) -> Result<(), FilesError> {
        let relative = Path::new(&spec.src);
        let outside = || FilesError::Outside { src: spec.src.clone(), to: self.project.join(relative) };
        if !relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
            return Err(outside());
        }
        let path = self.project.join(relative);
        if path.symlink_metadata().is_err() {
            return Err(self.missing(spec));
        }
        let dst = destination(spec)?;
        let real = self.inside(&path)?;
        let into = spec.dst.ends_with('/') && !real.is_dir();
        let dst = if into { join(&dst, path.file_name().unwrap_or_default().as_bytes()) } else { dst };
        self.add(index, real, dst)
    }

    fn missing(&self, spec: &FileSpec) -> FilesError {
        let path = self.project.join(&spec.src);
        let siblings: Vec<String> = path
            .parent()
            .and_then(|dir| fs::read_dir(dir).ok())
            .map(|dir| dir.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let near = nearest(&name, siblings.iter().map(String::as_str));
        FilesError::Missing { src: spec.src.clone(), project: self.project.into(), hint: did_you_mean(&near) }
    }

    /// What `path` leads to, which must be inside the project.
    fn inside(&self, path: &Path) -> Result<PathBuf, FilesError> {
        let real = path.canonicalize().map_err(|source| FilesError::Read { path: path.into(), source })?;
        if real.starts_with(self.project) {
            Ok(real)
        } else {
            Err(FilesError::Outside { src: self.shown(path), to: real })
        }
    }

    /// As a spec would have it.
    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(self.project).unwrap_or(path).display().to_string()
    }

    fn add(&mut self, spec: usize, path: PathBuf, dst: Vec<u8>) -> Result<(), FilesError> {
        let path = if path.is_symlink() { self.followed(&path)? } else { path };
        let read = |source| FilesError::Read { path: path.clone(), source };
        let found = path.symlink_metadata().map_err(read)?;
        let kind = found.file_type();
        if !(kind.is_dir() || kind.is_file()) {
            return Err(FilesError::Kind(path));
        }
        if self.within.len() > DEEPEST {
            return Err(FilesError::TooDeep(path));
        }
        let (directory, size) = (kind.is_dir(), found.len());
        if !erofs::may_be_a_file_of(size) {
            return Err(FilesError::TooLarge(path));
        }
        self.paths.push(Met { dst: dst.clone(), path: path.clone(), directory, size, spec });
        if directory {
            let names = names(&path).map_err(read)?;
            self.within.push(path.clone());
            for name in names {
                let below = path.join(&name);
                if !self.is_own_state(&below) {
                    self.add(spec, below, join(&dst, name.as_bytes()))?;
                }
            }
            self.within.pop();
        }
        Ok(())
    }

    /// What a link in a directory leads to.
    fn followed(&self, link: &Path) -> Result<PathBuf, FilesError> {
        let to = self.inside(link)?;
        if self.within.contains(&to) {
            return Err(FilesError::Circle { src: self.shown(link), to });
        }
        Ok(to)
    }

    /// Whether Kiln keeps its state there, as `kiln up` does beside the spec, or as it is told to.
    fn is_own_state(&self, path: &Path) -> bool {
        self.state == Some(path) || path.strip_prefix(self.project).is_ok_and(|p| p == Path::new(OWN_STATE))
    }
}

fn names(dir: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = fs::read_dir(dir)?.map(|e| e.map(|e| e.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn destination(spec: &FileSpec) -> Result<Vec<u8>, FilesError> {
    let bad = || FilesError::Destination { dst: spec.dst.clone() };
    let rest = spec.dst.strip_prefix('/').ok_or_else(bad)?;
    let mut path = Vec::new();
    for name in rest.split('/').filter(|n| !matches!(*n, "" | ".")) {
        if name == ".." {
            return Err(bad());
        }
        path.push(b'/');
        path.extend_from_slice(name.as_bytes());
    }
    if path.is_empty() {
        path.push(b'/');
    }
    Ok(path)
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let dir = dir.strip_suffix(b"/").unwrap_or(dir);
    [dir, b"/", name].concat()
}

fn known(met: Met, cancelled: Cancelled<'_>) -> Result<Found, FilesError> {
    let what = if met.directory { What::Directory } else { file(met.path, cancelled)? };
    Ok(Found { dst: met.dst, what, spec: met.spec })
}

fn file(path: PathBuf, cancelled: Cancelled<'_>) -> Result<What, FilesError> {
    let read = |source| not_read(&path, source, cancelled);
    let file = File::open(&path).map_err(read)?;
    let executable = file.metadata().map_err(read)?.permissions().mode() & 0o111 != 0;
    let (digest, size) = Verity::of_sparse(&file, &|| still_wanted(cancelled)).map_err(read)?;
    Ok(What::File { executable, digest, size, path })
}

/// Ends the reading of a file that nobody waits for any more.
fn still_wanted(cancelled: Cancelled<'_>) -> io::Result<()> {
    if cancelled() { Err(io::Error::other("called off")) } else { Ok(()) }
}

/// What is said of a file that was not read to its end.
fn not_read(path: &Path, source: io::Error, cancelled: Cancelled<'_>) -> FilesError {
    if cancelled() { FilesError::Cancelled } else { FilesError::Read { path: path.into(), source } }
}
