//! Connections of instances to stores that came to nothing, by who needed what.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::{family, line};
use crate::inside::Caller;
use crate::refusal::Refusal;

/// Counts by labels. There is one from the first failure on: most stores never have any.
#[derive(Debug, Default)]
pub(crate) struct Stores(Mutex<BTreeMap<String, u64>>);

impl Stores {
    /// What this one needs could not be reached.
    pub(crate) fn failed(&self, caller: &Caller, why: Refusal) {
        let (fleet, need) = (&caller.fleet, &caller.need);
        let labels = format!(
            "app=\"{}\",service=\"{}\",need=\"{need}\",cause=\"{}\"",
            fleet.app,
            fleet.service,
            why.cause()
        );
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(labels).or_default() += 1;
    }

    pub(super) fn text(&self, text: &mut String) {
        let name = "kiln_edge_failed_stores_total";
        family(text, name, "counter", "Connections to stores that came to nothing, by who needed what.");
        for (labels, count) in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            line(text, name, labels, *count);
        }
    }
}
