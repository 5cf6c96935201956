//! Giving up what is under way for an app, whoever asked for it.

use kiln_model::{Answer, AppName, CancelAnswer, ExitCode, Failure, OperationKind};

use super::LocalHost;
use crate::contract::Caller;
use crate::sync::lock;

impl LocalHost {
    /// Gives up a deploy or rollback that does not serve yet. Whoever waits for it is told so; its exit code is that of
    /// a deploy that failed.
    pub(crate) fn cancel(&self, app: Option<AppName>, by: &Caller) -> Result<Answer, Failure> {
        let app = self.app(app)?;
        let wanted = self.busy.cancel(&app, &by.name);
        let given_up = self.cancel_under_way(&app, by);
        match given_up.or(wanted) {
            Some(cancelled) => Ok(Answer::Cancelled(cancelled)),
            None => {
                Err(Failure::new(ExitCode::Usage, format!("there is nothing under way for {app} to give up"))
                    .hint(
                        "a release that serves is undone by `kiln rollback`; `kiln log` shows what was done",
                    ))
            }
        }
    }

    /// What is carried out already; nobody may wait for it any more.
    fn cancel_under_way(&self, app: &AppName, by: &Caller) -> Option<CancelAnswer> {
        let mut core = lock(&self.driver.core);
        let under_way = core.apps().get(app)?.under_way.as_ref()?;
        let (plan, asked_by) = (&under_way.plan, under_way.by.clone());
        let (kind, generation): (OperationKind, _) = (plan.kind, plan.generation);
        let is_given_up = core.cancel(generation, format!("it was cancelled by {}", by.name));
        drop(core);
        self.driver.waker.wake();
        is_given_up.then(|| CancelAnswer { app: app.clone(), cancelled: kind.to_string(), by: asked_by })
    }
}
