//! What a deploy would do, without doing it.

use std::collections::BTreeMap;
use std::path::Path;

use kiln_model::spec::Ingredients;
use kiln_model::{
    Answer, ExitCode, Failure, ImageName, ImageRecord, OperationKind, Plan, PlanAnswer, PlannedStep,
};

use super::serve::Asker;
use super::{LocalHost, preflight};
use crate::contract::EventSink;
use crate::project::Project;
use crate::sync::lock;
use crate::{changes, pipeline};

impl LocalHost {
    pub(crate) fn plan(&self, dir: &Path, events: &dyn EventSink) -> Result<Answer, Failure> {
        let asker = Asker { events, clock: &self.clock };
        let project = Project::load(dir)?;
        preflight::certificates::check(&project.spec, self.renewals.is_some())?;
        let secrets = self.secrets_for(&project)?;
        let baked = pipeline::bake(&project, &self.store, false, asker.events, asker.clock)?;
        let records: BTreeMap<ImageName, ImageRecord> =
            baked.into_iter().map(|(n, b)| (n, b.record)).collect();
        let of = Ingredients { images: &records, secrets: &secrets, policy: project.kept_policy(&records)? };
        let release = project.spec.release(&of).map_err(|e| Failure::from_error(ExitCode::Spec, &e))?;
        let mut warnings = self.admit(&release, OperationKind::Deploy, None)?;
        warnings.extend(super::room::warning(&self.store));
        let core = lock(&self.driver.core);
        let from = core.apps().get(&release.app).and_then(|s| s.traffic.live().cloned());
        let (plan, nothing_to_do) = match core.would_do(&release) {
            Ok(plan) => (Some(plan), None),
            Err(nothing) => (None, Some(nothing.to_string())),
        };
        let old = from.as_ref().and_then(|id| core.release(id).cloned());
        drop(core);
        let changes = changes::between(old.as_ref(), &release, &self.store);
        let steps = plan.iter().flat_map(|plan| (0..plan.steps.len()).map(|at| planned(plan, at))).collect();
        let to = release.id();
        Ok(Answer::Plan(PlanAnswer { app: release.app, from, to, nothing_to_do, changes, steps, warnings }))
    }
}

/// A step as it is shown: in words, and for programs in parts.
fn planned(plan: &Plan, at: usize) -> PlannedStep {
    let step = &plan.steps[at];
    PlannedStep {
        step: step.action.to_string(),
        why: step.why.clone(),
        phase: plan.phase(at),
        service: step.action.service().cloned(),
        action: step.action.clone(),
    }
}
