//! One deploy at a time per app.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use kiln_model::{AppName, CancelAnswer, ExitCode, Failure, Stamped, Timestamp};

use crate::contract::EventSink;
use crate::sync::lock;

/// Who deploys what.
#[derive(Debug, Clone, Default)]
pub(crate) struct Busy(Arc<Mutex<BTreeMap<AppName, Holder>>>);

/// Tells those who had the right one after the other apart.
type Number = u64;

#[derive(Debug, Clone)]
struct Holder {
    number: Number,
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
    number: Number,
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
            return Err(Failure::new(ExitCode::Busy, message).hint(WAYS));
        }
        Ok(self.hold(&mut holders, app, what, by, now))
    }

    /// Takes the right to deploy `app` from whoever has it, who finds out.
    pub(crate) fn take_over(&self, app: &AppName, what: &'static str, by: &str, now: Timestamp) -> Turn {
        self.hold(&mut lock(&self.0), app, what, by, now)
    }

    fn hold(
        &self,
        holders: &mut BTreeMap<AppName, Holder>,
        app: &AppName,
        what: &'static str,
        by: &str,
        since: Timestamp,
    ) -> Turn {
        static TAKEN: AtomicU64 = AtomicU64::new(0);
        let number = TAKEN.fetch_add(1, Ordering::Relaxed);
        holders.insert(app.clone(), Holder { number, what, by: by.to_owned(), since, cancelled: None });
        Turn { busy: self.clone(), app: app.clone(), number }
    }

    /// Whether somebody has the right to deploy `app`.
    pub(crate) fn is_taken(&self, app: &AppName) -> bool {
        lock(&self.0).contains_key(app)
    }
}

/// What can be done about something that is under way.
pub(crate) const WAYS: &str =
    "`kiln wait` follows it to its end, `--supersede` takes its place, `kiln cancel` gives it up";

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
        let holders = lock(&self.busy.0);
        holders.get(&self.app).filter(|h| h.number == self.number)?.cancelled.clone()
    }

    /// Who has taken the right to deploy meanwhile, if anybody has.
    pub(crate) fn superseded_by(&self) -> Option<String> {
        let holders = lock(&self.busy.0);
        holders.get(&self.app).filter(|h| h.number != self.number).map(|h| h.by.clone())
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
        let mut holders = lock(&self.busy.0);
        if holders.get(&self.app).is_some_and(|h| h.number == self.number) {
            holders.remove(&self.app);
        }
    }
}
