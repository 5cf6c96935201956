//! Secrets of apps: set, listed, removed, and pinned into releases.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::{
    Answer, AppName, AppState, Event, ExitCode, Failure, Record, Release, ReleaseId, ReleaseService,
    SecretAnswer, SecretEntry, SecretName, SecretValue, SecretVersion, SecretVersions,
};
use kiln_store::boundary::stored;
use kiln_store::{
    Holders, PresentSecrets, SecretRecord, SecretRemoval, SecretSetting, Store, StoreError, Sweeper,
};

use super::serve::Asker;
use super::{LocalHost, failure};
use crate::contract::{Caller, EventSink};
use crate::project::Project;
use crate::sync::lock;
use crate::world::Clock;

impl LocalHost {
    /// The present versions of the app's secrets, which must include all that its services need.
    pub(crate) fn secrets_for(&self, project: &Project) -> Result<SecretVersions, Failure> {
        let app = &project.spec.app;
        let PresentSecrets { versions, shut } =
            self.store.present_secrets(app).map_err(|e| failure::store(&e))?;
        let missing = project.spec.missing_secrets(&versions);
        let Some(first) = missing.first() else { return self.fit_variables(project, versions) };
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

    /// The same, where each value that is to be a variable can be one: a variable ends at its first NUL, and no instance
    /// could be started with it.
    fn fit_variables(&self, project: &Project, versions: SecretVersions) -> Result<SecretVersions, Failure> {
        let app = &project.spec.app;
        for (service, needs) in &project.spec.services {
            let variables =
                needs.secrets.iter().filter_map(|(name, variable)| Some((name, variable.as_ref()?)));
            for (name, variable) in variables {
                let value = self.store.secret(app, name, &versions[name]);
                let value = value.map_err(|e| failure::shut(app, name, &format!("service {service}"), &e))?;
                if value.reveal().contains(&0) {
                    return Err(failure::no_variable(name, service, variable));
                }
            }
        }
        Ok(versions)
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
        open(&self.store, release, release.services.values())
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
        let kept = stored(path, put);
        let new = new_record(&kept);
        let answer = set(kept)?;
        if let Some(record) = new {
            let version = answer.entry.version.clone();
            let told = Record::SecretSet { at: self.clock.now(), by: by.author(), app, name, version };
            self.note(&told).map_err(|failure| untold(&self.store, &record, failure))?;
        }
        Ok(Answer::Secret(answer))
    }

    pub(crate) fn secret_list(
        &self,
        app: Option<AppName>,
        events: &dyn EventSink,
    ) -> Result<Answer, Failure> {
        let app = self.app_of_secrets(app)?;
        let asker = Asker { events, clock: &self.clock };
        let warn = &mut |warning| asker.tell(Event::Warned { warning });
        list(&self.store, &app, &self.state_of(&app), warn).map(Answer::Secrets)
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

    pub(super) fn see_to(self, store: &Store) -> kiln_store::Result<()> {
        match self {
            Self::Missed => Ok(()),
            Self::Replaced => store.replace_lost_key().map(drop),
        }
    }
}

/// Whether every secret version is here, and opens, that these services of a release need.
pub(super) fn open<'a>(
    store: &Store,
    release: &Release,
    services: impl Iterator<Item = &'a ReleaseService>,
) -> Result<(), Failure> {
    let id = release.id();
    for (name, pinned) in services.flat_map(|service| &service.secrets) {
        store.secret(&release.app, name, &pinned.version).map_err(|error| match error {
            StoreError::NoSuchSecret { .. } => {
                let hint = format!(
                    "set the value it had again: the same value is the same version; or `kiln import` it with its secrets. \
                     {} needs it",
                    id.short()
                );
                Failure::from_error(ExitCode::Spec, &error).hint(hint)
            }
            _ => failure::shut(&release.app, name, id.short(), &error),
        })?;
    }
    Ok(())
}

/// What was just kept, if it was not there before.
pub(super) fn new_record(kept: &kiln_store::Result<(SecretRecord, bool)>) -> Option<SecretRecord> {
    kept.as_ref().ok().filter(|(_, is_new)| *is_new).map(|(record, _)| record.clone())
}

/// A value that the log cannot tell of is not kept: who set it could be said by nobody.
pub(super) fn untold(store: &Store, record: &SecretRecord, why: Failure) -> Failure {
    let (name, taken_back) = (&record.name, store.take_back_secret(record));
    let message = match &taken_back {
        Ok(()) => format!("the operation log could not be written, so secret {name} is what it was"),
        Err(_) => format!("the operation log could not be written, and secret {name} is set all the same"),
    };
    let failure = failure::attempted(message, why);
    match taken_back {
        Ok(()) => failure,
        Err(error) => {
            failure.because(error.to_string()).hint("the next start of the host has the log tell of it")
        }
    }
}

pub(super) fn set(kept: kiln_store::Result<(SecretRecord, bool)>) -> Result<SecretAnswer, Failure> {
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

/// The secrets of an app in a store, by name, the present version of each first. Which of them a release needs that does not
/// read is not known, which is warned of.
pub(super) fn list(
    store: &Store,
    app: &AppName,
    state: &AppState,
    warn: &mut dyn FnMut(String),
) -> Result<Vec<SecretEntry>, Failure> {
    let mut settings = store.secret_settings(app).map_err(|e| failure::store(&e))?;
    let mut held = state.held();
    held.retain(|release| match store.release(release) {
        Err(error @ (StoreError::Damaged { .. } | StoreError::NoSuchRelease(_))) => {
            warn(format!("which secrets release {} needs is not known: {error}", release.short()));
            false
        }
        // What else may be wrong is told below.
        _ => true,
    });
    let used = store.secrets_in_use(app, &Holders::These(held)).map_err(|e| failure::store(&e))?;
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
pub(super) fn removal(
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

pub(super) fn not_removed(error: &StoreError) -> Failure {
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
    } else if state.under_way.iter().flat_map(|u| &u.plan.to).any(|to| releases.contains(to)) {
        "what is under way is to serve it: `kiln cancel` gives that up, or try again when it has ended".into()
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
