//! What is inside of what runs, and of what can be gone back to: from the record, without entering anything.

use std::collections::BTreeMap;

use kiln_model::{
    Answer, AppName, AuditAnswer, AuditEntry, ExitCode, Failure, PackageRule, Release, ReleaseId,
    ReleaseState,
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
        let (mut services, mut damaged) = (Vec::new(), BTreeMap::new());
        for (name, state) in apps.iter().filter(|(name, _)| app.as_ref().is_none_or(|a| a == *name)) {
            for kept in state.kept.iter().rev() {
                let release = match self.store.release(&kept.release) {
                    Ok(release) => release,
                    // No reason to know nothing of the others.
                    Err(error @ (StoreError::Damaged { .. } | StoreError::NoSuchRelease(_))) => {
                        damaged.insert(kept.release.clone(), error.to_string());
                        continue;
                    }
                    Err(error) => return Err(failure::store(&error)),
                };
                let at = (name, &kept.release, release_state(state, &kept.release));
                self.audit_release(at, &release, package.as_ref(), &instances, &mut services)?;
            }
        }
        Ok(Answer::Audit(AuditAnswer { package, services, damaged }))
    }

    fn audit_release(
        &self,
        (app, id, state): (&AppName, &ReleaseId, ReleaseState),
        release: &Release,
        package: Option<&PackageRule>,
        instances: &[InstanceReport],
        services: &mut Vec<AuditEntry>,
    ) -> Result<(), Failure> {
        for (name, service) in &release.services {
            let record =
                self.store.image(&service.image).map_err(|e| failure::store(&e))?.ok_or_else(|| {
                    Failure::new(
                        ExitCode::Host,
                        format!("the record of image {} is gone from the store", service.image),
                    )
                    .hint("`kiln verify` tells what else is missing")
                })?;
            let packages = match package {
                None => record.packages,
                Some(rule) => {
                    rule.among(&record.packages, &kiln_bake::compare_versions).into_iter().cloned().collect()
                }
            };
            let of_it =
                |i: &&InstanceReport| i.release == *id && i.fleet.app == *app && i.fleet.service == *name;
            let handmade = record.handmade.clone();
            services.push(AuditEntry {
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
