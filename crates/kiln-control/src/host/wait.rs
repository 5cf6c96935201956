//! Following what is under way for an app, whoever asked for it.

use std::sync::mpsc::channel;

use kiln_model::{Answer, AppName, Event, ExitCode, Failure, LogEntry, WaitAnswer};

use super::LocalHost;
use super::serve::{Asker, Followed, Stage};
use crate::contract::EventSink;
use crate::core::Will;
use crate::sync::lock;

impl LocalHost {
    pub(crate) fn wait(
        &self,
        app: Option<AppName>,
        operation: Option<u64>,
        events: &dyn EventSink,
    ) -> Result<Answer, Failure> {
        let asker = Asker { events, clock: &self.clock };
        let app = self.app(app)?;
        let _following = self.busy.follow(&app);
        loop {
            let (to, news) = channel();
            let followed = lock(&self.driver.core).follow(&app, to).map(|generation| generation.0);
            if let Some(number) = followed.filter(|number| operation.is_none_or(|wanted| wanted == *number)) {
                asker.tell(Event::Follows { operation: number });
                let mut stage = Stage { app: Some(app.clone()), ..Stage::default() };
                let Followed { warnings, .. } =
                    self.follow(&news, &asker, &mut stage, None, &Will::default())?;
                return Ok(self.waited(app, Some(number), warnings));
            }
            if let Some(number) = operation {
                return self.has_ended(app, number);
            }
            // Somebody may be baking what is to be deployed.
            if !self.busy.is_taken(&app) || self.is_stopping() || asker.is_gone() {
                return Ok(self.waited(app, None, Vec::new()));
            }
            self.driver.pause();
        }
    }

    fn waited(&self, app: AppName, operation: Option<u64>, warnings: Vec<String>) -> Answer {
        let serving = lock(&self.driver.core).apps().get(&app).and_then(|s| s.traffic.live().cloned());
        Answer::Waited(WaitAnswer { app, operation, serving, warnings })
    }

    /// How an operation ended that nobody needs to wait for.
    fn has_ended(&self, app: AppName, number: u64) -> Result<Answer, Failure> {
        let is_meant = |e: &LogEntry| e.operation == number && e.app == app && e.what != "replace";
        let Some(entry) = self.operations(|entries| entries.into_iter().find(is_meant))? else {
            return Err(Failure::new(ExitCode::Usage, format!("app {app} has no operation {number}"))
                .hint("`kiln log` lists them"));
        };
        if entry.outcome == "done" {
            return Ok(self.waited(app, Some(number), Vec::new()));
        }
        let message = format!("operation {number} ({} of {app}): {}", entry.what, entry.outcome);
        let failure = Failure::new(ExitCode::Deploy, message);
        Err(entry.reason.iter().fold(failure, |failure, reason| failure.because(reason.clone())))
    }
}
