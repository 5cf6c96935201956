//! A release told part by part: everything that is in its encoding, under a name people know.
//!
//! `kiln releases show` prints these, `kiln releases diff` compares them. Each function here takes its part of a release to
//! pieces by name, so that a field that is added cannot be forgotten: it does not compile until it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    Canary, CertificatePaths, Circuit, Hook, HookMoment, HttpProbe, IoLimits, Limits, Need, PassedCheck,
    PinnedSecret, Probe, Protocol, Release, ReleaseRoute, ReleaseService, ReleaseTcpRoute, RunSettings,
    SchemaRange, ServiceName, Terms, Volatile,
};

/// A kind of thing that a release is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// A service as a whole.
    Service,
    /// How many instances there are.
    Instances,
    /// The port instances listen on, and what they speak there.
    Port,
    /// The image of a service.
    Image,
    /// A package of an image.
    Package,
    /// A path of an image.
    File,
    /// How the main process is run: its arguments, user, directory, signals.
    Run,
    /// An environment variable.
    Env,
    /// The version of a secret, or how it is given.
    Secret,
    /// What an instance may use.
    Limit,
    /// What its processes may do beyond others.
    Capability,
    /// Where instances may write.
    Volatile,
    /// What instances reach beyond themselves.
    Need,
    /// How instances are asked whether they are well.
    Health,
    /// What is run once when the release takes over.
    Hook,
    /// A check the image has passed.
    Check,
    /// A route.
    Route,
    /// A port that is passed on as it is.
    Tcp,
    /// What clients that come over https are shown.
    Certificate,
    /// How the release takes over.
    Deploy,
    /// A rule of policy that was kept.
    Policy,
    /// The release as a whole: its app, its encoding.
    Release,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Service => "service",
            Self::Instances => "instances",
            Self::Port => "port",
            Self::Image => "image",
            Self::Package => "package",
            Self::File => "file",
            Self::Run => "run",
            Self::Env => "env",
            Self::Secret => "secret",
            Self::Limit => "limit",
            Self::Capability => "capability",
            Self::Volatile => "volatile",
            Self::Need => "need",
            Self::Health => "health",
            Self::Hook => "hook",
            Self::Check => "check",
            Self::Route => "route",
            Self::Tcp => "tcp",
            Self::Certificate => "certificate",
            Self::Deploy => "deploy",
            Self::Policy => "policy",
            Self::Release => "release",
        })
    }
}

/// Everything of one kind of thing: which part, what of it (a variable, a path; empty if there is only one of its kind),
/// and what it is (empty if being there is all there is to say).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts(BTreeMap<(Part, String), String>);

impl Parts {
    /// What is said of the release itself.
    pub fn of_release(release: &Release) -> Self {
        let Release {
            format,
            app,
            services: _, // Each has parts of its own.
            routes,
            tcp,
            certificates,
            drain,
            keep_warm,
            schema,
            automatic_tls,
            canary,
            policy,
        } = release;
        let mut parts = Self::default();
        parts.add(Part::Release, "format", format.to_string());
        parts.add(Part::Release, "app", app.to_string());
        routes.iter().for_each(|(name, it)| parts.add(Part::Route, name.as_str(), route(it)));
        tcp.iter().for_each(|(name, it)| parts.add(Part::Tcp, name.as_str(), tcp_route(it)));
        for CertificatePaths { cert, key } in certificates {
            parts.add(Part::Certificate, cert, format!("with the key {key}"));
        }
        if *automatic_tls {
            parts.add(Part::Certificate, "automatic", "for the hosts of the routes".into());
        }
        parts.add(Part::Deploy, "drain", drain.to_string());
        parts.add(Part::Deploy, "keep_warm", keep_warm.to_string());
        if let Some(SchemaRange { oldest, newest }) = schema {
            parts.add(Part::Deploy, "schema", format!("{oldest} to {newest}"));
        }
        parts.add(Part::Deploy, "strategy", canary.as_ref().map_or("blue-green".into(), strategy));
        policy.iter().for_each(|rule| parts.add(Part::Policy, rule, String::new()));
        parts
    }

    /// What is said of one of its services.
    pub fn of_service(service: &ReleaseService) -> Self {
        let ReleaseService {
            image,
            run,
            env,
            volatile,
            port,
            protocol,
            circuit,
            instances,
            limits,
            probe,
            probe_interval,
            probe_timeout,
            healthy_after,
            unhealthy_after,
            start_timeout,
            secrets,
            checks,
            needs,
            hooks,
            capabilities,
        } = service;
        let mut parts = Self::default();
        parts.add(Part::Instances, "", instances.to_string());
        parts.add(Part::Port, "", format!("{port}{}", spoken(*protocol)));
        parts.add(Part::Image, "", image.to_string());
        parts.add_run(run);
        env.iter().for_each(|(name, value)| parts.add(Part::Env, name, value.clone()));
        secrets.iter().for_each(|(name, pinned)| parts.add(Part::Secret, name.as_str(), secret(pinned)));
        parts.add_limits(limits, circuit.as_ref());
        capabilities.iter().for_each(|it| parts.add(Part::Capability, &it.to_string(), String::new()));
        for Volatile { path, size, exec } in volatile {
            parts.add(Part::Volatile, path, format!("{size}{}", if *exec { ", executable" } else { "" }));
        }
        needs.iter().for_each(|(name, it)| parts.add(Part::Need, name.as_str(), need(it)));
        parts.add(Part::Health, "probe", asked(probe));
        parts.add(Part::Health, "interval", probe_interval.to_string());
        parts.add(Part::Health, "timeout", probe_timeout.to_string());
        parts.add(Part::Health, "healthy_after", healthy_after.to_string());
        parts.add(Part::Health, "unhealthy_after", unhealthy_after.to_string());
        parts.add(Part::Health, "start_timeout", start_timeout.to_string());
        for moment in [HookMoment::Before, HookMoment::After] {
            for (Hook { run, timeout }, n) in hooks.at(moment).iter().zip(1..) {
                parts.add(
                    Part::Hook,
                    &format!("{moment} {n}"),
                    format!("{} (at most {timeout})", command(run)),
                );
            }
        }
        for PassedCheck { check, key } in checks {
            parts.add(Part::Check, check, format!("({})", &key.hex()[..12]));
        }
        parts
    }

    fn add_run(&mut self, run: &RunSettings) {
        let RunSettings { argv, user, uid, gid, groups, env, workdir, stop_signal, stop_grace } = run;
        self.add(Part::Run, "argv", command(argv));
        self.add(Part::Run, "user", format!("{user} ({uid}:{gid})"));
        if !groups.is_empty() {
            let groups: Vec<String> = groups.iter().map(ToString::to_string).collect();
            self.add(Part::Run, "groups", groups.join(" "));
        }
        self.add(Part::Run, "workdir", workdir.clone());
        self.add(Part::Run, "stop_signal", stop_signal.to_string());
        self.add(Part::Run, "stop_grace", stop_grace.to_string());
        for (name, value) in env {
            self.add(Part::Env, &format!("{name} (of the image)"), value.clone());
        }
    }

    fn add_limits(&mut self, limits: &Limits, circuit: Option<&Circuit>) {
        let Limits { memory, cpu_millis, pids, io } = limits;
        self.add(Part::Limit, "memory", memory.to_string());
        self.add(Part::Limit, "cpu", (f64::from(*cpu_millis) / 1000.0).to_string());
        self.add(Part::Limit, "pids", pids.to_string());
        if let Some(IoLimits { read, reads }) = io {
            read.iter().for_each(|read| self.add(Part::Limit, "io.read", format!("{read}/s")));
            reads.iter().for_each(|reads| self.add(Part::Limit, "io.reads", format!("{reads}/s")));
        }
        if let Some(Circuit { in_flight, queue, queue_time }) = circuit {
            let words = format!("{in_flight} in flight, {queue} waiting for {queue_time}");
            self.add(Part::Limit, "circuit", words);
        }
    }

    /// What two parts of one name are is told of both.
    fn add(&mut self, part: Part, name: &str, words: String) {
        match self.0.get_mut(&(part, name.to_owned())) {
            Some(before) => before.push_str(&format!(", {words}")),
            None => drop(self.0.insert((part, name.to_owned()), words)),
        }
    }

    /// All of them: which part, its name, and what it is.
    pub fn iter(&self) -> impl Iterator<Item = (Part, &str, &str)> {
        self.0.iter().map(|((part, name), words)| (*part, name.as_str(), words.as_str()))
    }

    /// What differs from these to `others`: which part, its name, what it was and what it is.
    pub(crate) fn changes<'a>(
        &'a self,
        others: &'a Self,
    ) -> impl Iterator<Item = (Part, &'a str, Option<&'a String>, Option<&'a String>)> {
        let both: BTreeSet<_> = self.0.keys().chain(others.0.keys()).collect();
        let all = both.into_iter().map(|key| (key.0, key.1.as_str(), self.0.get(key), others.0.get(key)));
        all.filter(|(_, _, old, new)| old != new)
    }
}

impl Release {
    /// All that is said of its services, by name.
    pub fn parts_of_services(&self) -> BTreeMap<&ServiceName, Parts> {
        self.services.iter().map(|(name, service)| (name, Parts::of_service(service))).collect()
    }
}

/// A command as a shell would take it.
fn command(argv: &[String]) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,@%+".contains(c);
    let quoted = |word: &String| match word.chars().all(plain) && !word.is_empty() {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    };
    argv.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

fn route(route: &ReleaseRoute) -> String {
    let ReleaseRoute { host, path, service, https, max_body, timeout } = route;
    let host = host.as_ref().map_or("every host".to_owned(), ToString::to_string);
    let https = if https.is_default() { "" } else { ", only over https" };
    let body = max_body.map_or(String::new(), |size| format!(", bodies up to {size}"));
    let timeout = timeout.map_or(String::new(), |span| format!(", answers within {span}"));
    format!("{host} {path} to {service}{https}{body}{timeout}")
}

fn tcp_route(route: &ReleaseTcpRoute) -> String {
    let ReleaseTcpRoute { port, service } = route;
    format!("port {port} to {service}")
}

fn spoken(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => "",
        Protocol::H2c => ", h2c",
    }
}

fn secret(pinned: &PinnedSecret) -> String {
    let PinnedSecret { version, env } = pinned;
    env.as_ref().map_or(version.to_string(), |variable| format!("{version} (also ${variable})"))
}

fn need(need: &Need) -> String {
    match need {
        Need::Service { port } => format!("the service of this name, at port {port}"),
        Need::Store { address } => format!("the store at {address}"),
    }
}

fn asked(probe: &Probe) -> String {
    match probe {
        Probe::Tcp => "tcp".to_owned(),
        Probe::Exec { argv } => format!("exec {}", command(argv)),
        Probe::Http(HttpProbe { path, status, contains }) => {
            let status = status.map_or("2xx or 3xx".to_owned(), |s| s.to_string());
            let contains = contains.as_ref().map_or(String::new(), |c| format!(" containing `{c}`"));
            format!("http {path} answers {status}{contains}")
        }
    }
}

fn strategy(canary: &Canary) -> String {
    let Canary { shares, terms: Terms { hold, within, errors, slower }, preview } = canary;
    let shares: Vec<String> = shares.iter().map(ToString::to_string).collect();
    let preview = if *preview { ", with previews" } else { "" };
    format!(
        "canary of {} for {hold} to {within} each, {errors} more errors and {slower} slower at most{preview}",
        shares.join(", ")
    )
}
