//! The state directory itself: its parts, its version, and how it is opened.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{if_present, on};
use crate::objects::Objects;
use crate::temp::{TempDir, ensure_dir, sync_dir};
use crate::{Result, StoreError};

/// The number of the layout this code writes, and the newest it reads.
const LAYOUT: u32 = 1;

const DIRECTORIES: [&str; 11] = [
    "objects", "images", "inputs", "packages", "blobs", "releases", "cache", "log", "state", "output", "run",
];

/// An open state directory. Cheap to clone, and shared between threads.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    objects: PathBuf,
    temp: TempDir,
}

impl Store {
    /// Opens the state directory `root`; makes it if there is nothing yet.
    ///
    /// # Errors
    /// [`StoreError::Newer`] if a newer Kiln made it, [`StoreError::Foreign`] if it holds something else, otherwise
    /// what the system refused.
    pub fn open(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root).map_err(on("find", root))?;
        make_root(&root)?;
        match version(&root)? {
            None => begin(&root)?,
            Some(found) if found > LAYOUT => {
                return Err(StoreError::Newer { root, found, known: LAYOUT });
            }
            Some(_) => {}
        }
        DIRECTORIES.iter().try_for_each(|d| ensure_dir(&root.join(d)))?;
        let temp = TempDir::new(&root.join("tmp"))?;
        Ok(Self(Arc::new(Inner { objects: root.join("objects"), temp, root })))
    }

    /// The state directory, absolute.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// Where sockets are.
    pub fn run_dir(&self) -> PathBuf {
        self.dir("run")
    }

    /// Where the keeper writes what instances print.
    pub fn output_dir(&self) -> PathBuf {
        self.dir("output")
    }

    /// The data-only layer of every image.
    pub fn objects_dir(&self) -> &Path {
        &self.0.objects
    }

    /// The contents of files.
    pub fn objects(&self) -> Objects<'_> {
        Objects(self)
    }

    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.0.root.join(name)
    }

    pub(crate) fn temp(&self) -> &TempDir {
        &self.0.temp
    }

    /// Writes a whole file.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut file = self.temp().file()?;
        file.write(bytes)?;
        file.persist(path)
    }
}

impl Store {
    /// Writes a whole file that only root may read.
    pub(crate) fn write_private(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut file = self.temp().file()?;
        // Before anything is in it.
        fs::set_permissions(file.path(), Permissions::from_mode(0o600))
            .map_err(on("set the mode of", file.path()))?;
        file.write(bytes)?;
        file.persist(path)
    }
}

fn make_root(root: &Path) -> Result<()> {
    if root.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(root).map_err(on("create the state directory", root))
}

fn version(root: &Path) -> Result<Option<u32>> {
    let path = root.join("version");
    let Some(text) = if_present(fs::read_to_string(&path)).map_err(on("read", &path))? else {
        return Ok(None);
    };
    match text.trim().parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(StoreError::damaged(&path, format!("`{}` is not a layout number", text.trim()))),
    }
}

/// What the topmost directory of a new ext4 has in it: a disk of its own is a good place for state.
const OF_THE_FILE_SYSTEM: &str = "lost+found";

/// Makes an empty directory a state directory. The version comes first of all that stays: what has other files and
/// no version was never ours. Two processes that begin at once do the same.
fn begin(root: &Path) -> Result<()> {
    for entry in fs::read_dir(root).map_err(on("read the directory", root))? {
        let name = entry.map_err(on("read the directory", root))?.file_name();
        // Asked again, because another process may have begun in the meantime; then its version came first.
        if name != "tmp" && name != OF_THE_FILE_SYSTEM && version(root)?.is_none() {
            let problem = format!("it holds `{}`, and no file `version`", name.display());
            return Err(StoreError::Foreign { root: root.to_owned(), problem });
        }
    }
    // Before anything is in it, whoever made it.
    fs::set_permissions(root, Permissions::from_mode(0o700)).map_err(on("set the mode of", root))?;
    let temp = TempDir::new(&root.join("tmp"))?;
    let mut file = temp.file()?;
    file.write(format!("{LAYOUT}\n").as_bytes())?;
    file.persist(&root.join("version"))?;
    sync_dir(root.parent().unwrap_or(root))
}
