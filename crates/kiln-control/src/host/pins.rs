//! `kiln pin` and `kiln unpin`: releases that are kept whatever else goes.

use kiln_model::{Answer, AppName, ExitCode, Failure, PinAnswer, Record, ReleaseId};

use super::LocalHost;
use crate::contract::Caller;
use crate::sync::lock;
use crate::world::Clock;

/// What a release is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pin {
    Pinned,
    Unpinned,
}

impl LocalHost {
    pub(crate) fn pin(
        &self,
        app: Option<AppName>,
        given: &str,
        pin: Pin,
        by: &Caller,
    ) -> Result<Answer, Failure> {
        let app = self.app(app)?;
        // A release that a sweep is about to take is not pinned any more.
        let _use = self.store.while_in_use().map_err(|e| super::failure::store(&e))?;
        let release = self.named(&app, given)?.id();
        let pinned = pin == Pin::Pinned;
        let changed = self.is_pinned(&app, &release) != pinned;
        if changed {
            let (at, by) = (self.clock.now(), by.author());
            let (app, release) = (app.clone(), release.clone());
            let record = match pin {
                Pin::Pinned => Record::Pinned { at, by, app, release },
                Pin::Unpinned => Record::Unpinned { at, by, app, release },
            };
            lock(&self.driver.core).note(&record).map_err(|trouble| {
                let message = "it could not be written into the log, so nothing has changed";
                Failure::new(ExitCode::Host, message).because(trouble.0)
            })?;
        }
        Ok(Answer::Pinned(PinAnswer { app, release, pinned, changed }))
    }

    fn is_pinned(&self, app: &AppName, release: &ReleaseId) -> bool {
        lock(&self.driver.core).apps().get(app).is_some_and(|state| state.pinned.contains(release))
    }
}
