//! Locks between threads.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A mutex that stays usable when a thread that held it has panicked: what it guards is replaced as a whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
