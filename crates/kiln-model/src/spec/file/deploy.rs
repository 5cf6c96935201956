//! The smaller sections: `[store.NAME]`, `[route.NAME]`, `[tls]`, `[deploy]`, `[sources]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A persistent service outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreFile {
    /// Where it is: host and port.
    #[schemars(example = &"10.0.0.5:5432")]
    pub address: String,
}

/// Which requests go to which service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteFile {
    /// The host asked for, `*.` for any name one label below; every host if absent.
    #[schemars(example = &"hello.example.com")]
    pub host: Option<String>,
    /// The beginning of the path asked for, in whole segments; `/` if absent.
    #[schemars(example = &"/api")]
    pub path: Option<String>,
    /// The service that answers, by its name in this file.
    #[schemars(example = &"web")]
    pub service: String,
    /// What becomes of requests without TLS: `optional` (also if absent) serves them, `redirect` tells clients to
    /// come again over https.
    #[schemars(example = &"redirect")]
    pub https: Option<String>,
    /// The largest body that a request may have; a larger one is refused with 413. Any size if absent.
    #[schemars(example = &"10MiB")]
    pub max_body: Option<String>,
    /// How long an answer may take to begin, from the end of its request on; then it is refused with 504. 60s if absent.
    #[schemars(example = &"5m")]
    pub timeout: Option<String>,
    /// A port of the host whose TCP connections go to the service as they are; then there is no host and no path.
    #[schemars(example = &5432)]
    pub tcp: Option<u16>,
}

/// What clients that come over https are shown.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsFile {
    /// Certificates and their keys: files of the host, looked at again when they change. Clients get the one for the
    /// name they ask for.
    #[serde(default)]
    pub certificates: Vec<CertificateFile>,
    /// Whether the host gets certificates for the hosts of all routes itself, and renews them; it has to be started with
    /// `--acme`. false if absent.
    #[schemars(example = &true)]
    pub automatic: Option<bool>,
}

/// A certificate and its private key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateFile {
    /// Absolute path of the certificate and its chain (PEM).
    #[schemars(example = &"/etc/ssl/hello/fullchain.pem")]
    pub cert: String,
    /// Absolute path of its private key (PEM).
    #[schemars(example = &"/etc/ssl/hello/privkey.pem")]
    pub key: String,
}

/// How a release takes over from the one before.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeployFile {
    /// `blue-green` (also if absent), or a canary.
    pub strategy: Option<StrategyFile>,
    /// How long requests to the old fleet may go on after the switch; 30s if absent.
    #[schemars(example = &"30s")]
    pub drain: Option<String>,
    /// How long the old fleet stays up after that, so that going back is one switch; 10m if absent.
    #[schemars(example = &"10m")]
    pub keep_warm: Option<String>,
    /// The versions of the schema of its data that the app works with. A rollback past it is refused.
    pub schema: Option<SchemaFile>,
}

/// Versions of the schema of the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SchemaFile {
    /// The oldest version it works with.
    #[schemars(example = &6)]
    pub oldest: u32,
    /// The newest, which is also the one it leaves the data at.
    #[schemars(example = &7)]
    pub newest: u32,
}

/// How the traffic moves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum StrategyFile {
    /// `blue-green`: all of it at once.
    Name(#[schemars(example = &"blue-green")] String),
    /// In steps.
    Canary(CanaryFile),
}

/// The traffic moves in steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CanaryFile {
    /// The new release's share of the users at each step, growing; `0%` lets only those in who ask for a preview.
    #[schemars(example = vec!["5%", "25%"])]
    pub canary: Vec<String>,
    /// How long a step takes at least; 1m if absent.
    #[schemars(example = &"1m")]
    pub hold: Option<String>,
    /// How long a step waits at most for evidence that the new release does as well as the old one; ten times `hold` if
    /// absent. Then it goes on without, and says so.
    #[schemars(example = &"10m")]
    pub within: Option<String>,
    /// How many more of its requests may fail than of the old release's, in points; 1% if absent.
    #[schemars(example = &"1%")]
    pub errors: Option<String>,
    /// How much slower it may be than the old release; 50% if absent.
    #[schemars(example = &"50%")]
    pub slower: Option<String>,
    /// Whether those who ask for the new release get it from the first step on: with the header field
    /// `X-Kiln-Preview: 1`, or under `preview.HOST`; false if absent.
    #[schemars(example = &true)]
    pub preview: Option<bool>,
}

/// Where the contents of images come from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourcesFile {
    /// Debian packages.
    pub debian: Option<DebianFile>,
}

/// Where Debian packages come from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DebianFile {
    /// The mirror's address; the host's own apt sources if absent.
    #[schemars(example = &"https://mirror.example.com/debian")]
    pub mirror: Option<String>,
}
