//! Commands that are under way, by the names that those who asked for them have given them: so that they can be told that
//! nobody wants them any more. A connection that ends says nothing of the kind.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The header field in which whoever asks for something calls it by a name of their own.
pub(crate) const NAME: &str = "kiln-command";
/// The longest name that is heeded.
const LONGEST: usize = 100;

/// All that have a name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked(Arc<Mutex<BTreeMap<String, Wanted>>>);

/// Whether something is still wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted(Arc<AtomicBool>);

impl Wanted {
    pub(crate) fn is_given_up(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A command, as long as it is under way.
#[derive(Debug)]
pub(crate) struct UnderWay {
    asked: Asked,
    name: Option<String>,
    pub(crate) wanted: Wanted,
}

impl Asked {
    /// One that begins; without a name it cannot be given up this way.
    pub(crate) fn begin(&self, name: Option<&str>) -> UnderWay {
        let (name, wanted) =
            (name.filter(|name| name.len() <= LONGEST).map(str::to_owned), Wanted::default());
        if let Some(name) = &name {
            self.all().insert(name.clone(), wanted.clone());
        }
        UnderWay { asked: self.clone(), name, wanted }
    }

    /// Whoever asked for the command that is called so wants it no more. Whether there is one.
    pub(crate) fn give_up(&self, name: &str) -> bool {
        let all = self.all();
        let found = all.get(name);
        if let Some(wanted) = found {
            wanted.0.store(true, Ordering::Relaxed);
        }
        found.is_some()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Wanted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Some(name) = &self.name else { return };
        let mut all = self.asked.all();
        // Somebody may have called another one the same since.
        if all.get(name).is_some_and(|wanted| Arc::ptr_eq(&wanted.0, &self.wanted.0)) {
            all.remove(name);
        }
    }
}
