//! What load is wanted.

use std::net::SocketAddr;
use std::time::Duration;

/// A steady load of GET requests.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// Where the service answers; loopback only.
    pub address: SocketAddr,
    /// Connections kept and used again, among which `requests_per_s` are shared.
    pub keep_alive_connections: usize,
    /// Beside those, requests that open a connection of their own each.
    pub new_connections_per_s: u32,
    /// Requests over the kept connections. One that finds all of them busy waits, and its latency counts from when it
    /// was due.
    pub requests_per_s: u32,
    /// What is asked for.
    pub path: String,
    /// The Host field.
    pub host: String,
    /// By what the answers are told apart.
    pub marker: Marker,
    /// How long a request may take before it has failed.
    pub timeout: Duration,
}

/// What in an answer says which release gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Marker {
    /// The first line of the body, at most 80 characters of it.
    Body,
    /// The value of this header field.
    Header(String),
}

impl LoadPlan {
    /// 500 requests a second over 16 kept connections and 50 over new ones, told apart by their bodies.
    pub fn of(address: SocketAddr) -> Self {
        Self {
            address,
            keep_alive_connections: 16,
            new_connections_per_s: 50,
            requests_per_s: 500,
            path: "/".into(),
            host: "localhost".into(),
            marker: Marker::Body,
            timeout: Duration::from_secs(10),
        }
    }

    pub(super) fn request(&self, keep: bool) -> Vec<u8> {
        let connection = if keep { "keep-alive" } else { "close" };
        let (path, host) = (&self.path, &self.host);
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: {connection}\r\n\r\n").into_bytes()
    }
}
