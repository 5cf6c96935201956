//! What an edge is started with.

use std::sync::Arc;
use std::time::Duration;

use kiln_model::{Circuit, Millis};

use crate::{Dial, Sockets, Trust};

/// Everything one edge process needs; there is no file it reads and no variable it looks up.
pub struct EdgeConfig {
    /// The sockets made for it: one listener per thread, and the socket it is told what to do on.
    pub sockets: Sockets,
    /// How it gets sockets into instances.
    pub dial: Arc<dyn Dial>,
    /// What it gives up before it serves anyone; nothing if absent, which only tests want.
    pub confinement: Option<Confinement>,
    /// How much and how long it puts up with.
    pub limits: Limits,
    /// What the operator decided.
    pub settings: EdgeSettings,
}

/// What the operator of a host decides about its edge.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EdgeSettings {
    /// Peers whose word is taken about where a request came from (`X-Forwarded-For`, `Forwarded`).
    pub trust: Trust,
    /// Whether connections from these begin with a PROXY protocol header (version 1 or 2).
    pub proxy_headers: bool,
    /// Whether each request leaves a line on stdout.
    pub access_log: bool,
    /// What this edge is, in words its starter understands: program and settings. Told to whoever asks.
    pub identity: String,
}

/// Whom the edge becomes once it holds its sockets. No capability, no new privileges, no files, and only the system
/// calls that a proxy makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confinement {
    /// The user.
    pub uid: u32,
    /// The only group.
    pub gid: u32,
}

/// Bounds on everything a client or an instance could otherwise stretch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Client connections over all threads; more wait in the kernel's accept queue.
    pub connections: usize,
    /// Header lines per request and per response.
    pub header_count: usize,
    /// Bytes of one request's or response's head.
    pub header_bytes: usize,
    /// Connections of one client address; trusted peers, who speak for many, may have more.
    pub client_connections: usize,
    /// Requests in flight at one fleet over all threads, unless its service says otherwise; more wait.
    pub fleet_requests: u64,
    /// Requests that wait for that, and during a pause; more are refused.
    pub queue: u64,
    /// How long they wait before they are refused.
    pub queue_wait: Duration,
    /// Requests over HTTP/2 that one connection may begin only to give them up.
    pub wasted_requests: u32,
    /// From the first byte of a request's head to its last.
    pub header_read: Duration,
    /// How long a client connection may rest between requests (and before its first).
    pub keep_alive: Duration,
    /// How long a client may take nothing of an answer that waits for it.
    pub client_stall: Duration,
    /// From wanting a connection to an instance to having it, the socket included.
    pub connect: Duration,
    /// From the last byte of a request (or the last progress of its body) to the head of the answer.
    pub response_head: Duration,
    /// How long an unused connection to an instance is kept.
    pub upstream_idle: Duration,
    /// Unused connections kept per instance and thread.
    pub upstream_idle_count: usize,
}

impl Limits {
    /// What holds for fleets of which nothing else is said.
    pub(crate) fn circuit(&self) -> Circuit {
        let queue_time = Millis(u64::try_from(self.queue_wait.as_millis()).unwrap_or(u64::MAX));
        Circuit { in_flight: self.fleet_requests, queue: self.queue, queue_time }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 65_536,
            header_count: 100,
            header_bytes: 64 * 1024,
            client_connections: 4096,
            fleet_requests: 20_000,
            queue: 2_000,
            queue_wait: Duration::from_secs(1),
            wasted_requests: 200,
            header_read: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            client_stall: Duration::from_secs(60),
            connect: Duration::from_secs(5),
            response_head: Duration::from_secs(60),
            upstream_idle: Duration::from_secs(60),
            upstream_idle_count: 256,
        }
    }
}
