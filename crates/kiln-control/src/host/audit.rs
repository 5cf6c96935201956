//! What is inside of what runs, and of what can be gone back to: from the record, without entering anything.

use std::collections::BTreeMap;

use kiln_model::{
    Answer, AppName, AuditAnswer, AuditEntry, Failure, PackageRule, Release, ReleaseId, ReleaseState,
};
use kiln_store::StoreError;

use super::releases::release_state;
use super::{LocalHost, failure};
use crate::core::InstanceReport;
use crate::sync::lock;

impl LocalHost {
    pub(crate) fn audit(
        &self,
        app: Option<AppName>,
        package: Option<PackageRule>,
    ) -> Result<Answer, Failure> {
        let app = app.map(|app| self.app(Some(app))).transpose()?;
        let (apps, instances) = {
            let core = lock(&self.driver.core);
            (core.apps().clone(), core.instances())
        };
        let mut answer = AuditAnswer {
            package,
            services: Vec::new(),
            damaged: BTreeMap::new(),
            damaged_images: BTreeMap::new(),
        };
        for (name, state) in apps.iter().filter(|(name, _)| app.as_ref().is_none_or(|a| a == *name)) {
            for kept in state.kept.iter().rev() {
                let release = match self.store.release(&kept.release) {
                    Ok(release) => release,
                    // No reason to know nothing of the others.
                    Err(error @ (StoreError::Damaged { .. } | StoreError::NoSuchRelease(_))) => {
                        answer.damaged.insert(kept.release.clone(), error.to_string());
                        continue;
                    }
                    Err(error) => return Err(failure::store(&error)),
                };
                let at = (name, &kept.release, release_state(state, &kept.release));
                self.audit_release(at, &release, &instances, &mut answer)?;
            }
        }
        Ok(Answer::Audit(answer))
    }

    fn audit_release(
        &self,
        (app, id, state): (&AppName, &ReleaseId, ReleaseState),
        release: &Release,
        instances: &[InstanceReport],
        answer: &mut AuditAnswer,
    ) -> Result<(), Failure> {
        for (name, service) in &release.services {
            let found = self.store.image(&service.image);
            let record = match found.and_then(|r| r.ok_or(StoreError::NoSuchImage(service.image))) {
                Ok(record) => record,
                Err(error @ (StoreError::Damaged { .. } | StoreError::NoSuchImage(_))) => {
                    answer.damaged_images.insert(service.image, error.to_string());
                    continue;
                }
                Err(error) => return Err(failure::store(&error)),
            };
            let packages = match &answer.package {
                None => record.packages,
                Some(rule) => {
                    rule.among(&record.packages, &kiln_bake::compare_versions).into_iter().cloned().collect()
                }
            };
            let of_it =
                |i: &&InstanceReport| i.release == *id && i.fleet.app == *app && i.fleet.service == *name;
            let handmade = record.handmade.clone();
            answer.services.push(AuditEntry {
                handmade,
                app: app.clone(),
                release: id.clone(),
                state,
                service: name.clone(),
                image: service.image,
                packages,
                checks: service.checks.iter().map(|c| c.check.clone()).collect(),
                policy: release.policy.iter().cloned().collect(),
                instances: instances.iter().filter(of_it).map(|i| i.id.clone()).collect(),
            });
        }
        Ok(())
    }
}
