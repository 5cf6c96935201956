//! From a spec and its baked images to a release.

use std::collections::BTreeMap;

use super::{HealthSpec, ServiceSpec, Spec};
use crate::{ImageName, ImageRecord, Release, ReleaseRoute, ReleaseService};

/// Why a spec makes no release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReleasable {
    /// There is nothing to run.
    #[error("the spec has no service, so there is nothing to deploy")]
    NoService,
    /// An image that a service is made from was not given.
    #[error("image `{0}` has not been baked")]
    NotBaked(ImageName),
}

impl Spec {
    /// The release that this spec makes with these images. The same spec and images make the same release.
    ///
    /// # Errors
    /// If there is no service, or the image of one is not among `images`.
    pub fn release(&self, images: &BTreeMap<ImageName, ImageRecord>) -> Result<Release, NotReleasable> {
        if self.services.is_empty() {
            return Err(NotReleasable::NoService);
        }
        let service = |service: &ServiceSpec| {
            let image = images.get(&service.image);
            image
                .map(|image| released(service, image))
                .ok_or_else(|| NotReleasable::NotBaked(service.image.clone()))
        };
        let services = self
            .services
            .iter()
            .map(|(name, s)| Ok((name.clone(), service(s)?)))
            .collect::<Result<_, _>>()?;
        let route = |r: &super::RouteSpec| ReleaseRoute {
            host: r.host.clone(),
            path: r.path.clone(),
            service: r.service.clone(),
        };
        Ok(Release {
            format: Release::FORMAT,
            app: self.app.clone(),
            services,
            routes: self.routes.iter().map(|(name, r)| (name.clone(), route(r))).collect(),
            drain: self.drain,
            keep_warm: self.keep_warm,
        })
    }
}

fn released(service: &ServiceSpec, image: &ImageRecord) -> ReleaseService {
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
        instances: service.instances,
        limits: service.limits,
        probe,
        probe_interval: interval,
        probe_timeout: timeout,
        healthy_after,
        unhealthy_after,
        start_timeout,
    }
}
