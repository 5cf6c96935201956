//! Rollback: finding the release that is meant.

use std::time::Instant;

use kiln_model::{Answer, AppName, Event, ExitCode, Failure, OperationKind, ReleaseId};

use super::busy::Cancellable;
use super::releases::find;
use super::serve::{Asker, Stage, Wish};
use super::{LocalHost, failure};
use crate::contract::{Caller, EventSink};
use crate::core::Precedence;
use crate::sync::lock;
use crate::world::Clock;

impl LocalHost {
    pub(crate) fn rollback(
        &self,
        app: Option<AppName>,
        release: Option<&str>,
        (schema, precedence): (Option<u32>, Precedence),
        by: &Caller,
        events: &dyn EventSink,
    ) -> Result<Answer, Failure> {
        let asker = Asker { events, clock: &self.clock };
        let mut stage = Stage { step: "find the release".into(), ..Stage::default() };
        let result = self.try_rollback(app, (release, schema, precedence), by, &asker, &mut stage);
        result.map_err(|failure| self.report(failure, &asker, stage))
    }

    fn try_rollback(
        &self,
        app: Option<AppName>,
        (release, schema, precedence): (Option<&str>, Option<u32>, Precedence),
        by: &Caller,
        asker: &Asker<'_>,
        stage: &mut Stage,
    ) -> Result<Answer, Failure> {
        let begun = Instant::now();
        let app = self.app(app)?;
        stage.app = Some(app.clone());
        let turn = match precedence {
            Precedence::Yields => {
                self.busy.wait_for_what_is_given_up(&app, &|| asker.is_gone());
                self.busy.take(&app, "rollback", &by.name, self.clock.now())?
            }
            Precedence::Supersedes => self.busy.take_over(&app, "rollback", &by.name, self.clock.now()),
        };
        let events = Cancellable { events: asker.events, turn: &turn };
        let asker = &Asker { events: &events, clock: asker.clock };
        let _use = self.store.while_in_use().map_err(|e| failure::store(&e))?;
        let id = self.find_release(&app, release)?;
        stage.release = Some(id.clone());
        let release = self.store.release(&id).map_err(|e| failure::store(&e))?;
        stage.step = "plan".into();
        for warning in self.admit(&release, OperationKind::Rollback, schema)? {
            asker.tell(Event::Warned { warning });
        }
        let wish = Wish { kind: OperationKind::Rollback, schema, precedence, will: turn.will().clone() };
        self.serve(release, wish, by, asker, stage, begun)
    }

    /// The release meant by `given`: the previous one, or the one whose id begins so.
    fn find_release(&self, app: &AppName, given: Option<&str>) -> Result<ReleaseId, Failure> {
        let core = lock(&self.driver.core);
        let state = &core.apps()[app];
        let hint = "`kiln releases` lists what can be gone back to";
        let Some(given) = given else {
            return state.previous.clone().ok_or_else(|| {
                Failure::new(ExitCode::Usage, format!("app {app} has had no release before the present one"))
                    .hint(hint)
            });
        };
        let found = find(given, state.kept.iter().map(|s| &s.release));
        drop(core);
        found.map_err(|not| self.not_found(app, not))
    }
}
