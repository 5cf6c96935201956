//! The spec resolved: every default filled in, every reference known to lead somewhere.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    AppName, ByteSize, Canary, Capability, CertificatePaths, Check, Circuit, Hooks, HostPattern, HttpsRule,
    ImageName, Limits, Millis, Need, NeedName, OciReference, Probe, Protocol, ReleaseTcpRoute, RouteName,
    SchemaRange, SecretName, ServiceName, Volatile,
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
    /// The versions of the schema of its data that it works with.
    pub schema: Option<SchemaRange>,
    /// Whether the host is to get certificates for the hosts of its routes itself.
    pub automatic_tls: bool,
    /// How a release takes over, if in steps.
    pub canary: Option<Canary>,
    /// Where the contents of images come from.
    pub sources: Sources,
    /// What every image that a service runs is held against.
    pub policy: super::Policy,
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
    /// Directories it is to have.
    pub dirs: Vec<DirSpec>,
    /// Links it is to have.
    pub links: Vec<LinkSpec>,
    /// Users it is to have.
    pub users: Vec<UserSpec>,
    /// What is run in it once all that is there, in this order.
    pub build: Vec<BuildStep>,
    /// What that can reach.
    pub build_network: BuildNetwork,
    /// Program and arguments of the main process; the program is an absolute path. Empty only over an OCI image,
    /// which then says it.
    pub run: Vec<String>,
    /// The user the main process runs as, by name or number; absent only over an OCI image, which then says it.
    pub user: Option<String>,
    /// Environment of the main process, over that of an OCI image.
    pub env: BTreeMap<String, String>,
    /// Its working directory, absolute; absent as `user` is.
    pub workdir: Option<String>,
    /// The signal that asks it to end, by number; absent as `user` is.
    pub stop_signal: Option<i32>,
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
    /// An OCI image.
    Oci(OciReference),
    /// A handmade image of the host, by its name.
    Handmade(ImageName),
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
    /// Absolute path in the image, without `.`, `..` or empty components. A slash at its end says that a file is put into it.
    pub dst: String,
    /// Permission bits of its files; 0644, or 0755 for what may be executed, if absent.
    pub mode: Option<u32>,
    /// `user` or `user:group`; root if absent.
    pub owner: Option<String>,
}

/// A directory of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirSpec {
    /// Absolute path, in the one form it is known by.
    pub path: String,
    /// Permission bits; 0755, or those it has, if absent.
    pub mode: Option<u32>,
    /// `user` or `user:group`; root, or whoever owns it, if absent.
    pub owner: Option<String>,
}

/// A symbolic link of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSpec {
    /// Absolute path, in the one form it is known by.
    pub path: String,
    /// Its target as it is written: not empty, at most 4095 bytes, no NUL.
    pub to: String,
}

/// A user of an image. One that the image has already must be as it is said here; what is absent may be anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserSpec {
    /// Its name: a valid one.
    pub name: String,
    /// Its number; the first that is free if absent.
    pub uid: Option<u32>,
    /// That of its own group; the user's if absent.
    pub gid: Option<u32>,
    /// Further groups.
    pub groups: Vec<String>,
    /// Its home directory; none that exists if absent.
    pub home: Option<String>,
    /// Its shell; one that lets nobody in if absent.
    pub shell: Option<String>,
}

/// What a build can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildNetwork {
    /// Nothing but itself: the same inputs give the same image.
    None,
    /// Whatever the host can.
    Host,
}

/// Something that is run in the tree of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildStep {
    /// A line for `/bin/sh -e`.
    Line(String),
    /// A program by its absolute path, and its arguments.
    Program(Vec<String>),
}

/// What a service is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// How many requests its instances take at a time, if it is said.
    pub circuit: Option<Circuit>,
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
    /// What they reach beyond themselves, by name.
    pub needs: BTreeMap<NeedName, Need>,
    /// What is run once when a release takes over.
    pub hooks: Hooks,
    /// What their processes may do beyond others.
    pub capabilities: BTreeSet<Capability>,
}

/// How instances are asked whether they are well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSpec {
    /// The question.
    pub probe: Probe,
    /// How often it is asked; until an instance is healthy for the first time every 20ms, if that is more often.
    pub interval: Millis,
    /// How long one answer may take.
    pub timeout: Millis,
    /// Answers in a row that make an instance healthy, whatever lies between them; at least 1.
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
    /// The largest body that a request may have.
    pub max_body: Option<ByteSize>,
    /// How long an answer may take to begin.
    pub timeout: Option<Millis>,
}

/// Where the contents of images come from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sources {
    /// The Debian mirror, without a slash at its end; the host's own apt sources if absent.
    pub debian_mirror: Option<String>,
}
