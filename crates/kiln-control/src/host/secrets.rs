//! Secrets of apps: set, listed, removed, and pinned into releases.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::{
    Answer, AppName, AppState, ExitCode, Failure, Record, Release, ReleaseId, SecretAnswer, SecretEntry,
    SecretName, SecretValue, SecretVersion, SecretVersions,
};
use kiln_store::boundary::stored;
use kiln_store::{
    Holders, HostLock, OperationLog, PresentSecrets, SecretRecord, SecretRemoval, SecretSetting, Store,
    StoreError, Sweeper,
};

use super::told_secrets::open_log;
use super::{LocalHost, failure};
use crate::contract::Caller;
use crate::core::Past;
use crate::project::Project;
use crate::shelf::SystemClock;
use crate::sync::lock;
use crate::world::Clock;

impl LocalHost {
    /// The present versions of the app's secrets, which must include all that its services need.
    pub(crate) fn secrets_for(&self, project: &Project) -> Result<SecretVersions, Failure> {
        let app = &project.spec.app;
        let PresentSecrets { versions, shut } =
            self.store.present_secrets(app).map_err(|e| failure::store(&e))?;
        let missing = project.spec.missing_secrets(&versions);
        let Some(first) = missing.first() else { return Ok(versions) };
        if let Some((first, error)) = missing.iter().find_map(|m| Some((m, shut.get(&m.name)?))) {
            let whose = format!("service {}", first.service);
            return Err(failure::shut(app, &first.name, &whose, error));
        }
        let message = format!("secret {} of service {} has no value", first.name, first.service);
        let mut failure = Failure::new(ExitCode::Spec, message);
        for more in &missing[1..] {
            failure =
                failure.because(format!("neither has secret {} of service {}", more.name, more.service));
        }
        let root = self.store.root().display();
        let command = format!("kiln secret set {} --app {app} --root {root} < FILE", first.name);
        Err(failure.hint(format!("`{command}` gives it one; nothing was made")))
    }

    /// Puts a release on the shelf, if the secret versions it holds still are there.
    pub(crate) fn keep_release(&self, release: &Release) -> Result<(), Failure> {
        let _lock = self.store.lock_secrets().map_err(|e| failure::store(&e))?;
        self.has_its_secrets(release)?;
        let root = || self.store.root().join("releases");
        stored(root, || self.store.put_release(release)).map_err(|e| failure::store(&e))?;
        Ok(())
    }

    /// Whether every secret version that a release holds is here, and opens.
    pub(crate) fn has_its_secrets(&self, release: &Release) -> Result<(), Failure> {
        let id = release.id();
        for (name, version) in release.secrets() {
            self.store.secret(&release.app, name, version).map_err(|error| match error {
                StoreError::NoSuchSecret { .. } => {
                    let hint = format!(
                        "set the value it had again: the same value is the same version; or `kiln import` it with its \
                         secrets. {} needs it",
                        id.short()
                    );
                    Failure::from_error(ExitCode::Spec, &error).hint(hint)
                }
                _ => failure::shut(&release.app, name, id.short(), &error),
            })?;
        }
        Ok(())
    }

    pub(crate) fn secret_set(
        &self,
        app: Option<AppName>,
        name: SecretName,
        value: &SecretValue,
        lost_key: LostKey,
        by: &Caller,
    ) -> Result<Answer, Failure> {
        let app = self.app_of_secrets(app)?;
        let at = self.clock.now();
        // The value first: what the log does not tell of yet is told of by the next start (`told_secrets`).
        let path = || self.store.root().join("secrets");
        let put = || {
            lost_key.see_to(&self.store)?;
            self.store.set_secret(&app, &name, value, at, &by.name)
        };
        let answer = set(stored(path, put))?;
        if answer.changed {
            let version = answer.entry.version.clone();
            self.note(&Record::SecretSet { at: self.clock.now(), by: by.author(), app, name, version })?;
        }
        Ok(Answer::Secret(answer))
    }

    pub(crate) fn secret_list(&self, app: Option<AppName>) -> Result<Answer, Failure> {
        let app = self.app_of_secrets(app)?;
        list(&self.store, &app, &self.state_of(&app)).map(Answer::Secrets)
    }

    pub(crate) fn secret_remove(
        &self,
        app: Option<AppName>,
        name: SecretName,
        version: Option<SecretVersion>,
        by: &Caller,
    ) -> Result<Answer, Failure> {
        let app = self.app_of_secrets(app)?;
        let state = self.state_of(&app);
        let (removal, _nobody_deploys) = removal(&self.store, &app, &name, version.as_ref(), &state)?;
        // The log first: who removed it could not be told afterwards. The next start finishes what it says.
        self.note(&Record::SecretRemoved { at: self.clock.now(), by: by.author(), app, name, version })?;
        stored(|| self.store.root().join("secrets"), || removal.carry_out()).map_err(|e| not_removed(&e))?;
        Ok(Answer::Done)
    }

    fn state_of(&self, app: &AppName) -> AppState {
        lock(&self.driver.core).apps().get(app).cloned().unwrap_or_default()
    }

    /// Secrets may be set before anything has been deployed.
    fn app_of_secrets(&self, app: Option<AppName>) -> Result<AppName, Failure> {
        app.map_or_else(|| self.app(None), Ok)
    }
}

/// What becomes of a key that is gone, while there is what only it opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostKey {
    /// It is missed: nothing is sealed without it.
    Missed,
    /// Another one takes its place.
    Replaced,
}

impl LostKey {
    /// As a command says it.
    pub fn of(new_key: bool) -> Self {
        if new_key { Self::Replaced } else { Self::Missed }
    }

    fn see_to(self, store: &Store) -> kiln_store::Result<()> {
        match self {
            Self::Missed => Ok(()),
            Self::Replaced => store.replace_lost_key().map(drop),
        }
    }
}

/// A state directory on which no host runs, for as long as its secrets are worked on.
pub struct Offline {
    store: Store,
    log: OperationLog,
    past: Past,
    _held: HostLock,
}

impl Offline {
    /// Takes the place of a host.
    ///
    /// # Errors
    /// If one runs there, or the directory cannot be used.
    pub fn open(store: Store) -> Result<Self, Failure> {
        let held = HostLock::take(&store).map_err(|e| failure::store(&e))?;
        let (log, past) = open_log(&store, &held)?;
        Ok(Self { store, log, past, _held: held })
    }

    /// As `kiln secret set`.
    ///
    /// # Errors
    /// If it cannot be written or sealed.
    pub fn set(
        &mut self,
        app: AppName,
        name: SecretName,
        value: &SecretValue,
        lost_key: LostKey,
        by: &Caller,
    ) -> Result<SecretAnswer, Failure> {
        let (at, by) = (SystemClock.now(), by.author());
        lost_key.see_to(&self.store).map_err(|e| failure::store(&e))?;
        let answer = set(self.store.set_secret(&app, &name, value, at, &by.name))?;
        if answer.changed {
            let version = answer.entry.version.clone();
            self.note(&Record::SecretSet { at, by, app, name, version })?;
        }
        Ok(answer)
    }

    /// As `kiln secret list`.
    ///
    /// # Errors
    /// If one does not read.
    pub fn list(&self, app: &AppName) -> Result<Vec<SecretEntry>, Failure> {
        list(&self.store, app, &self.past.state_of(app))
    }

    /// As `kiln secret rm`.
    ///
    /// # Errors
    /// If a release that is kept needs it, or there is none.
    pub fn remove(
        &mut self,
        app: AppName,
        name: SecretName,
        version: Option<SecretVersion>,
        by: &Caller,
    ) -> Result<(), Failure> {
        let state = self.past.state_of(&app);
        let (removal, _nobody_deploys) = removal(&self.store, &app, &name, version.as_ref(), &state)?;
        self.note(&Record::SecretRemoved { at: SystemClock.now(), by: by.author(), app, name, version })?;
        removal.carry_out().map(drop).map_err(|e| not_removed(&e))
    }

    fn note(&mut self, record: &Record) -> Result<(), Failure> {
        self.log.append(record).map(drop).map_err(|e| failure::store(&e))
    }
}

fn set(kept: kiln_store::Result<(SecretRecord, bool)>) -> Result<SecretAnswer, Failure> {
    let (record, changed) = kept.map_err(|e| failure::store(&e))?;
    let app = &record.app.clone();
    let setting = SecretSetting {
        name: record.name.clone(),
        number: record.number,
        record: Some(record),
        problem: None,
    };
    Ok(SecretAnswer { changed, entry: entry(app, setting, true, Vec::new()) })
}

/// The secrets of an app in a store, by name, the present version of each first.
fn list(store: &Store, app: &AppName, state: &AppState) -> Result<Vec<SecretEntry>, Failure> {
    let mut settings = store.secret_settings(app).map_err(|e| failure::store(&e))?;
    let holders = Holders::These(state.held());
    let used = store.secrets_in_use(app, &holders).map_err(|e| failure::store(&e))?;
    settings.reverse();
    settings.sort_by(|a, b| a.name.cmp(&b.name));
    let mut present = BTreeMap::new();
    let entries = settings.into_iter().map(|setting| {
        let is_present = *present.entry(setting.name.clone()).or_insert(setting.number) == setting.number;
        let version = setting.record.as_ref().map(|record| record.version.clone());
        let users = version.and_then(|version| used.get(&(setting.name.clone(), version)));
        let releases = users.into_iter().flatten().cloned().collect();
        entry(app, setting, is_present, releases)
    });
    Ok(entries.collect())
}

/// What goes, and what keeps everybody from needing it meanwhile. What holds a version is what `kiln gc` would keep.
fn removal(
    store: &Store,
    app: &AppName,
    name: &SecretName,
    version: Option<&SecretVersion>,
    state: &AppState,
) -> Result<(SecretRemoval, Option<Sweeper>), Failure> {
    let (holders, nobody_deploys) = holders(store, state)?;
    let removal = store.removal_of_secret(app, name, version, &holders).map_err(|e| match &e {
        StoreError::SecretInUse { releases, .. } => {
            Failure::from_error(ExitCode::Usage, &e).hint(way_out(releases, state))
        }
        StoreError::NoSuchSecret { .. } => {
            Failure::from_error(ExitCode::Usage, &e).hint("`kiln secret list` shows what there is")
        }
        _ => failure::store(&e),
    })?;
    Ok((removal, nobody_deploys))
}

fn not_removed(error: &StoreError) -> Failure {
    failure::store(error)
        .hint("the log says that it is removed: run it again, or start the host again, which does it")
}

/// The releases that hold secrets, as long as the sweeper is held that comes with them.
fn holders(store: &Store, state: &AppState) -> Result<(Holders, Option<Sweeper>), Failure> {
    match store.sweeper() {
        Ok(sweeper) => Ok((Holders::These(state.held()), Some(sweeper))),
        Err(StoreError::InUse) => Ok((Holders::All, None)),
        Err(e) => Err(failure::store(&e)),
    }
}

/// How a version can be removed all the same that these releases hold.
fn way_out(releases: &BTreeSet<ReleaseId>, state: &AppState) -> String {
    if !releases.is_subset(&state.held()) {
        "something is being baked or deployed and may need it: try again when that has ended".into()
    } else if releases.is_disjoint(&state.needed()) {
        "they can be gone back to and need it then; `kiln gc --keep 0` lets them go, and this removes it"
            .into()
    } else {
        "what serves, is warm, is pinned or served before keeps its secrets: deploy something that does without this \
         version, `kiln unpin` what is pinned, and `kiln gc --keep 0` lets go what can be gone back to"
            .into()
    }
}

fn entry(app: &AppName, setting: SecretSetting, present: bool, releases: Vec<ReleaseId>) -> SecretEntry {
    let SecretSetting { name, number, record, problem } = setting;
    let (version, created, by) = match record {
        Some(SecretRecord { version, at, by, .. }) => (Some(version), Some(at), Some(by)),
        None => (None, None, None),
    };
    let damage = problem.map(|problem| problem.to_string());
    SecretEntry { app: app.clone(), name, version, number, created, by, present, releases, damage }
}
