//! One deploy at a time per app.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use kiln_model::{AppName, ExitCode, Failure, Timestamp};

use crate::sync::lock;

/// Who deploys what.
#[derive(Debug, Clone, Default)]
pub(crate) struct Busy(Arc<Mutex<BTreeMap<AppName, Holder>>>);

#[derive(Debug, Clone)]
struct Holder {
    what: &'static str,
    by: String,
    since: Timestamp,
}

/// The right to deploy an app, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    busy: Busy,
    app: AppName,
}

impl Busy {
    /// Takes the right to deploy `app`.
    ///
    /// # Errors
    /// If somebody has it; says who.
    pub(crate) fn take(
        &self,
        app: &AppName,
        what: &'static str,
        by: &str,
        now: Timestamp,
    ) -> Result<Turn, Failure> {
        let mut holders = lock(&self.0);
        if let Some(holder) = holders.get(app) {
            let message = format!(
                "app {app} is busy: {} has a {} under way since {}",
                holder.by, holder.what, holder.since
            );
            return Err(Failure::new(ExitCode::Busy, message)
                .hint("`kiln status` shows how far it is; try again when it has ended"));
        }
        holders.insert(app.clone(), Holder { what, by: by.to_owned(), since: now });
        Ok(Turn { busy: self.clone(), app: app.clone() })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock(&self.busy.0).remove(&self.app);
    }
}
