//! The core's history and shelf, in the store; and the system's clock.

use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use kiln_model::{
    AppName, ImageDigest, ImageHandle, Millis, Record, Release, ReleaseId, ReleaseService, SecretOrder,
    Timestamp,
};
use kiln_store::{OperationLog, Store};

use crate::sync::lock;
use crate::world::{Clock, History, Shelf, Trouble};

/// The time of day when this process first asked for it, and from then on by a clock that does not jump: every
/// deadline is measured by this, and none may come early or late because somebody sets the host's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        static BEGUN: LazyLock<(Instant, Timestamp)> = LazyLock::new(|| (Instant::now(), time_of_day()));
        let (begun, at) = *BEGUN;
        at.after(Millis(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)))
    }
}

/// What the host's clock says now: for what others have dated by theirs, as certificates are. No deadline is measured
/// by it.
pub(crate) fn time_of_day() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The operation log, which queries read as well.
#[derive(Debug, Clone)]
pub(crate) struct StoredHistory(pub(crate) Arc<Mutex<OperationLog>>);

impl History for StoredHistory {
    fn append(&mut self, record: &Record) -> Result<(), Trouble> {
        if let Some(error) = crate::boundary::refused() {
            return Err(Trouble(format!("could not append to the operation log: {error}")));
        }
        lock(&self.0).append(record).map(drop).map_err(|e| Trouble::of(&e))
    }

    fn mend(&mut self) -> Result<(), Trouble> {
        lock(&self.0).mend().map_err(|e| Trouble::of(&e))
    }
}

impl Shelf for Store {
    fn release(&self, id: &ReleaseId) -> Result<Release, Trouble> {
        Store::release(self, id).map_err(|e| Trouble::of(&e))
    }

    fn image(&self, digest: &ImageDigest) -> Result<ImageHandle, Trouble> {
        self.handle(digest).map_err(|e| Trouble::of(&e))
    }

    fn secrets(&self, app: &AppName, service: &ReleaseService) -> Result<Vec<SecretOrder>, Trouble> {
        let opened = service.secrets.iter().map(|(name, pinned)| {
            let value = self.secret(app, name, &pinned.version).map_err(|e| Trouble::of(&e))?;
            Ok(SecretOrder { name: name.clone(), value, env: pinned.env.clone() })
        });
        opened.collect()
    }
}
