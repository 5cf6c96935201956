//! One deploy at a time per app.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use kiln_model::{AppName, CancelAnswer, ExitCode, Failure, Stamped, Timestamp};

use crate::contract::EventSink;
use crate::sync::lock;

/// Who deploys what.
#[derive(Debug, Clone, Default)]
pub(crate) struct Busy(Arc<Mutex<BTreeMap<AppName, Holder>>>);

#[derive(Debug, Clone)]
struct Holder {
    what: &'static str,
    by: String,
    since: Timestamp,
    /// Who wants it to be given up, if anybody does.
    cancelled: Option<String>,
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
        holders.insert(app.clone(), Holder { what, by: by.to_owned(), since: now, cancelled: None });
        Ok(Turn { busy: self.clone(), app: app.clone() })
    }
}

impl Busy {
    /// Has what is under way for `app` given up, as far as it can be; what it is.
    pub(crate) fn cancel(&self, app: &AppName, by: &str) -> Option<CancelAnswer> {
        let mut holders = lock(&self.0);
        let holder = holders.get_mut(app)?;
        holder.cancelled.get_or_insert_with(|| by.to_owned());
        Some(CancelAnswer { app: app.clone(), cancelled: holder.what.to_owned(), by: holder.by.clone() })
    }
}

impl Turn {
    /// Who wants this to be given up, if anybody does.
    fn cancelled_by(&self) -> Option<String> {
        lock(&self.busy.0).get(&self.app).and_then(|holder| holder.cancelled.clone())
    }
}

/// Events of what is under way, which counts as unwanted as soon as somebody has it cancelled.
pub(crate) struct Cancellable<'a> {
    pub(crate) events: &'a dyn EventSink,
    pub(crate) turn: &'a Turn,
}

impl EventSink for Cancellable<'_> {
    fn event(&self, event: Stamped) {
        self.events.event(event);
    }

    fn gone(&self) -> bool {
        self.turn.cancelled_by().is_some() || self.events.gone()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock(&self.busy.0).remove(&self.app);
    }
}
