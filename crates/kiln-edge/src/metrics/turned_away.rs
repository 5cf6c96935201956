//! Connections that are not let in, or ended for what their client does, by cause.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{family, line};

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The client has as many connections as one may have.
    TooMany,
    /// Somebody trusted does not say for whom the connection is, as everybody trusted must here.
    NoProxyHeader,
    /// The client has begun something, a handshake or a head, and does not go on; or it does not take what it asked for.
    TooSlow,
    /// The client only begins requests to give them up.
    Wasteful,
}

impl Reason {
    const ALL: [Self; 4] = [Self::TooMany, Self::NoProxyHeader, Self::TooSlow, Self::Wasteful];

    fn as_str(self) -> &'static str {
        match self {
            Self::TooMany => "too_many",
            Self::NoProxyHeader => "no_proxy_header",
            Self::TooSlow => "too_slow",
            Self::Wasteful => "wasteful",
        }
    }
}

/// How many were not let in.
#[derive(Debug, Default)]
pub(crate) struct TurnedAway([AtomicU64; Reason::ALL.len()]);

impl TurnedAway {
    pub(crate) fn count(&self, reason: Reason) {
        if let Some(at) = Reason::ALL.iter().position(|one| *one == reason) {
            self.0[at].fetch_add(1, Relaxed);
        }
    }

    pub(super) fn text(&self, text: &mut String) {
        const NAME: &str = "kiln_edge_refused_connections_total";
        family(text, NAME, "counter", "Connections not let in, or ended for what their client did.");
        for (reason, count) in Reason::ALL.iter().zip(&self.0) {
            line(text, NAME, &format!("cause=\"{}\"", reason.as_str()), count.load(Relaxed));
        }
    }
}
