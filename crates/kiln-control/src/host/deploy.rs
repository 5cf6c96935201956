//! Deploy: everything before the core is asked.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use kiln_model::spec::Ingredients;
use kiln_model::{Answer, Event, ExitCode, Failure, ImageName, ImageRecord, OperationKind, Release};
use kiln_store::boundary::stored;

use super::busy::Cancellable;
use super::serve::{Asker, Stage, Wish};
use super::{LocalHost, failure, preflight};
use crate::contract::{Caller, EventSink};
use crate::core::Precedence;
use crate::pipeline;
use crate::project::Project;
use crate::world::Clock;

impl LocalHost {
    pub(crate) fn deploy(
        &self,
        dir: &Path,
        (locked, precedence): (bool, Precedence),
        by: &Caller,
        events: &dyn EventSink,
    ) -> Result<Answer, Failure> {
        let asker = Asker { events, clock: &self.clock };
        let mut stage = Stage { step: "read the spec".into(), ..Stage::default() };
        let result = self.try_deploy(dir, (locked, precedence), by, &asker, &mut stage);
        result.map_err(|failure| self.report(failure, &asker, stage))
    }

    fn try_deploy(
        &self,
        dir: &Path,
        (locked, precedence): (bool, Precedence),
        by: &Caller,
        asker: &Asker<'_>,
        stage: &mut Stage,
    ) -> Result<Answer, Failure> {
        let begun = Instant::now();
        let project = Project::load(dir)?;
        let app = project.spec.app.clone();
        stage.app = Some(app.clone());
        let _use = self.store.while_in_use().map_err(|e| failure::store(&e))?;
        let what = "deploy";
        let (turn, release) = match precedence {
            Precedence::Yields => {
                self.busy.wait_for_what_is_given_up(&app, &|| asker.is_gone());
                let turn = self.busy.take(&app, what, &by.name, self.clock.now())?;
                let events = Cancellable { events: asker.events, turn: &turn };
                let making = Asker { events: &events, clock: asker.clock };
                let release = self.make_release(&project, locked, &making, stage)?;
                if let Some(who) = turn.superseded_by() {
                    return Err(failure::superseded(&who));
                }
                (turn, release)
            }
            // What is under way goes on until there is something to take its place.
            Precedence::Supersedes => {
                let release = self.make_release(&project, locked, asker, stage)?;
                (self.busy.take_over(&app, what, &by.name, self.clock.now()), release)
            }
        };
        let events = Cancellable { events: asker.events, turn: &turn };
        let asker = &Asker { events: &events, clock: asker.clock };
        let wish = Wish { kind: OperationKind::Deploy, schema: None, precedence, will: turn.will().clone() };
        self.serve(release, wish, by, asker, stage, begun)
    }

    /// Bakes and checks; puts the release on the shelf.
    fn make_release(
        &self,
        project: &Project,
        locked: bool,
        asker: &Asker<'_>,
        stage: &mut Stage,
    ) -> Result<Release, Failure> {
        preflight::certificates::check(&project.spec, self.renewals.is_some())?;
        let secrets = self.secrets_for(project)?;
        stage.step = "bake".into();
        let baked = pipeline::bake(project, &self.store, locked, asker.events, asker.clock);
        // Why it could not be done is nothing to whoever has called it off.
        let baked = baked.or_else(|failure| asker.stop_if_gone().and(Err(failure)))?;
        let records: BTreeMap<ImageName, ImageRecord> =
            baked.into_iter().map(|(n, b)| (n, b.record)).collect();
        stage.step = "hold it against the policy".into();
        let policy = project.kept_policy(&records)?;
        stage.step = "check".into();
        for (name, spec) in &project.spec.images {
            self.check_image(&project.spec.app, name, &records[name], &spec.checks, asker)?;
        }
        stage.step = "make the release".into();
        let of = Ingredients { images: &records, secrets: &secrets, policy };
        let release = project
            .spec
            .release(&of)
            .map_err(|e| Failure::from_error(ExitCode::Spec, &e).hint("add a [service.NAME] to kiln.toml"))?;
        stage.release = Some(release.id());
        stage.step = "plan".into();
        // What is refused here is nobody's to go back to: it is not kept, and holds no secret.
        for warning in self.admit(&release, OperationKind::Deploy, None)? {
            asker.tell(Event::Warned { warning });
        }
        self.keep_release(&release)?;
        for (name, text) in project.texts() {
            let (path, id) = (|| self.store.root().join("releases"), release.id());
            let put = || self.store.put_release_document(&id, name, &text);
            stored(path, put).map_err(|e| failure::store(&e))?;
        }
        Ok(release)
    }
}
