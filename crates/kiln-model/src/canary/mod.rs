//! Canaries: a new release gets a share of the users, is held against the old one over the same time, and gets more,
//! or none.

mod evidence;
mod fisher;
mod share;
mod trial;

use serde::{Deserialize, Serialize};

pub use evidence::{Evidence, FleetEvidence, LATENCY_BUCKETS, latency_bucket};
pub use share::{BadShare, Share};
pub use trial::{Pair, Trial, Verdict};

use crate::Millis;

/// How a release takes over in steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// Its share of the users at each step, growing.
    pub shares: Vec<Share>,
    /// What decides about the next step.
    pub terms: Terms,
    /// Whether it can be looked at before it serves everybody, by those who ask for it: under `preview.HOST`, or with
    /// a header field.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preview: bool,
}

/// What decides whether a canary goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// A step takes at least so long.
    pub hold: Millis,
    /// A step takes at most so long: if there is too little evidence by then, it goes on without, and says so.
    pub within: Millis,
    /// So much more of its requests may fail than of the old release's, in points.
    pub errors: Share,
    /// So much slower it may be than the old release.
    pub slower: Share,
}
