//! Where the traffic of an app goes. Two releases live without a shift cannot be written down.

use serde::{Deserialize, Serialize};

use crate::{ReleaseId, Share};

/// Where new requests of an app go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Traffic {
    /// Nowhere: the app has never had a release that became healthy.
    #[default]
    Dark,
    /// All to one release.
    Settled {
        /// That release.
        live: ReleaseId,
    },
    /// From one to another.
    Shifting {
        /// The release that served all of it before.
        from: ReleaseId,
        /// The release that is to serve all of it.
        to: ReleaseId,
        /// The users that `to` serves now.
        share: Share,
    },
}

impl Traffic {
    /// Whether two releases serve.
    pub fn is_shifting(&self) -> bool {
        matches!(self, Self::Shifting { .. })
    }

    /// The release that answers for the app: while shifting, still the old one.
    pub fn live(&self) -> Option<&ReleaseId> {
        match self {
            Traffic::Dark => None,
            Traffic::Settled { live } => Some(live),
            Traffic::Shifting { from, .. } => Some(from),
        }
    }
}

/// [`Traffic`] as `kiln status --json` shows it (`live` stands one level higher there).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TrafficReport {
    /// Nowhere.
    Dark,
    /// All to the live release.
    Settled,
    /// From one to another.
    Shifting {
        /// The old release.
        from: ReleaseId,
        /// The new release.
        to: ReleaseId,
        /// What the new one gets, from 0 to 1.
        share: f64,
    },
}

impl From<&Traffic> for TrafficReport {
    fn from(traffic: &Traffic) -> Self {
        match traffic {
            Traffic::Dark => Self::Dark,
            Traffic::Settled { .. } => Self::Settled,
            Traffic::Shifting { from, to, share } => {
                Self::Shifting { from: from.clone(), to: to.clone(), share: share.ratio() }
            }
        }
    }
}
