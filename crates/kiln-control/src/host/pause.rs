//! Pausing an app: its requests wait at the edge.

use kiln_model::{Answer, AppName, ExitCode, Failure, Millis};

use super::{LocalHost, failure};
use crate::contract::Caller;
use crate::sync::lock;

impl LocalHost {
    /// Has requests wait; whether a release serves that could answer them is asked first.
    pub(crate) fn pause(&self, app: Option<AppName>, wait: Millis, by: &Caller) -> Result<Answer, Failure> {
        let app = self.app(app)?;
        let mut core = lock(&self.driver.core);
        if core.apps()[&app].traffic.live().is_none() {
            return Err(Failure::new(
                ExitCode::Usage,
                format!("nothing serves {app}, so nobody can be made to wait"),
            )
            .hint("`kiln deploy` comes first"));
        }
        let paused = core.pause(&app, wait, by.author());
        drop(core);
        self.driver.waker.wake();
        paused.map(|()| Answer::Done).map_err(|trouble| failure::not_paused(&trouble))
    }

    /// Lets them go on.
    pub(crate) fn resume(&self, app: Option<AppName>, by: &Caller) -> Result<Answer, Failure> {
        let app = self.app(app)?;
        let resumed = lock(&self.driver.core).resume(&app, by.author());
        self.driver.waker.wake();
        resumed.map(|()| Answer::Done).map_err(|trouble| failure::not_paused(&trouble))
    }
}
