//! Releases: atoms of images, configuration, secret versions, routes, and what they were held against.
//!
//! The encoding is described in `docs/design/release.md`. Its rule: what is not there is not written. A part that is
//! added later is left out of the encoding where it is empty, so that releases made before it keep their ids.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    AppName, ByteSize, Canary, Capability, Check, Circuit, ExecOrder, Hooks, HostPattern, HttpsRule,
    ImageDigest, Limits, Millis, Need, NeedName, PinnedSecret, Probe, Protocol, ReleaseId, RouteName,
    RunSettings, SchemaRange, SecretName, SecretOrder, ServiceName, Sha256, Volatile,
};

/// A check that the image of a service has passed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassedCheck {
    /// The check in a few words.
    pub check: String,
    /// The key under which its result is kept: the sha256 of the whole check as JSON.
    pub key: Sha256,
}

impl PassedCheck {
    /// What is recorded of `check` once it has been passed.
    pub fn of(check: &Check) -> Self {
        Self { check: check.to_string(), key: check.key() }
    }
}

/// One service of a release, wholly resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    /// What they speak there.
    #[serde(default, skip_serializing_if = "Protocol::is_default")]
    pub protocol: Protocol,
    /// How many requests they take at a time, if it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit: Option<Circuit>,
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
    /// The secrets they are given, each in one version for ever.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<SecretName, PinnedSecret>,
    /// What the image has passed before it became part of the release.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub checks: BTreeSet<PassedCheck>,
    /// What they reach beyond themselves, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub needs: BTreeMap<NeedName, Need>,
    /// What is run once when the release takes over.
    #[serde(default, skip_serializing_if = "Hooks::is_empty")]
    pub hooks: Hooks,
    /// What their processes may do beyond others.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub capabilities: BTreeSet<Capability>,
}

impl ReleaseService {
    /// A command beside the main process of an instance: the same user, environment and capabilities. `secrets` are
    /// those of the instance; the ones that are variables are variables of the command, too.
    pub fn command(&self, argv: Vec<String>, secrets: Vec<SecretOrder>) -> ExecOrder {
        ExecOrder {
            env: self.env.clone(),
            secrets: secrets.into_iter().filter(|s| s.env.is_some()).collect(),
            capabilities: self.capabilities.clone(),
            ..ExecOrder::beside(&self.run, argv)
        }
    }
}

/// One route of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRoute {
    /// Which hosts; every host if absent.
    pub host: Option<HostPattern>,
    /// Path prefix, starting with `/`.
    pub path: String,
    /// The service that answers.
    pub service: ServiceName,
    /// What becomes of requests that come without TLS.
    #[serde(default, skip_serializing_if = "HttpsRule::is_default")]
    pub https: HttpsRule,
    /// The largest body that a request may have; any size if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body: Option<ByteSize>,
    /// How long an answer may take to begin; as long as the edge puts up with, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Millis>,
}

/// A port of the host whose connections go to a service as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseTcpRoute {
    /// The port; not 0.
    pub port: u16,
    /// The service behind it.
    pub service: ServiceName,
}

/// Where a certificate and its key are kept. The files belong to the host, not to the release: they are renewed
/// while it serves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificatePaths {
    /// Absolute path of the certificate and its chain (PEM).
    pub cert: String,
    /// Absolute path of its private key (PEM).
    pub key: String,
}

/// What a fleet of an app is made from and how it is reached. Never edited: its id is a digest of all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Version of this encoding.
    pub format: u32,
    /// The app.
    pub app: AppName,
    /// Its services.
    pub services: BTreeMap<ServiceName, ReleaseService>,
    /// Its routes.
    pub routes: BTreeMap<RouteName, ReleaseRoute>,
    /// Its ports that are passed on as they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tcp: BTreeMap<RouteName, ReleaseTcpRoute>,
    /// What clients that come over https are shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificatePaths>,
    /// How long requests to the fleet it replaces may go on after the switch.
    pub drain: Millis,
    /// How long the fleet it replaces stays up after the drain.
    pub keep_warm: Millis,
    /// The versions of the schema of its data that it works with, if it cares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<SchemaRange>,
    /// Whether the host is to get certificates for the hosts of its routes itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub automatic_tls: bool,
    /// How it takes over, if in steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// The rules of the spec's policy it was held against and kept, each in its canonical words.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub policy: BTreeSet<String>,
}

/// Bytes that are not the encoding of a release.
#[derive(Debug, thiserror::Error)]
pub enum BadRelease {
    /// A newer Kiln made it.
    #[error("it has format {found} and this Kiln knows formats up to {known}: run a newer Kiln", known = Release::FORMAT)]
    Newer {
        /// The format it has.
        found: u32,
    },
    /// It does not read as one.
    #[error("it does not read as a release")]
    Unreadable(#[source] serde_json::Error),
    /// It reads as one, and is written in another way than the canonical one.
    #[error("it is not in the canonical encoding")]
    NotCanonical,
}

impl Release {
    /// The version of the encoding this code writes. Version 1 had neither secrets nor checks nor policy.
    pub const FORMAT: u32 = 2;

    /// The canonical encoding: JSON without white space, keys of maps and members of sets sorted, fields in the
    /// order of declaration, what was added after version 1 left out where it is empty.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a release is made of maps with string keys")
    }

    /// Reads a canonical encoding: every release has exactly one.
    ///
    /// # Errors
    /// [`BadRelease`], with what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRelease> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_slice(bytes).map_err(BadRelease::Unreadable)?;
        if head.format > Self::FORMAT {
            return Err(BadRelease::Newer { found: head.format });
        }
        let release: Self = serde_json::from_slice(bytes).map_err(BadRelease::Unreadable)?;
        if release.encode() == bytes { Ok(release) } else { Err(BadRelease::NotCanonical) }
    }

    /// `r-` and the first 32 hex digits of the sha256 of the canonical encoding.
    pub fn id(&self) -> ReleaseId {
        format!("r-{}", &Sha256::of(&self.encode()).hex()[..32]).parse().expect("hex digits")
    }

    /// The secret versions its services are given, by name.
    pub fn secrets(&self) -> BTreeSet<(&SecretName, &crate::SecretVersion)> {
        let of_services = self.services.values().flat_map(|s| &s.secrets);
        of_services.map(|(name, pinned)| (name, &pinned.version)).collect()
    }
}
