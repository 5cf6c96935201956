//! The core's history and shelf, in the store; and the system's clock.

use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use kiln_model::{
    AppName, ImageDigest, ImageHandle, Millis, Record, Release, ReleaseId, ReleaseService, SecretOrder,
    Sha256, Timestamp,
};
use kiln_store::{LogReader, OperationLog, Store, StoreError};

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

/// The operation log, which queries read as well. A long one takes long to read: whoever reads it holds up nobody who
/// appends.
#[derive(Debug, Clone)]
pub(crate) struct StoredHistory(Arc<Mutex<OperationLog>>);

impl StoredHistory {
    pub(crate) fn of(log: OperationLog) -> Self {
        Self(Arc::new(Mutex::new(log)))
    }

    /// Appends an entry, which is safe then.
    pub(crate) fn put(&self, record: &Record) -> Result<(), StoreError> {
        kiln_store::boundary::refuse("append to the operation log", || "log/operations.jsonl".into())?;
        let mut log = lock(&self.0);
        match record {
            // What keeps running what runs, and what makes room.
            Record::Replaced { .. }
            | Record::Reinforced { .. }
            | Record::Renumbered { .. }
            | Record::Collected { .. } => log.append_in_need(record),
            _ => log.append(record),
        }
        .map(drop)
    }

    /// Hands out all entries, oldest first.
    pub(crate) fn read(&self, each: &mut dyn FnMut(Record)) -> Result<(), StoreError> {
        self.reader()?.read(&mut |_, record| each(record))
    }

    /// Reads all of it again: how many entries there are, and the hash of the last.
    pub(crate) fn verify(&self) -> Result<(u64, Sha256), StoreError> {
        self.reader()?.verify()
    }

    fn reader(&self) -> Result<LogReader, StoreError> {
        lock(&self.0).reader()
    }
}

impl History for StoredHistory {
    fn append(&mut self, record: &Record) -> Result<(), Trouble> {
        self.put(record).map_err(|e| Trouble::of(&e))
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;
    use std::sync::OnceLock;

    use kiln_store::Medium;

    use super::*;

    /// Something to write on that looks, while it is read, whether somebody could append.
    #[derive(Debug, Default)]
    struct Watched {
        bytes: Mutex<Vec<u8>>,
        history: OnceLock<StoredHistory>,
    }

    impl Medium for Watched {
        fn read(&self) -> io::Result<Vec<u8>> {
            if let Some(history) = self.history.get() {
                assert!(history.0.try_lock().is_ok(), "whoever appends has to wait for whoever reads");
            }
            Ok(lock(&self.bytes).clone())
        }

        fn length(&self) -> io::Result<u64> {
            Ok(lock(&self.bytes).len() as u64)
        }

        fn write(&self, bytes: &[u8], _: u64) -> io::Result<()> {
            lock(&self.bytes).extend(bytes);
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }

        fn cut(&self, length: u64) -> io::Result<()> {
            lock(&self.bytes).truncate(usize::try_from(length).expect("a short log"));
            Ok(())
        }
    }

    #[test]
    fn who_reads_the_log_holds_up_nobody_who_appends() {
        let medium = Arc::new(Watched::default());
        let log = OperationLog::over::<Record>(Path::new("log"), medium.clone(), &mut drop).unwrap();
        let mut history = StoredHistory::of(log);
        medium.history.set(history.clone()).unwrap();
        let (app, by): (AppName, _) = ("hello".parse().unwrap(), kiln_model::Author::kiln());
        let record = Record::Resumed { at: Timestamp(1), by, app };
        history.append(&record).unwrap();
        let mut all = Vec::new();
        history.read(&mut |record| all.push(record)).unwrap();
        assert_eq!(all, [record]);
        assert_eq!(history.verify().unwrap().0, 1);
    }
}
