//! Secrets at rest: encrypted, versioned, never edited.
//!
//! ```text
//! secrets/                        0700
//! ├── key                         32 bytes in hex, 0600; unless a key is given (see [`key`])
//! ├── lock                        held while secrets are set or removed
//! └── <app>/<NAME>/<number>.json  one setting of one secret, 0600: what is known of it, and its value, sealed
//! ```
//! The highest number is the present one. A number's version follows from its value (`docs/design/release.md`), so
//! setting a value again that was there before gives another number and the same version. A value that is set again
//! takes the place of what of that secret cannot be opened any more.

mod key;
mod removal;
mod sealed;
mod settings;
mod version;

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use kiln_model::{AppName, SecretName, SecretValue, SecretVersion, Timestamp};
use rustix::fs::{FlockOperation, flock};

use crate::documents::names_in;
use crate::error::{if_present, on};
use crate::temp::{ensure_dir, sync_dir};
use crate::{Result, Store, StoreError};
use key::Key;
pub use removal::{Holders, SecretRemoval};
use sealed::Sealed;
pub use sealed::SecretRecord;
pub use settings::{PresentSecrets, SecretSetting};
pub use version::of as version_of_secret;

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
        let key = Key::to_seal(self)?;
        let version = version::of(app, name, value);
        let (settings, dir) = (self.settings(app, name)?, self.secret_dir(app, name));
        let path = |number: u64| dir.join(format!("{number}.json"));
        let as_before = settings.present().filter(|present| present.record.version == version);
        let as_before = as_before.filter(|present| present.open(&key, &path(present.record.number)).is_ok());
        let kept = match as_before {
            Some(present) => (present.record.clone(), false),
            None => {
                let (app, name, by) = (app.clone(), name.clone(), by.to_owned());
                let version = version.clone();
                let record = SecretRecord { app, name, version, number: settings.next(), at, by };
                let sealed = Sealed::seal(record, value, &key)?;
                self.put_setting(&sealed)?;
                (sealed.record, true)
            }
        };
        self.clear_away(&dir, &settings, &version, &key)?;
        Ok(kept)
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
        let key = Key::to_seal(self)?;
        let version = version::of(app, name, value);
        let (mut settings, dir) = (self.settings(app, name)?, self.secret_dir(app, name));
        let path = |number: u64| dir.join(format!("{number}.json"));
        if settings.of_version(&version).any(|(number, sealed)| sealed.open(&key, &path(number)).is_ok()) {
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
        let number = settings.next();
        if let Some(damaged) = settings.last().and_then(|last| settings.unread.remove(&last)) {
            // What is present is not known, and must not become another one by the way.
            return Err(damaged);
        }
        if let Some(present) = settings.present().filter(|present| present.record.version != version) {
            // What is present is set once more, above; first, so that it is present at every moment.
            let again = present.open(&key, &path(present.record.number))?;
            self.put_setting(&Sealed::seal(
                record(number + 1, present.record.version.clone()),
                &again,
                &key,
            )?)?;
        }
        self.put_setting(&Sealed::seal(record(number, version.clone()), value, &key)?)?;
        self.clear_away(&dir, &settings, &version, &key)?;
        Ok(true)
    }

    /// Takes a setting back that could not be told of, as if it had never been made.
    ///
    /// # Errors
    /// [`StoreError::SecretInUse`] if a release holds it already; otherwise what the system refused.
    pub fn take_back_secret(&self, record: &SecretRecord) -> Result<()> {
        let SecretRecord { app, name, version, number, .. } = record;
        let _lock = self.lock_secrets()?;
        let is_there_twice = self.settings(app, name)?.of_version(version).count() > 1;
        let mut used = self.secrets_in_use(app, &Holders::All)?;
        if let Some(releases) = used.remove(&(name.clone(), version.clone())).filter(|_| !is_there_twice) {
            return Err(StoreError::SecretInUse { app: app.clone(), name: name.clone(), releases });
        }
        let dir = self.secret_dir(app, name);
        settings::remove(&dir, std::iter::once(*number))?;
        sync_dir(&dir)
    }

    /// Makes another key if the one that values are sealed with here is gone: they are given up, and are to be set again.
    /// Whether it was gone.
    ///
    /// # Errors
    /// As [`Store::set_secret`].
    pub fn replace_lost_key(&self) -> Result<bool> {
        let _lock = self.lock_secrets()?;
        Key::replace_lost(self)
    }

    fn put_setting(&self, sealed: &Sealed) -> Result<()> {
        let SecretRecord { app, name, number, .. } = &sealed.record;
        let dir = self.secret_dir(app, name);
        ensure_dir(dir.parent().expect("a directory of an app"))?;
        ensure_dir(&dir)?;
        self.write_private(&dir.join(format!("{number}.json")), &sealed.encode())
    }

    /// What is known of every setting of every secret of an app that reads, by name and number.
    ///
    /// # Errors
    /// What the system refused.
    pub fn secrets(&self, app: &AppName) -> Result<Vec<SecretRecord>> {
        let mut records = Vec::new();
        for name in self.names_of_secrets(app)? {
            records.extend(self.settings(app, &name)?.read.into_values().map(|sealed| sealed.record));
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

    /// The value of a version of a secret.
    ///
    /// # Errors
    /// [`StoreError::NoSuchSecret`]; [`StoreError::NoKey`], [`StoreError::Key`] or [`StoreError::Damaged`] if it cannot be
    /// opened, or may be in what does not read; or what the system refused.
    pub fn secret(&self, app: &AppName, name: &SecretName, version: &SecretVersion) -> Result<SecretValue> {
        let (mut settings, dir) = (self.settings(app, name)?, self.secret_dir(app, name));
        let mut why = settings.unread.pop_last().map(|(_, damaged)| damaged);
        for (number, sealed) in settings.of_version(version) {
            match sealed.open(&Key::of(self)?, &dir.join(format!("{number}.json"))) {
                Ok(value) => return Ok(value),
                Err(error) => why = Some(error),
            }
        }
        Err(why.unwrap_or_else(|| no_such_secret(app, name, Some(version))))
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
