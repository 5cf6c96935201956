//! Secrets at rest: encrypted, versioned, never edited.
//!
//! ```text
//! secrets/                        0700
//! ├── key                         32 bytes in hex, 0600; unless a key is given (see [`key`])
//! ├── lock                        held while secrets are set or removed
//! └── <app>/<NAME>/<number>.json  one setting of one secret, 0600: what is known of it, and its value, sealed
//! ```
//! The highest number is the present one. A number's version follows from its value (`docs/design/release.md`), so
//! setting a value again that was there before gives another number and the same version.

mod key;
mod removal;
mod sealed;
mod version;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use kiln_model::{AppName, SecretName, SecretValue, SecretVersion, SecretVersions, Timestamp};
use rustix::fs::{FlockOperation, flock};

use crate::documents::{names_in, read_json};
use crate::error::{if_present, on};
use crate::temp::ensure_dir;
use crate::{Result, Store, StoreError};
use key::Key;
pub use removal::{Holders, SecretRemoval};
use sealed::Sealed;
pub use sealed::SecretRecord;
pub(crate) use version::of as version_of;

impl Store {
    /// Keeps a value as the present one of a secret; what is known of it, and whether anything has changed: setting
    /// the value that is present already changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Key`], or what the system refused.
    pub fn set_secret(
        &self,
        app: &AppName,
        name: &SecretName,
        value: &SecretValue,
        at: Timestamp,
        by: &str,
    ) -> Result<(SecretRecord, bool)> {
        let _lock = self.lock_secrets()?;
        let key = Key::of(self)?;
        let version = version::of(app, name, value);
        let last = self.settings(app, name)?.into_iter().next_back().map(|(_, sealed)| sealed.record);
        let number = match last {
            Some(present) if present.version == version => return Ok((present, false)),
            Some(present) => present.number + 1,
            None => 1,
        };
        let (app, name, by) = (app.clone(), name.clone(), by.to_owned());
        let record = SecretRecord { app, name, version, number, at, by };
        let sealed = Sealed::seal(record, value, &key)?;
        self.put_setting(&sealed)?;
        Ok((sealed.record, true))
    }

    /// Keeps a value that came from elsewhere, for releases that need it, and leaves present what is; whether it was not
    /// here before.
    ///
    /// # Errors
    /// As [`Store::set_secret`].
    pub fn keep_secret(
        &self,
        app: &AppName,
        name: &SecretName,
        value: &SecretValue,
        at: Timestamp,
        by: &str,
    ) -> Result<bool> {
        let _lock = self.lock_secrets()?;
        let key = Key::of(self)?;
        let version = version::of(app, name, value);
        let settings = self.settings(app, name)?;
        if settings.values().any(|sealed| sealed.record.version == version) {
            return Ok(false);
        }
        let record = |number, version| SecretRecord {
            app: app.clone(),
            name: name.clone(),
            version,
            number,
            at,
            by: by.to_owned(),
        };
        let last = settings.into_iter().next_back();
        let number = last.as_ref().map_or(1, |(number, _)| number + 1);
        if let Some((last, present)) = last {
            // What is present is set once more, above; first, so that it is present at every moment.
            let path = self.secret_dir(app, name).join(format!("{last}.json"));
            let again = present.open(&key, &path)?;
            self.put_setting(&Sealed::seal(record(number + 1, present.record.version), &again, &key)?)?;
        }
        self.put_setting(&Sealed::seal(record(number, version), value, &key)?)?;
        Ok(true)
    }

    fn put_setting(&self, sealed: &Sealed) -> Result<()> {
        let SecretRecord { app, name, number, .. } = &sealed.record;
        let dir = self.secret_dir(app, name);
        ensure_dir(dir.parent().expect("a directory of an app"))?;
        ensure_dir(&dir)?;
        self.write_private(&dir.join(format!("{number}.json")), &sealed.encode())
    }

    /// Every setting of every secret of an app, by name and number.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], or what the system refused.
    pub fn secrets(&self, app: &AppName) -> Result<Vec<SecretRecord>> {
        let mut records = Vec::new();
        for name in names_in_if_there(&self.dir("secrets").join(app.as_str()))? {
            let Ok(name) = name.parse() else { continue };
            records.extend(self.settings(app, &name)?.into_values().map(|sealed| sealed.record));
        }
        Ok(records)
    }

    /// The apps that have secrets, or had.
    ///
    /// # Errors
    /// What the system refused.
    pub fn apps_with_secrets(&self) -> Result<Vec<AppName>> {
        let names = names_in_if_there(&self.dir("secrets"))?;
        // The key and the lock are no directories, but may be called like an app.
        let is_app = |name: &String| self.dir("secrets").join(name).is_dir();
        Ok(names.into_iter().filter(is_app).filter_map(|name| name.parse().ok()).collect())
    }

    /// The present version of every secret of an app.
    ///
    /// # Errors
    /// As [`Store::secrets`].
    pub fn secret_versions(&self, app: &AppName) -> Result<SecretVersions> {
        // By name and number: the last of a name wins.
        Ok(self.secrets(app)?.into_iter().map(|r| (r.name, r.version)).collect())
    }

    /// Whether a version of a secret is here.
    ///
    /// # Errors
    /// As [`Store::secrets`].
    pub fn has_secret(&self, app: &AppName, name: &SecretName, version: &SecretVersion) -> Result<bool> {
        Ok(self.settings(app, name)?.values().any(|s| s.record.version == *version))
    }

    /// The value of a version of a secret.
    ///
    /// # Errors
    /// [`StoreError::NoSuchSecret`], [`StoreError::Key`], [`StoreError::Damaged`], or what the system refused.
    pub fn secret(&self, app: &AppName, name: &SecretName, version: &SecretVersion) -> Result<SecretValue> {
        let settings = self.settings(app, name)?;
        let found = settings.into_iter().find(|(_, s)| s.record.version == *version);
        let (number, sealed) = found.ok_or_else(|| no_such_secret(app, name, Some(version)))?;
        let path = self.secret_dir(app, name).join(format!("{number}.json"));
        sealed.open(&Key::of(self)?, &path)
    }

    /// While it is held, nobody sets or removes a secret. What pins versions into a release holds it from its last
    /// look at them until the release is kept.
    ///
    /// # Errors
    /// What the system refused.
    pub fn lock_secrets(&self) -> Result<SecretsLock> {
        let dir = self.dir("secrets");
        ensure_dir(&dir)?;
        fs::set_permissions(&dir, Permissions::from_mode(0o700)).map_err(on("set the mode of", &dir))?;
        let path = dir.join("lock");
        let opened = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = opened.map_err(on("open the lock", &path))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|e| on("lock", &path)(e.into()))?;
        Ok(SecretsLock { _file: file })
    }

    /// Settings of one secret by number.
    fn settings(&self, app: &AppName, name: &SecretName) -> Result<BTreeMap<u64, Sealed>> {
        let dir = self.secret_dir(app, name);
        let mut settings = BTreeMap::new();
        for number in names_in_if_there(&dir)? {
            let Some(number) = number.strip_suffix(".json").and_then(|n| n.parse().ok()) else { continue };
            let path = dir.join(format!("{number}.json"));
            let Some(sealed) = read_json::<Sealed>(&path)? else { continue };
            let record = &sealed.record;
            if (&record.app, &record.name, record.number) != (app, name, number) {
                return Err(StoreError::damaged(&path, "it belongs elsewhere"));
            }
            settings.insert(number, sealed);
        }
        Ok(settings)
    }

    fn secret_dir(&self, app: &AppName, name: &SecretName) -> PathBuf {
        self.dir("secrets").join(app.as_str()).join(name.as_str())
    }
}

/// Held while secrets must stay as they are.
#[derive(Debug)]
pub struct SecretsLock {
    _file: File,
}

fn no_such_secret(app: &AppName, name: &SecretName, version: Option<&SecretVersion>) -> StoreError {
    StoreError::NoSuchSecret { app: app.clone(), name: name.clone(), version: version.cloned() }
}

fn names_in_if_there(dir: &std::path::Path) -> Result<Vec<String>> {
    match if_present(fs::metadata(dir)).map_err(on("look for", dir))? {
        Some(_) => names_in(dir, ""),
        None => Ok(Vec::new()),
    }
}

/// The errors of a key.
fn bad_key(path: &std::path::Path, problem: impl Into<String>) -> StoreError {
    StoreError::Key { path: path.to_owned(), problem: problem.into() }
}
