//! The spec resolved: every default filled in, every reference known to lead somewhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    AppName, CertificatePaths, Check, HostPattern, HttpsRule, ImageName, Limits, Millis, Probe, Protocol,
    ReleaseTcpRoute, RouteName, SecretName, ServiceName, Volatile,
};

/// What the operator wants, with nothing left open but what the lock pins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The app.
    pub app: AppName,
    /// Its images.
    pub images: BTreeMap<ImageName, ImageSpec>,
    /// Its services.
    pub services: BTreeMap<ServiceName, ServiceSpec>,
    /// Its routes; no two take the same host and path.
    pub routes: BTreeMap<RouteName, RouteSpec>,
    /// Its ports that are passed on as they are; no two are the same.
    pub tcp: BTreeMap<RouteName, ReleaseTcpRoute>,
    /// What clients that come over https are shown.
    pub certificates: Vec<CertificatePaths>,
    /// How long requests to the old fleet may go on after a switch.
    pub drain: Millis,
    /// How long the old fleet stays up after that.
    pub keep_warm: Millis,
    /// Where the contents of images come from.
    pub sources: Sources,
}

/// What an image is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSpec {
    /// What it starts from.
    pub base: Base,
    /// Distribution packages as written and in that order, without repetition; empty unless the base is a
    /// distribution.
    pub packages: Vec<String>,
    /// Further suites they may come from, in the order of the spec.
    pub suites: Vec<SuiteSpec>,
    /// Whether recommended packages come with them.
    pub recommends: bool,
    /// What is copied into it from the project, in this order.
    pub files: Vec<CopySpec>,
    /// Program and arguments of the main process; the program is an absolute path.
    pub run: Vec<String>,
    /// The user the main process runs as, by name.
    pub user: String,
    /// Environment of the main process.
    pub env: BTreeMap<String, String>,
    /// Its working directory, absolute.
    pub workdir: String,
    /// The signal that asks it to end, by number.
    pub stop_signal: i32,
    /// How long after that signal it is killed.
    pub stop_grace: Millis,
    /// Its volatile paths, sorted, the ones every image has included.
    pub volatile: Vec<Volatile>,
    /// What must hold of it, in the order of the spec.
    pub checks: Vec<Check>,
}

/// What an image starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Base {
    /// A Debian suite.
    Debian {
        /// Its codename, e.g. `bookworm`.
        suite: String,
    },
    /// Nothing.
    Scratch,
}

/// A further suite that packages may come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuiteSpec {
    /// Its name, e.g. `bookworm-backports`.
    pub name: String,
    /// How much it is preferred, from 1 to 999; the suite of the base has 500.
    pub priority: u16,
}

/// A file or directory of the project and its place in the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopySpec {
    /// Relative to the directory of `kiln.toml`, and, as it is written, not leading out of it. (A symbolic link on
    /// the way might; that is for whoever opens it to refuse.)
    pub src: String,
    /// Absolute path in the image, without `.`, `..`, empty components or a slash at its end.
    pub dst: String,
}

/// What a service is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// The image its instances are made from.
    pub image: ImageName,
    /// The port they listen on; not 0.
    pub port: u16,
    /// What they speak there.
    pub protocol: Protocol,
    /// How many there are; at least 1.
    pub instances: u32,
    /// What each may use.
    pub limits: Limits,
    /// Environment, laid over that of the image.
    pub env: BTreeMap<String, String>,
    /// How they are asked whether they are well.
    pub health: HealthSpec,
    /// The secrets they are given, and the environment variable that holds each as well, if any.
    pub secrets: BTreeMap<SecretName, Option<String>>,
}

/// How instances are asked whether they are well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSpec {
    /// The question.
    pub probe: Probe,
    /// How often it is asked.
    pub interval: Millis,
    /// How long one answer may take.
    pub timeout: Millis,
    /// Answers in a row that make an instance healthy; at least 1.
    pub healthy_after: u32,
    /// Missed answers in a row that make it unhealthy again; at least 1.
    pub unhealthy_after: u32,
    /// How long an instance may take from its start until it is healthy.
    pub start_timeout: Millis,
}

/// Which requests go to which service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// Which hosts; every host if absent.
    pub host: Option<HostPattern>,
    /// Path prefix, starting with `/`; without a slash at its end unless it is `/`.
    pub path: String,
    /// The service that answers.
    pub service: ServiceName,
    /// What becomes of requests that come without TLS.
    pub https: HttpsRule,
}

/// Where the contents of images come from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sources {
    /// The Debian mirror, without a slash at its end; the host's own apt sources if absent.
    pub debian_mirror: Option<String>,
}
