//! Releases: atoms of images, configuration and routes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    AppName, HostPattern, ImageDigest, Limits, Millis, Probe, ReleaseId, RouteName, RunSettings, ServiceName,
    Sha256, Volatile,
};

/// One service of a release, wholly resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseService {
    /// The image its instances are made from.
    pub image: ImageDigest,
    /// How their main process is run.
    pub run: RunSettings,
    /// Their environment, the image's included.
    pub env: BTreeMap<String, String>,
    /// Where they may write.
    pub volatile: Vec<Volatile>,
    /// The port they listen on.
    pub port: u16,
    /// How many there are.
    pub instances: u32,
    /// What each may use.
    pub limits: Limits,
    /// How they are asked whether they are well.
    pub probe: Probe,
    /// How often.
    pub probe_interval: Millis,
    /// How long one answer may take.
    pub probe_timeout: Millis,
    /// Answers in a row that make an instance healthy.
    pub healthy_after: u32,
    /// Missed answers in a row that make it unhealthy again.
    pub unhealthy_after: u32,
    /// How long an instance may take from its start until it is healthy.
    pub start_timeout: Millis,
}

/// One route of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRoute {
    /// Which hosts; every host if absent.
    pub host: Option<HostPattern>,
    /// Path prefix, starting with `/`.
    pub path: String,
    /// The service that answers.
    pub service: ServiceName,
}

/// What a fleet of an app is made from and how it is reached. Never edited: its id is a digest of all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Version of this encoding.
    pub format: u32,
    /// The app.
    pub app: AppName,
    /// Its services.
    pub services: BTreeMap<ServiceName, ReleaseService>,
    /// Its routes.
    pub routes: BTreeMap<RouteName, ReleaseRoute>,
    /// How long requests to the fleet it replaces may go on after the switch.
    pub drain: Millis,
    /// How long the fleet it replaces stays up after the drain.
    pub keep_warm: Millis,
}

impl Release {
    /// The version of the encoding this code writes.
    pub const FORMAT: u32 = 1;

    /// The canonical encoding: JSON without white space, keys of maps sorted, fields in the order of declaration.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a release is made of maps with string keys")
    }

    /// `r-` and the first 32 hex digits of the sha256 of the canonical encoding.
    pub fn id(&self) -> ReleaseId {
        format!("r-{}", &Sha256::of(&self.encode()).hex()[..32]).parse().expect("hex digits")
    }
}
