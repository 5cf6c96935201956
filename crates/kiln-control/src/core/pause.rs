//! Holding requests back at the edge, and letting them go on.

use kiln_model::{AppName, Author, Millis, Record};

use super::Core;
use crate::world::Trouble;

impl Core {
    /// Has new requests of an app wait at the edge, each for `wait` at most, until [`Core::resume`]. When this returns
    /// they do, unless traffic is being switched at this very moment: then they do with the switch.
    ///
    /// # Errors
    /// If it could not be written down, or the edge does not answer; it is tried again then.
    pub fn pause(&mut self, app: &AppName, wait: Millis, by: Author) -> Result<(), Trouble> {
        let is_so = self.past.apps.get(app).and_then(|s| s.paused.as_ref()).is_some_and(|p| p.wait == wait);
        if !is_so {
            let at = self.now();
            self.record(&Record::Paused { at, by, app: app.clone(), wait })?;
        }
        self.publish()
    }

    /// Lets requests go on.
    ///
    /// # Errors
    /// As [`Core::pause`].
    pub fn resume(&mut self, app: &AppName, by: Author) -> Result<(), Trouble> {
        if self.past.apps.get(app).is_some_and(|s| s.paused.is_some()) {
            let at = self.now();
            self.record(&Record::Resumed { at, by, app: app.clone() })?;
        }
        self.publish()
    }
}
