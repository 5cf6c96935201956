//! What can be done on a state directory on which no host runs.

use std::path::Path;

use kiln_model::{
    AppName, Failure, ImportAnswer, Record, SecretAnswer, SecretEntry, SecretName, SecretValue, SecretVersion,
};
use kiln_store::{HostLock, OperationLog, Store};

use super::failure;
use super::portable::{self, Wanted};
use super::secrets::{LostKey, list, new_record, not_removed, removal, set, untold};
use super::told_secrets::open_log;
use crate::contract::Caller;
use crate::core::Past;
use crate::shelf::SystemClock;
use crate::world::Clock;

/// A state directory on which no host runs, for as long as it is worked on.
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
        let kept = self.store.set_secret(&app, &name, value, at, &by.name);
        let new = new_record(&kept);
        let answer = set(kept)?;
        if let Some(record) = new {
            let version = answer.entry.version.clone();
            let noted = self.note(&Record::SecretSet { at, by, app, name, version });
            noted.map_err(|failure| untold(&self.store, &record, failure))?;
        }
        Ok(answer)
    }

    /// As `kiln secret list`. What cannot be told is told to `warn`.
    ///
    /// # Errors
    /// What the system refused.
    pub fn list(&self, app: &AppName, warn: &mut dyn FnMut(String)) -> Result<Vec<SecretEntry>, Failure> {
        list(&self.store, app, &self.past.state_of(app), warn)
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

    /// As `kiln import`: the way back for a host that does not start because a release is damaged. `is_called_off` is asked
    /// again and again while the file is read.
    ///
    /// # Errors
    /// If the file is not what was exported, or cannot be taken in.
    pub fn import(
        &mut self,
        file: &Path,
        identity: Option<&SecretValue>,
        without_secrets: bool,
        (by, is_called_off): (&Caller, &dyn Fn() -> bool),
    ) -> Result<ImportAnswer, Failure> {
        let store = self.store.clone();
        let wanted = Wanted { file, identity, without_secrets, is_called_off };
        portable::import(&store, &wanted, by, &SystemClock, &mut |record| self.note(record))
    }

    fn note(&mut self, record: &Record) -> Result<(), Failure> {
        self.log.append(record).map(drop).map_err(|e| failure::store(&e))
    }
}
