//! What the operation log tells of secrets, held against what the store has of them.
//!
//! A value is stored before the log tells of it, and the log tells of a removal before it is done: a control plane that
//! dies between the two leaves a secret that nobody has set, or one that is there although somebody has removed it. The
//! next one squares the two before anything else is done.

use std::collections::BTreeMap;

use kiln_model::{AppName, Author, Failure, Record, SecretName, SecretVersion, Timestamp};
use kiln_store::boundary::{between, stored};
use kiln_store::{Holders, HostLock, OperationLog, SecretRecord, Store, StoreError};

use super::failure;
use crate::core::Past;

/// A fold over the log.
#[derive(Debug, Default)]
struct ToldSecrets(BTreeMap<(AppName, SecretName), Words>);

/// Opens the log of a store, squares the two, and says what they have come to.
pub(super) fn open_log(store: &Store, held: &HostLock) -> Result<(OperationLog, Past), Failure> {
    let (mut past, mut told) = (Past::default(), ToldSecrets::default());
    let log = OperationLog::open_and_read(store, held, &mut |record| {
        told.learn(&record);
        past.learn(&record);
    });
    let mut log = log.map_err(|e| failure::log(&e))?;
    // Where nothing can be written now, a later start does it: what serves must be taken over all the same.
    let _ = told.square(store, &past, &mut log);
    Ok((log, past))
}

/// By version; of all that are not named here, under none.
type Words = BTreeMap<Option<SecretVersion>, Word>;

/// The last that was said of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Set,
    Removed(Timestamp),
}

/// What there is to do about a version that is in the store.
#[derive(Debug, PartialEq, Eq)]
enum Square {
    Nothing,
    Tell,
    Remove,
}

impl ToldSecrets {
    /// Takes account of the next entry.
    fn learn(&mut self, record: &Record) {
        match record {
            Record::SecretSet { app, name, version, .. } => {
                self.words(app, name).insert(version.clone(), Word::Set);
            }
            Record::SecretRemoved { at, app, name, version, .. } => {
                let words = self.words(app, name);
                if version.is_none() {
                    words.clear();
                }
                words.insert(version.clone(), Word::Removed(*at));
            }
            _ => {}
        }
    }

    fn words(&mut self, app: &AppName, name: &SecretName) -> &mut Words {
        self.0.entry((app.clone(), name.clone())).or_default()
    }

    /// Finishes what a dead control plane has begun: removes what the log says is removed, and has the log tell of what is
    /// there.
    ///
    /// # Errors
    /// What could not be read or written; nothing is lost by that, and the next start tries again.
    fn square(&self, store: &Store, past: &Past, log: &mut OperationLog) -> Result<(), StoreError> {
        for app in store.apps_with_secrets()? {
            for setting in newest(store.secrets(&app)?) {
                match self.judge(&setting) {
                    Square::Nothing => {}
                    Square::Tell => tell(log, &setting)?,
                    Square::Remove => remove(store, past, &setting)?,
                }
            }
        }
        Ok(())
    }

    fn judge(&self, setting: &SecretRecord) -> Square {
        let words = self.0.get(&(setting.app.clone(), setting.name.clone()));
        let word = words.and_then(|words| words.get(&Some(setting.version.clone())).or(words.get(&None)));
        match word {
            Some(Word::Set) => Square::Nothing,
            Some(Word::Removed(at)) if setting.at <= *at => Square::Remove,
            Some(Word::Removed(_)) | None => Square::Tell,
        }
    }
}

/// The last setting of each version.
fn newest(settings: Vec<SecretRecord>) -> impl Iterator<Item = SecretRecord> {
    let by_version: BTreeMap<_, _> =
        settings.into_iter().map(|s| ((s.name.clone(), s.version.clone()), s)).collect();
    by_version.into_values()
}

fn tell(log: &mut OperationLog, setting: &SecretRecord) -> Result<(), StoreError> {
    let SecretRecord { app, name, version, at, by, .. } = setting.clone();
    // From where they came is known no more.
    let by = Author { name: by, origin: None };
    let record = Record::SecretSet { at, by, app, name, version: Some(version) };
    between("append", || log.append(&record)).map(drop)
}

fn remove(store: &Store, past: &Past, setting: &SecretRecord) -> Result<(), StoreError> {
    let SecretRecord { app, name, version, .. } = setting;
    let holders = Holders::These(past.state_of(app).held());
    let removal = match store.removal_of_secret(app, name, Some(version), &holders) {
        // It could not be removed then, and was deployed with since.
        Err(StoreError::SecretInUse { .. }) => return Ok(()),
        removal => removal?,
    };
    stored(|| store.root().join("secrets"), || removal.carry_out()).map(drop)
}

#[cfg(test)]
mod tests {
    use kiln_model::{ReleaseId, SecretValue};

    use super::*;

    struct Place {
        _dir: tempfile::TempDir,
        store: Store,
        held: HostLock,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path()).unwrap();
            let held = HostLock::take(&store).unwrap();
            Self { _dir: dir, store, held }
        }

        fn set(&self, value: &str, at: u64) -> SecretVersion {
            let value = SecretValue::new(value.into()).unwrap();
            self.store.set_secret(&app(), &name(), &value, Timestamp(at), "ann").unwrap().0.version
        }

        /// As a host starts, after these entries were written; what the log has then, and which versions are there.
        fn start(&self, records: &[Record]) -> (Vec<Record>, Vec<SecretVersion>) {
            let mut all = Vec::new();
            let mut log = OperationLog::open(&self.store, &self.held).unwrap();
            for record in records {
                log.append(record).unwrap();
            }
            open_log(&self.store, &self.held).unwrap();
            drop(OperationLog::open_and_read(&self.store, &self.held, &mut |r| all.push(r)).unwrap());
            let there = self.store.secrets(&app()).unwrap().into_iter().map(|s| s.version);
            (all, there.collect())
        }
    }

    fn app() -> AppName {
        "hello".parse().unwrap()
    }

    fn name() -> SecretName {
        "API_KEY".parse().unwrap()
    }

    fn set(at: u64, version: &SecretVersion) -> Record {
        let by = Author { name: "ann".into(), origin: None };
        Record::SecretSet { at: Timestamp(at), by, app: app(), name: name(), version: Some(version.clone()) }
    }

    fn removed(at: u64, version: Option<&SecretVersion>) -> Record {
        let by = Author { name: "bob".into(), origin: None };
        Record::SecretRemoved { at: Timestamp(at), by, app: app(), name: name(), version: version.cloned() }
    }

    #[test]
    fn a_value_that_was_stored_and_not_told_of_is_told_of_once_with_who_and_when() {
        let place = Place::new();
        let version = place.set("one", 5);
        assert_eq!(place.start(&[]).0, [set(5, &version)]);
        let (log, there) = place.start(&[]);
        assert_eq!((log, there), (vec![set(5, &version)], vec![version]));
    }

    #[test]
    fn what_the_log_says_is_removed_is_removed() {
        let place = Place::new();
        let (one, two) = (place.set("one", 1), place.set("two", 2));
        let (_, there) = place.start(&[set(1, &one), set(2, &two), removed(3, Some(&one))]);
        assert_eq!(there, [two]);
        assert_eq!(place.start(&[removed(4, None)]), (place.start(&[]).0, vec![]));
        let again = place.set("one", 9);
        let (log, there) = place.start(&[]);
        assert_eq!((log.last(), there), (Some(&set(9, &again)), vec![again]), "set since, and not told of");
    }

    #[test]
    fn what_a_release_needs_is_not_removed() {
        let place = Place::new();
        let version = place.set("one", 1);
        let text = include_str!("../../../kiln-model/tests/fixtures/release-2.json");
        let mut release = kiln_model::Release::decode(text.trim_end().as_bytes()).unwrap();
        release.app = app();
        let web = release.services.values_mut().next().unwrap();
        web.secrets.clear();
        web.secrets.insert(name(), kiln_model::PinnedSecret { version: version.clone(), env: None });
        let release: ReleaseId = place.store.put_release(&release).unwrap();
        let pinned = Record::Pinned { at: Timestamp(3), by: Author::kiln(), app: app(), release };
        let records = [set(1, &version), removed(2, None), pinned];
        assert_eq!(place.start(&records), (records.to_vec(), vec![version]));
    }
}
