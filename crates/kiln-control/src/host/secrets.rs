//! Secrets of apps.

use kiln_model::{ExitCode, Failure, SecretVersions};

use super::LocalHost;
use crate::project::Project;

impl LocalHost {
    /// The present versions of the secrets that a project's services need.
    pub(crate) fn secrets_for(&self, project: &Project) -> Result<SecretVersions, Failure> {
        match project.spec.missing_secrets(&SecretVersions::new()).first() {
            None => Ok(SecretVersions::new()),
            Some(missing) => {
                let message = format!("secret {} of service {} has no value", missing.name, missing.service);
                Err(Failure::new(ExitCode::Spec, message).because("this version of Kiln keeps no secrets"))
            }
        }
    }
}
