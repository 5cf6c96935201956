//! The directory an app is described in: `kiln.toml`, `kiln.lock`, and the files they speak of.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kiln_model::spec::{Spec, SpecError};
use kiln_model::{ExitCode, Failure, ImageName, ImageRecord, Lock};

/// The largest spec or lock that is read: what is larger is something else.
const MAX_BYTES: u64 = 16 << 20;

/// An app's directory and what its spec says.
#[derive(Debug, Clone)]
pub struct Project {
    /// The directory.
    pub dir: PathBuf,
    /// The spec, resolved.
    pub spec: Spec,
    /// What it was read from.
    pub text: String,
}

impl Project {
    /// Reads the spec in `dir`.
    ///
    /// # Errors
    /// If there is none, or it is invalid.
    pub fn load(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join("kiln.toml");
        let text = read(&path)?.ok_or_else(|| {
            Failure::new(ExitCode::Usage, format!("there is no kiln.toml in {}", dir.display()))
                .hint("name the directory of an app, or write a kiln.toml there; `kiln schema` describes it")
        })?;
        let file = path.display().to_string();
        let spec = Spec::parse(&file, &text)?;
        spec.allows_its_handmade((&file, &text))?;
        Ok(Self { dir: dir.to_owned(), spec, text })
    }

    /// The rules of the spec's policy, if `images` keep all of them.
    ///
    /// # Errors
    /// The rules that are broken, each with its line.
    pub fn kept_policy(
        &self,
        images: &BTreeMap<ImageName, ImageRecord>,
    ) -> Result<BTreeSet<String>, Failure> {
        let file = self.dir.join("kiln.toml").display().to_string();
        Ok(self.spec.kept_policy(images, &kiln_bake::compare_versions, (&file, &self.text))?)
    }

    /// What is wrong with the `index`th of the files of an image, with its line.
    pub(crate) fn wrong_file(&self, image: &ImageName, index: usize, problem: &str) -> Failure {
        let file = self.dir.join("kiln.toml").display().to_string();
        SpecError::of_file((&file, &self.text), image, index, problem).into()
    }

    /// Reads the lock beside the spec, if there is one.
    ///
    /// # Errors
    /// If it is invalid.
    pub fn lock(&self) -> Result<Option<Lock>, Failure> {
        let path = self.lock_path();
        let Some(text) = read(&path)? else { return Ok(None) };
        let invalid = |e: &dyn std::error::Error| {
            let message = format!("{} is not a valid lock", path.display());
            Failure::new(ExitCode::Spec, message)
                .because(e.to_string())
                .hint("restore it from version control, or remove it and run `kiln lock`")
        };
        Lock::from_toml(&text).map(Some).map_err(|e| invalid(&e))
    }

    /// Writes the lock, all of it or nothing.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub fn put_lock(&self, lock: &Lock) -> Result<(), Failure> {
        let path = self.lock_path();
        let failed = |e: std::io::Error| {
            Failure::new(ExitCode::Host, format!("could not write {}", path.display())).because(e.to_string())
        };
        let temporary = self.dir.join(".kiln.lock.new");
        let write = || {
            // Never through a link somebody has put there: this runs as root, in a directory that is not root's.
            if let Err(e) = std::fs::remove_file(&temporary)
                && e.kind() != ErrorKind::NotFound
            {
                return Err(e);
            }
            let mut file = std::fs::File::create_new(&temporary)?;
            file.write_all(lock.to_toml().as_bytes())?;
            // It belongs beside the spec and to whoever that belongs to, not to the root this runs as.
            let owner = std::fs::metadata(self.dir.join("kiln.toml"))?;
            std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)
        };
        write().map_err(failed)
    }

    /// The spec and the lock as they are written now, by name.
    pub(crate) fn texts(&self) -> Vec<(&'static str, Vec<u8>)> {
        let read = |name: &'static str| Some((name, std::fs::read(self.dir.join(name)).ok()?));
        ["kiln.toml", "kiln.lock"].into_iter().filter_map(read).collect()
    }

    fn lock_path(&self) -> PathBuf {
        self.dir.join("kiln.lock")
    }
}

fn read(path: &Path) -> Result<Option<String>, Failure> {
    let failed = |cause: String| {
        Err(Failure::new(ExitCode::Spec, format!("could not read {}", path.display())).because(cause))
    };
    match std::fs::metadata(path) {
        Ok(m) if m.len() > MAX_BYTES => {
            return failed(format!("it has {} bytes, at most {MAX_BYTES} are read", m.len()));
        }
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return failed(e.to_string()),
    }
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) => failed(e.to_string()),
    }
}
