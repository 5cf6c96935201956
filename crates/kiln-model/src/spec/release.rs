//! From a spec and its baked images to a release.

use std::collections::{BTreeMap, BTreeSet};

use super::{HealthSpec, ServiceSpec, Spec};
use crate::{
    ImageName, ImageRecord, MissingSecret, PassedCheck, PinnedSecret, Release, ReleaseRoute, ReleaseService,
    SecretName, SecretVersions,
};

/// What a release is made of beside the spec itself.
#[derive(Debug, Clone)]
pub struct Ingredients<'a> {
    /// The images, by their names in the spec.
    pub images: &'a BTreeMap<ImageName, ImageRecord>,
    /// The present versions of the app's secrets.
    pub secrets: &'a SecretVersions,
    /// The rules of policy that were kept.
    pub policy: BTreeSet<String>,
}

/// Why a spec makes no release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReleasable {
    /// There is nothing to run.
    #[error("the spec has no service, so there is nothing to deploy")]
    NoService,
    /// An image that a service is made from was not given.
    #[error("image `{0}` has not been baked")]
    NotBaked(ImageName),
    /// A secret that a service needs was not given.
    #[error("secret `{0}` has no value")]
    NoSecret(SecretName),
}

impl Spec {
    /// The secrets that services need and `versions` lacks.
    pub fn missing_secrets(&self, versions: &SecretVersions) -> Vec<MissingSecret> {
        let needed =
            self.services.iter().flat_map(|(service, s)| s.secrets.keys().map(move |n| (service, n)));
        needed
            .filter(|(_, name)| !versions.contains_key(*name))
            .map(|(service, name)| MissingSecret { service: service.clone(), name: name.clone() })
            .collect()
    }

    /// The release that this spec makes of these ingredients, on the condition that its images pass their checks.
    /// The same spec and ingredients make the same release.
    ///
    /// # Errors
    /// If there is no service, or the image or a secret of one is not among the ingredients.
    pub fn release(&self, of: &Ingredients<'_>) -> Result<Release, NotReleasable> {
        if self.services.is_empty() {
            return Err(NotReleasable::NoService);
        }
        let services = self
            .services
            .iter()
            .map(|(name, s)| Ok((name.clone(), self.released(s, of)?)))
            .collect::<Result<_, _>>()?;
        let route = |r: &super::RouteSpec| ReleaseRoute {
            host: r.host.clone(),
            path: r.path.clone(),
            service: r.service.clone(),
            https: r.https,
            max_body: r.max_body,
            timeout: r.timeout,
        };
        Ok(Release {
            format: Release::FORMAT,
            app: self.app.clone(),
            services,
            routes: self.routes.iter().map(|(name, r)| (name.clone(), route(r))).collect(),
            tcp: self.tcp.clone(),
            certificates: self.certificates.clone(),
            drain: self.drain,
            keep_warm: self.keep_warm,
            schema: self.schema,
            automatic_tls: self.automatic_tls,
            canary: self.canary.clone(),
            policy: of.policy.clone(),
        })
    }

    fn released(&self, service: &ServiceSpec, of: &Ingredients<'_>) -> Result<ReleaseService, NotReleasable> {
        let image = of.images.get(&service.image);
        let image = image.ok_or_else(|| NotReleasable::NotBaked(service.image.clone()))?;
        let checks = self.images.get(&service.image).map(|i| i.checks.as_slice()).unwrap_or_default();
        Ok(ReleaseService {
            secrets: pinned(service, of.secrets)?,
            checks: checks.iter().map(PassedCheck::of).collect(),
            needs: service.needs.clone(),
            capabilities: service.capabilities.clone(),
            ..without_proof(service, image)
        })
    }
}

fn pinned(
    service: &ServiceSpec,
    versions: &SecretVersions,
) -> Result<BTreeMap<SecretName, PinnedSecret>, NotReleasable> {
    let pin = |(name, env): (&SecretName, &Option<String>)| {
        let version = versions.get(name).ok_or_else(|| NotReleasable::NoSecret(name.clone()))?;
        Ok((name.clone(), PinnedSecret { version: version.clone(), env: env.clone() }))
    };
    service.secrets.iter().map(pin).collect()
}

/// What of a service needs no look at anything but its image.
fn without_proof(service: &ServiceSpec, image: &ImageRecord) -> ReleaseService {
    let mut env = image.run.env.clone();
    env.extend(service.env.clone());
    let HealthSpec { probe, interval, timeout, healthy_after, unhealthy_after, start_timeout } =
        service.health.clone();
    ReleaseService {
        image: image.digest,
        run: image.run.clone(),
        env,
        volatile: image.volatile.clone(),
        port: service.port,
        protocol: service.protocol,
        circuit: service.circuit,
        instances: service.instances,
        limits: service.limits,
        probe,
        probe_interval: interval,
        probe_timeout: timeout,
        healthy_after,
        unhealthy_after,
        start_timeout,
        needs: BTreeMap::new(),
        capabilities: BTreeSet::new(),
        secrets: BTreeMap::new(),
        checks: BTreeSet::new(),
        hooks: service.hooks.clone(),
    }
}
