//! Removing secrets: what of them may go, and what goes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kiln_model::{AppName, ReleaseId, SecretName, SecretVersion};

use super::settings::remove;
use super::{SecretsLock, no_such_secret};
use crate::temp::sync_dir;
use crate::{Result, Store, StoreError};

impl Store {
    /// What goes when a secret is removed, or one version of it. Nothing has gone yet, and nobody sets or removes a secret
    /// before that is done with.
    ///
    /// # Errors
    /// [`StoreError::SecretInUse`] with the releases if any of the `holders` needs a version of these;
    /// [`StoreError::NoSuchSecret`]; otherwise as [`Store::secrets`].
    pub fn removal_of_secret(
        &self,
        app: &AppName,
        name: &SecretName,
        version: Option<&SecretVersion>,
        holders: &Holders,
    ) -> Result<SecretRemoval> {
        let lock = self.lock_secrets()?;
        let settings = self.settings(app, name)?;
        let doomed: BTreeMap<u64, SecretVersion> = settings
            .read
            .into_iter()
            .map(|(number, sealed)| (number, sealed.record.version))
            .filter(|(_, v)| version.is_none_or(|wanted| wanted == v))
            .collect();
        // Of no use to any release, whichever version they were.
        let unread: Vec<u64> = settings.unread.into_keys().filter(|_| version.is_none()).collect();
        if doomed.is_empty() && unread.is_empty() {
            return Err(no_such_secret(app, name, version));
        }
        let versions: BTreeSet<SecretVersion> = doomed.values().cloned().collect();
        let used = self.secrets_in_use(app, holders)?;
        let releases: BTreeSet<ReleaseId> =
            versions.iter().filter_map(|v| used.get(&(name.clone(), v.clone()))).flatten().cloned().collect();
        if !releases.is_empty() {
            return Err(StoreError::SecretInUse { app: app.clone(), name: name.clone(), releases });
        }
        Ok(SecretRemoval { dir: self.secret_dir(app, name), doomed, unread, _lock: lock })
    }

    /// Which of the `holders` that are releases of an app need which versions of secrets.
    ///
    /// # Errors
    /// If a release does not read, or the system refuses.
    pub fn secrets_in_use(
        &self,
        app: &AppName,
        holders: &Holders,
    ) -> Result<BTreeMap<(SecretName, SecretVersion), BTreeSet<ReleaseId>>> {
        let mut used: BTreeMap<_, BTreeSet<ReleaseId>> = BTreeMap::new();
        for id in self.releases()?.into_iter().filter(|id| holders.include(id)) {
            let release = self.release(&id)?;
            if release.app == *app {
                for (name, version) in release.secrets() {
                    used.entry((name.clone(), version.clone())).or_default().insert(id.clone());
                }
            }
        }
        Ok(used)
    }
}

/// The releases whose secrets must stay.
#[derive(Debug)]
pub enum Holders {
    /// These. Whoever says so sees to it that none is being made meanwhile ([`Store::sweeper`]).
    These(BTreeSet<ReleaseId>),
    /// All that are here: something is being made, and it cannot be said of any that nobody will need it.
    All,
}

impl Holders {
    fn include(&self, release: &ReleaseId) -> bool {
        match self {
            Self::These(these) => these.contains(release),
            Self::All => true,
        }
    }
}

/// Settings of a secret that are to go.
#[derive(Debug)]
pub struct SecretRemoval {
    dir: PathBuf,
    doomed: BTreeMap<u64, SecretVersion>,
    unread: Vec<u64>,
    _lock: SecretsLock,
}

impl SecretRemoval {
    /// Has them go; the versions that are gone.
    ///
    /// # Errors
    /// What the system refused; some may be gone.
    pub fn carry_out(self) -> Result<BTreeSet<SecretVersion>> {
        remove(&self.dir, self.doomed.keys().chain(&self.unread).copied())?;
        sync_dir(&self.dir)?;
        Ok(self.doomed.into_values().collect())
    }
}
