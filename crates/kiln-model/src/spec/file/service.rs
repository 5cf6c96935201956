//! `[service.NAME]`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One component of the app: instances of one image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceFile {
    /// The image its instances are made from, by its name in this file.
    #[schemars(example = &"web")]
    pub image: String,
    /// The TCP port its instances listen on.
    #[schemars(example = &8080)]
    pub port: u16,
    /// What its instances speak there: `http1` (also if absent), or `h2c`, HTTP/2 without TLS, which gRPC needs.
    #[schemars(example = &"h2c")]
    pub protocol: Option<String>,
    /// How many instances there are; 1 if absent.
    #[schemars(example = &4, range(min = 1))]
    pub instances: Option<u32>,
    /// The memory of each; 128MiB if absent.
    #[schemars(example = &"64MiB")]
    pub memory: Option<String>,
    /// The share of one CPU each may use; 1.0 if absent.
    #[schemars(example = &0.5)]
    pub cpu: Option<f64>,
    /// How many processes and threads each may have; 256 if absent.
    #[schemars(example = &256, range(min = 1))]
    pub pids: Option<u32>,
    /// What each may read from the disk its image lies on; as much as there is if absent. Nothing is written to disks.
    pub io: Option<IoFile>,
    /// What its processes may do beyond others, by the names Linux has for it (`NET_BIND_SERVICE`); nothing if absent.
    #[serde(default)]
    #[schemars(example = vec!["NET_BIND_SERVICE"])]
    pub capabilities: Vec<String>,
    /// How many requests it takes at a time, all instances together.
    pub circuit: Option<CircuitFile>,
    /// How its instances are asked whether they are well; a TCP connection if absent.
    pub health: Option<HealthFile>,
    /// Environment, laid over that of the image.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Secrets it may read, as files under /run/secrets. `kiln secret set` gives them values.
    #[serde(default)]
    pub secrets: Vec<SecretFile>,
    /// Stores and services it may reach, by name: `db` is there at its own port, `api` as `http://api/` and at its port.
    /// On the service's own port its instances reach themselves. Nothing else can be reached.
    #[serde(default)]
    pub needs: Vec<String>,
    /// Commands that are run once when a release takes over by a deploy.
    pub hooks: Option<HooksFile>,
}

/// Commands that are run once for a deploy, one after another, each in an instance of its own: made from the new image,
/// with the environment, secrets, needs and limits of the service. Going back runs none.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HooksFile {
    /// Before the new fleet of the service is made, when what it needs is up; for example what migrates the schema of
    /// a database. One that fails is a deploy that failed.
    #[serde(default)]
    pub before: Vec<HookFile>,
    /// After all traffic has gone over. One that fails is told; the release serves on.
    #[serde(default)]
    pub after: Vec<HookFile>,
}

/// A command that is run once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HookFile {
    /// Program and arguments. No shell is involved.
    #[schemars(example = vec!["/usr/bin/app", "migrate"])]
    pub run: Vec<String>,
    /// How long it may take; 5m if absent.
    #[schemars(example = &"5m")]
    pub timeout: Option<String>,
}

/// What may be read from a disk in a second: at least one of these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IoFile {
    /// Bytes.
    #[schemars(example = &"20MiB")]
    pub read: Option<String>,
    /// Requests.
    #[schemars(example = &1000)]
    pub reads: Option<u32>,
}

/// How many requests a service takes at a time. Requests beyond it wait; those beyond the queue, or that have waited
/// too long, are answered with 503 and `Retry-After`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CircuitFile {
    /// Requests in flight; more wait.
    #[schemars(example = &200)]
    pub in_flight: u32,
    /// Requests that wait; as many as may be in flight, if absent.
    #[schemars(example = &100)]
    pub queue: Option<u32>,
    /// How long they wait; 1s if absent.
    #[schemars(example = &"1s")]
    pub queue_time: Option<String>,
}

/// A secret: its name, or a table that also gives it an environment variable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SecretFile {
    /// A file under /run/secrets and nothing else.
    Name(#[schemars(example = &"API_KEY")] String),
    /// As the table says.
    Table(SecretTable),
}

/// A secret and how it is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretTable {
    /// Its name, which is that of its file under /run/secrets.
    #[schemars(example = &"API_KEY")]
    pub name: String,
    /// The environment variable that holds it as well. Files are safer: an environment is inherited by every child.
    #[schemars(example = &"API_KEY")]
    pub env: Option<String>,
}

/// How instances are asked whether they are well: over `http`, with `tcp`, or by a command (`exec`).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthFile {
    /// The path of an HTTP request.
    #[schemars(example = &"/healthz")]
    pub http: Option<String>,
    /// The status the answer to `http` must have; any 2xx or 3xx if absent.
    #[schemars(example = &200)]
    pub status: Option<u16>,
    /// Text the answer to `http` must contain.
    pub contains: Option<String>,
    /// A connection to the port is enough.
    pub tcp: Option<bool>,
    /// A command that is run inside the instance and exits with 0 if it is well.
    #[schemars(example = vec!["pg_isready", "-q"])]
    pub exec: Option<Vec<String>>,
    /// How often; every 500ms if absent. One that has not been healthy yet is asked every 20ms, if that is more often: a
    /// deploy waits for it.
    #[schemars(example = &"100ms")]
    pub interval: Option<String>,
    /// How long one answer may take; 1s if absent.
    #[schemars(example = &"1s")]
    pub timeout: Option<String>,
    /// Answers in a row that make an instance healthy; 2 if absent. Before it was healthy for the first time they follow each
    /// other by 20ms, or by `interval` if that is less.
    #[schemars(example = &2)]
    pub healthy_after: Option<u32>,
    /// Missed answers in a row that make it unhealthy again; 3 if absent.
    #[schemars(example = &3)]
    pub unhealthy_after: Option<u32>,
    /// How long an instance may take from its start until it is healthy, and from when it was last until it is again; then it
    /// is replaced. If none of a service is, one more is made first, and they are replaced if that one is healthy. 30s if
    /// absent.
    #[schemars(example = &"30s")]
    pub start_timeout: Option<String>,
}
