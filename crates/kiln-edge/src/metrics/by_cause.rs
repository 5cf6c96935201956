//! Counts of what goes wrong, by cause.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{family, line};

/// What a count is kept for.
pub(crate) trait Cause: Copy + PartialEq + 'static {
    /// All there are.
    const ALL: &'static [Self];

    /// In one word.
    fn as_str(self) -> &'static str;
}

/// A count for each cause.
#[derive(Debug)]
pub(crate) struct ByCause<C>(Box<[AtomicU64]>, PhantomData<C>);

impl<C: Cause> Default for ByCause<C> {
    fn default() -> Self {
        Self(C::ALL.iter().map(|_| AtomicU64::new(0)).collect(), PhantomData)
    }
}

impl<C: Cause> ByCause<C> {
    pub(crate) fn count(&self, cause: C) {
        if let Some(at) = C::ALL.iter().position(|one| *one == cause) {
            self.0[at].fetch_add(1, Relaxed);
        }
    }

    /// Those of which there are any.
    pub(super) fn counted(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = C::ALL.iter().zip(&self.0).map(|(cause, count)| (cause.as_str(), count.load(Relaxed)));
        all.filter(|(_, count)| *count > 0)
    }

    pub(super) fn text(&self, text: &mut String, name: &str, help: &str) {
        family(text, name, "counter", help);
        for (cause, count) in C::ALL.iter().zip(&self.0) {
            line(text, name, &format!("cause=\"{}\"", cause.as_str()), count.load(Relaxed));
        }
    }
}

/// Why a client's connection is not let in, or is ended for what the client does.
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
    /// Over HTTP/2 it gives up more than is taken in, or begins a head that has no end.
    Excessive,
    /// What it says is not HTTP/2.
    Malformed,
    /// There is no descriptor for it. It waits, and counts each time that it is tried in vain.
    Exhausted,
}

impl Cause for Reason {
    const ALL: &'static [Self] = &[
        Self::TooMany,
        Self::NoProxyHeader,
        Self::TooSlow,
        Self::Wasteful,
        Self::Excessive,
        Self::Malformed,
        Self::Exhausted,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::TooMany => "too_many",
            Self::NoProxyHeader => "no_proxy_header",
            Self::TooSlow => "too_slow",
            Self::Wasteful => "wasteful",
            Self::Excessive => "excessive",
            Self::Malformed => "malformed",
            Self::Exhausted => "exhausted",
        }
    }
}

/// What is wrong with an answer that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// It ended before its end.
    BrokenOff,
    /// More followed than it promised, which nobody got.
    Overlong,
}

impl Cause for Flaw {
    const ALL: &'static [Self] = &[Self::BrokenOff, Self::Overlong];

    fn as_str(self) -> &'static str {
        match self {
            Self::BrokenOff => "broken_off",
            Self::Overlong => "overlong",
        }
    }
}
