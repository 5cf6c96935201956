//! What the edge is told: one complete table at a time, replaced, never patched.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use crate::host_name::is_host_name;
use crate::{
    ByteSize, CertificatePaths, EdgeNeed, FleetId, InstanceId, Millis, NeedName, ReleaseId, ServiceName,
    Share,
};

/// Which requests a route takes, by their host: a name, or `*.` and a name for every name one label below it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct HostPattern(String);

impl HostPattern {
    /// The pattern as text, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a request for `host` (without port, any case) is meant.
    pub fn matches(&self, host: &str) -> bool {
        match self.0.strip_prefix("*.") {
            None => self.0.eq_ignore_ascii_case(host),
            Some(parent) => host
                .split_once('.')
                .is_some_and(|(label, rest)| !label.is_empty() && parent.eq_ignore_ascii_case(rest)),
        }
    }
}

impl FromStr for HostPattern {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        s.to_owned().try_into()
    }
}

impl TryFrom<String> for HostPattern {
    type Error = String;
    fn try_from(mut s: String) -> Result<Self, String> {
        if s.len() <= 253 && is_host_name(s.strip_prefix("*.").unwrap_or(&s)) {
            s.make_ascii_lowercase();
            Ok(Self(s))
        } else {
            Err(format!("`{s}` is not a host: expected a name like `www.example.com` or `*.example.com`"))
        }
    }
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A fleet and its share of a route's new requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The fleet.
    pub fleet: FleetId,
    /// Its share, relative to the other targets of the route; 0 takes nothing.
    pub weight: u32,
}

/// One route: the most specific one that matches a request takes it (exact host before wildcard before none, then
/// the longest path prefix).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeRoute {
    /// Which hosts; every host if absent.
    pub host: Option<HostPattern>,
    /// Path prefix, starting with `/`; matches whole segments.
    pub path: String,
    /// The service behind it, for messages and metrics.
    pub service: ServiceName,
    /// Where new requests go. With none, or with all weights 0, the answer is 503.
    pub targets: Vec<Target>,
    /// What becomes of requests that come without TLS.
    #[serde(default, skip_serializing_if = "HttpsRule::is_default")]
    pub https: HttpsRule,
    /// Whose requests it takes.
    #[serde(default, skip_serializing_if = "Audience::is_everybody")]
    pub audience: Audience,
    /// Requests wait for another table, so long at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Millis>,
    /// The largest body that a request may have; any size if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body: Option<ByteSize>,
    /// How long an answer may take to begin; as long as the edge puts up with, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Millis>,
}

/// How much a fleet takes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Circuit {
    /// Requests in flight at it, all its instances together; more wait.
    pub in_flight: u64,
    /// Requests that wait; more are refused.
    pub queue: u64,
    /// How long they wait before they are refused.
    pub queue_time: Millis,
}

/// Whose requests a route takes. Two releases of an app that serve at the same time have routes of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// Everybody's.
    #[default]
    Everybody,
    /// Those of users who are at the canary of this number in the table.
    At(usize),
    /// Those of users who are not.
    NotAt(usize),
}

impl Audience {
    /// Whether it is what holds when nothing is said.
    pub fn is_everybody(&self) -> bool {
        *self == Self::default()
    }
}

/// A release that serves some of the users of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeCanary {
    /// The release: who is at it depends on the user and on this.
    pub release: ReleaseId,
    /// How many of the users. Who is at it stays at it when there are to be more.
    pub share: Share,
    /// Whether those who ask for it get it: under `preview.HOST`, or with a header field.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preview: bool,
}

/// What becomes of requests that come without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HttpsRule {
    /// They are served like the others.
    #[default]
    Optional,
    /// They are told to come again over HTTPS.
    Redirect,
}

impl HttpsRule {
    /// Whether it is what holds when nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What instances speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS, from the first byte on: what gRPC needs.
    H2c,
}

impl Protocol {
    /// Whether it is what holds when nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A port of the host whose connections go to a service as they are, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpRoute {
    /// The port; no other route of the host has it.
    pub port: u16,
    /// The service behind it, for messages and metrics.
    pub service: ServiceName,
    /// Where new connections go. With none, or with all weights 0, they are closed at once.
    pub targets: Vec<Target>,
    /// Connections wait for another table, so long at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Millis>,
}

/// A fleet the edge may hold connections to. One that no route targets gets no new requests; what is in flight
/// there goes on until it ends, or the fleet is parted or leaves the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeFleet {
    /// Which.
    pub id: FleetId,
    /// The port its instances listen on.
    pub port: u16,
    /// The instances that may receive requests: observed healthy.
    pub instances: Vec<InstanceId>,
    /// The release they belong to, for figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseId>,
    /// What they speak.
    #[serde(default, skip_serializing_if = "Protocol::is_default")]
    pub protocol: Protocol,
    /// How much it takes at a time; what the edge puts up with, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit: Option<Circuit>,
    /// The instances whose needs are served: all that run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<InstanceId>,
    /// What they reach, by the name under which they do.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub needs: BTreeMap<NeedName, EdgeNeed>,
    /// Its time to drain is over: what is in flight there when it becomes so ends as if it left the table. It stays for
    /// what members of its release ask of each other from then on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub parted: bool,
}

/// The whole truth for the edge.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RouteTable {
    /// Grows with every table; a table that is not newer than the one in force is refused.
    pub version: u64,
    /// All routes.
    pub routes: Vec<EdgeRoute>,
    /// All fleets, those that only drain included.
    pub fleets: Vec<EdgeFleet>,
    /// Ports whose connections are passed on as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tcp: Vec<TcpRoute>,
    /// Releases that serve some of the users of their app.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub canaries: Vec<EdgeCanary>,
    /// What clients that come over https are shown. The edge cannot open files: whoever hands it the table reads them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificatePaths>,
}

/// What is in flight at one fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetCount {
    /// Which.
    pub fleet: FleetId,
    /// Requests (and upgraded connections) begun and not ended.
    pub in_flight: u64,
    /// Requests answered since the edge knows this fleet.
    pub served: u64,
    /// Of these, answered by the edge itself with 502, 503 or 504, be it that they were not let in, or broken off.
    pub failed: u64,
    /// Requests, streams and upgraded connections that were ended because the fleet's time was up.
    #[serde(default)]
    pub cut: u64,
}

/// The edge's acknowledgement: no request that begins after it is routed by a table older than `version`, so a
/// fleet that this table does not target and whose `in_flight` is 0 is out of use for good.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EdgeCounts {
    /// The version in force on all of the edge's threads.
    pub version: u64,
    /// One entry per fleet of that table.
    pub fleets: Vec<FleetCount>,
    /// The process that counts: others' figures are told apart from its. 0 where there is only one.
    #[serde(default)]
    pub process: u32,
    /// In the answer to a new table: one entry per fleet that left with it. What was in flight there has ended, but
    /// for what `in_flight` still says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<FleetCount>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let exact: HostPattern = "WWW.example.com".parse().unwrap();
        assert!(exact.matches("www.EXAMPLE.com") && !exact.matches("example.com"));
        let wild: HostPattern = "*.example.com".parse().unwrap();
        assert!(wild.matches("a.example.com"));
        assert!(
            !wild.matches("example.com") && !wild.matches("a.b.example.com") && !wild.matches(".example.com")
        );
        for bad in ["", "*", "*.", "a..b", "a b", "-a.com", "http://a"] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
    }
}
