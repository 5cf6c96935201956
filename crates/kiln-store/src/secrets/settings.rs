//! The settings of a secret as they are found: what of them reads, what opens, and what is wrong with the others.
//!
//! One that is damaged is no reason to know nothing of the others. But where the present one does not read, the one before
//! it does not become present: nobody has asked for that.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kiln_model::{AppName, SecretName, SecretVersion, SecretVersions};

use super::key::Key;
use super::names_in_if_there;
use super::sealed::{Sealed, SecretRecord};
use crate::boundary::changed;
use crate::documents::read_json;
use crate::error::on;
use crate::temp::sync_dir;
use crate::verify::is_damage;
use crate::{Result, Store, StoreError};

/// One setting of a secret, as it is found.
#[derive(Debug)]
pub struct SecretSetting {
    /// The secret.
    pub name: SecretName,
    /// Which setting it is.
    pub number: u64,
    /// What is known of it, if that reads.
    pub record: Option<SecretRecord>,
    /// Why its value cannot be had, if it cannot.
    pub problem: Option<StoreError>,
}

/// The present versions of the secrets of an app.
#[derive(Debug, Default)]
pub struct PresentSecrets {
    /// Those whose values can be had.
    pub versions: SecretVersions,
    /// The others, and why not.
    pub shut: BTreeMap<SecretName, StoreError>,
}

/// The settings of one secret, by number.
#[derive(Default)]
pub(super) struct Settings {
    pub(super) read: BTreeMap<u64, Sealed>,
    /// Those that are damaged, and how.
    pub(super) unread: BTreeMap<u64, StoreError>,
}

impl Settings {
    /// The number of the present one, if there is any.
    pub(super) fn last(&self) -> Option<u64> {
        self.read.keys().chain(self.unread.keys()).max().copied()
    }

    pub(super) fn next(&self) -> u64 {
        self.last().map_or(1, |last| last + 1)
    }

    /// The present one, if it reads.
    pub(super) fn present(&self) -> Option<&Sealed> {
        self.read.get(&self.last()?)
    }

    pub(super) fn of_version<'a>(
        &'a self,
        version: &'a SecretVersion,
    ) -> impl DoubleEndedIterator<Item = (u64, &'a Sealed)> {
        self.read.iter().filter(move |(_, s)| s.record.version == *version).map(|(n, s)| (*n, s))
    }

    fn take(mut self, key: &Result<Key>, dir: &Path) -> Vec<SecretSetting> {
        let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Ok(name) = name.parse::<SecretName>() else { return Vec::new() };
        let numbers: Vec<u64> = self.read.keys().chain(self.unread.keys()).copied().collect();
        let mut settings = Vec::new();
        for number in numbers {
            let (record, problem) = match self.read.remove(&number) {
                Some(sealed) => {
                    let problem = sealed.problem(key, &dir.join(format!("{number}.json")));
                    (Some(sealed.record), problem)
                }
                None => (None, self.unread.remove(&number)),
            };
            settings.push(SecretSetting { name: name.clone(), number, record, problem });
        }
        settings.sort_by_key(|setting| setting.number);
        settings
    }
}

impl Store {
    /// Every setting of every secret of an app, by name and number, each opened.
    ///
    /// # Errors
    /// What the system refused; that one cannot be had is no error.
    pub fn secret_settings(&self, app: &AppName) -> Result<Vec<SecretSetting>> {
        let mut all = Vec::new();
        for name in self.names_of_secrets(app)? {
            all.push((self.secret_dir(app, &name), self.settings(app, &name)?));
        }
        // Read after them: it is there before anything is sealed with it.
        let key = Key::of(self);
        Ok(all.into_iter().flat_map(|(dir, settings)| settings.take(&key, &dir)).collect())
    }

    /// The present version of every secret of an app.
    ///
    /// # Errors
    /// As [`Store::secret_settings`].
    pub fn present_secrets(&self, app: &AppName) -> Result<PresentSecrets> {
        let mut present = PresentSecrets::default();
        // By name and number: the last of a name is what it is.
        for SecretSetting { name, record, problem, .. } in self.secret_settings(app)? {
            present.versions.remove(&name);
            present.shut.remove(&name);
            match (record, problem) {
                (Some(record), None) => drop(present.versions.insert(name, record.version)),
                (_, Some(problem)) => drop(present.shut.insert(name, problem)),
                (None, None) => {}
            }
        }
        Ok(present)
    }

    /// Whether anything is sealed here.
    pub(super) fn has_sealed(&self) -> Result<bool> {
        for app in self.apps_with_secrets()? {
            for name in self.names_of_secrets(&app)? {
                if self.settings(&app, &name)?.last().is_some() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    pub(super) fn names_of_secrets(&self, app: &AppName) -> Result<Vec<SecretName>> {
        let names = names_in_if_there(&self.dir("secrets").join(app.as_str()))?;
        Ok(names.into_iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Settings of one secret by number.
    pub(super) fn settings(&self, app: &AppName, name: &SecretName) -> Result<Settings> {
        let dir = self.secret_dir(app, name);
        let mut settings = Settings::default();
        for number in names_in_if_there(&dir)? {
            let Some(number) = number.strip_suffix(".json").and_then(|n| n.parse().ok()) else { continue };
            match setting(&dir.join(format!("{number}.json")), (app, name, number)) {
                Ok(Some(sealed)) => drop(settings.read.insert(number, sealed)),
                Ok(None) => {}
                Err(error) if is_damage(&error) => drop(settings.unread.insert(number, error)),
                Err(error) => return Err(error),
            }
        }
        Ok(settings)
    }

    /// Removes what a value that was just set again takes the place of: settings of the same version that do not open, and
    /// those of which nobody can tell any more what they were. What a disk does not give back now it may give back later.
    pub(super) fn clear_away(
        &self,
        dir: &Path,
        settings: &Settings,
        version: &SecretVersion,
        key: &Key,
    ) -> Result<()> {
        let path = |number: u64| dir.join(format!("{number}.json"));
        let shut = settings.of_version(version).filter(|(n, s)| s.open(key, &path(*n)).is_err());
        let is_lost = |error: &StoreError| matches!(error, StoreError::Damaged { .. });
        let lost = settings.unread.iter().filter(|(_, error)| is_lost(error)).map(|(n, _)| *n);
        let doomed: Vec<u64> = shut.map(|(n, _)| n).chain(lost).collect();
        if doomed.is_empty() {
            return Ok(());
        }
        remove(dir, doomed.into_iter())?;
        sync_dir(dir)
    }
}

/// Removes settings; whoever calls flushes the directory.
pub(super) fn remove(dir: &Path, mut numbers: impl Iterator<Item = u64>) -> Result<()> {
    numbers.try_for_each(|number| {
        let path = dir.join(format!("{number}.json"));
        let remove = || fs::remove_file(&path).map_err(on("remove", &path));
        changed("remove", || path.clone(), remove)
    })
}

fn setting(path: &Path, place: (&AppName, &SecretName, u64)) -> Result<Option<Sealed>> {
    let Some(sealed) = read_json::<Sealed>(path)? else { return Ok(None) };
    let record = &sealed.record;
    if (&record.app, &record.name, record.number) != place {
        return Err(StoreError::damaged(path, "it belongs elsewhere"));
    }
    Ok(Some(sealed))
}
