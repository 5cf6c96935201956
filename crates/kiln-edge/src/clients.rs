//! How many connections each client has, over all threads.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_model::InstanceId;

/// Where a connection comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Whence {
    Address(IpAddr),
    /// Whence inside this one. All have the same address in there.
    Instance(InstanceId),
}

/// Connections by where they come from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clients(Arc<Mutex<HashMap<Whence, usize>>>);

/// One of them.
pub(crate) struct Admitted {
    clients: Clients,
    from: Whence,
}

impl Clients {
    /// One more from there; none if there are `at_most` already.
    pub(crate) fn admit(&self, from: Whence, at_most: usize) -> Option<Admitted> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(from.clone()).or_default();
        if *count >= at_most {
            return None;
        }
        *count += 1;
        Some(Admitted { clients: self.clone(), from })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.from);
            }
        }
    }
}
