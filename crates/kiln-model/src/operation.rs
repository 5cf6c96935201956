//! The operation log's entries: every change of a host, in the order in which it came about.
//!
//! What a host is to do at any moment follows from its log alone ([`crate::AppState`] is a fold over it), so that a
//! control plane that dies between any two instructions goes on where the log ends.

use serde::{Deserialize, Serialize};

use crate::{
    AppName, Author, FleetId, Generation, ImageDigest, ImageName, InstanceId, Millis, Plan, ReleaseId,
    SecretName, SecretVersion, Timestamp,
};

/// One entry of the operation log. Entries are only ever appended; those written by earlier versions stay readable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum Record {
    /// An operation has begun: its plan is in force from now on.
    Begun {
        /// When.
        at: Timestamp,
        /// Who asked for it; `kiln` if nobody did.
        by: Author,
        /// What is going to be done.
        plan: Plan,
    },
    /// A step is about to be done.
    Intent {
        /// When.
        at: Timestamp,
        /// The app.
        app: AppName,
        /// The plan.
        generation: Generation,
        /// The step's index in the plan.
        step: usize,
        /// Of a hook: which memory the engine had. As long as it has the same one, what it does not know never was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        memory: Option<String>,
    },
    /// A step has been done.
    Outcome {
        /// When.
        at: Timestamp,
        /// The app.
        app: AppName,
        /// The plan.
        generation: Generation,
        /// The step's index in the plan.
        step: usize,
        /// What is worth knowing of it, e.g. how many requests were cut at the drain deadline.
        note: Option<String>,
    },
    /// An operation has ended.
    Ended {
        /// When.
        at: Timestamp,
        /// The app.
        app: AppName,
        /// The plan.
        generation: Generation,
        /// How.
        ending: Ending,
    },
    /// Members of a fleet are no more, and others take their place.
    Replaced {
        /// When.
        at: Timestamp,
        /// The fleet.
        fleet: FleetId,
        /// Who is no more, and why.
        lost: Vec<Loss>,
        /// The serial numbers of those made in their place.
        new: Vec<u32>,
    },
    /// A secret was given a value.
    SecretSet {
        /// When.
        at: Timestamp,
        /// By whom.
        by: Author,
        /// The app.
        app: AppName,
        /// The secret.
        name: SecretName,
        /// The version of the value.
        version: Option<SecretVersion>,
    },
    /// Releases were let go, with all that only they needed.
    Collected {
        /// When.
        at: Timestamp,
        /// By whom.
        by: Author,
        /// The app.
        app: AppName,
        /// Which.
        releases: Vec<ReleaseId>,
    },
    /// An image was made of an instance.
    Committed {
        /// When.
        at: Timestamp,
        /// By whom.
        by: Author,
        /// The app of the instance.
        app: AppName,
        /// The instance.
        instance: InstanceId,
        /// What the image is called.
        name: ImageName,
        /// The image.
        image: ImageDigest,
    },
    /// A release is to stay until it is unpinned, whatever else goes.
    Pinned {
        /// When.
        at: Timestamp,
        /// By whom.
        by: Author,
        /// The app.
        app: AppName,
        /// Which.
        release: ReleaseId,
    },
    /// A release may go again as any other.
    Unpinned {
        /// When.
        at: Timestamp,
        /// By whom.
        by: Author,
        /// The app.
        app: AppName,
        /// Which.
        release: ReleaseId,
    },
    /// The data of an app was brought to another version of its schema by hand.
    SchemaSet {
        /// When.
        at: Timestamp,
        /// Who says so.
        by: Author,
        /// The app.
        app: AppName,
        /// The version.
        schema: u32,
    },
    /// A release came from a file.
    Imported {
        /// When.
        at: Timestamp,
        /// By whom.
        by: Author,
        /// The app.
        app: AppName,
        /// Which.
        release: ReleaseId,
    },
    /// A secret was removed.
    SecretRemoved {
        /// When.
        at: Timestamp,
        /// By whom.
        by: Author,
        /// The app.
        app: AppName,
        /// The secret.
        name: SecretName,
        /// Only this version, if one was named.
        version: Option<SecretVersion>,
    },
    /// Requests of an app wait at the edge from now on.
    Paused {
        /// When.
        at: Timestamp,
        /// By whom.
        by: Author,
        /// The app.
        app: AppName,
        /// How long each waits at most.
        wait: Millis,
    },
    /// They wait no longer.
    Resumed {
        /// When.
        at: Timestamp,
        /// By whom.
        by: Author,
        /// The app.
        app: AppName,
    },
    /// The operation log was damaged, and was put together again from what could be read of it.
    Repaired {
        /// When.
        at: Timestamp,
        /// By whom.
        by: Author,
        /// The app: there is an entry for each that the log knows.
        app: AppName,
        /// The file the damaged log is kept in, as it was.
        kept_as: String,
        /// What was wrong with it, line by line.
        damage: Vec<String>,
    },
    /// Somebody runs a command inside a member of a fleet; it is replaced when that has ended.
    Touched {
        /// When.
        at: Timestamp,
        /// The fleet.
        fleet: FleetId,
        /// The member.
        serial: u32,
        /// Who.
        by: Author,
        /// What they run.
        command: String,
    },
    /// Members of a fleet that were touched get stand-ins; when these are well, they go. So does one that was not
    /// touched, but unwell as all others are; if its stand-in is no better off, that goes.
    Reinforced {
        /// When.
        at: Timestamp,
        /// The fleet.
        fleet: FleetId,
        /// Those that go then.
        touched: Vec<u32>,
        /// The serial numbers of those made in their place.
        new: Vec<u32>,
    },
    /// Members of a fleet that the engine does not know when it is asked what exists, by a new control plane or after
    /// its own death: whether they ever were is not known. Others take their place, for no id is used twice; it is
    /// no loss to be held against the fleet.
    Renumbered {
        /// When.
        at: Timestamp,
        /// The fleet.
        fleet: FleetId,
        /// The serial numbers that are given up.
        gone: Vec<u32>,
        /// Those that take their place.
        new: Vec<u32>,
    },
}

impl Record {
    /// The app it is about.
    pub fn app(&self) -> &AppName {
        match self {
            Self::Begun { plan, .. } => &plan.app,
            Self::Intent { app, .. }
            | Self::Outcome { app, .. }
            | Self::Ended { app, .. }
            | Self::SecretSet { app, .. }
            | Self::Collected { app, .. }
            | Self::Imported { app, .. }
            | Self::Committed { app, .. }
            | Self::Pinned { app, .. }
            | Self::Unpinned { app, .. }
            | Self::SchemaSet { app, .. }
            | Self::Paused { app, .. }
            | Self::Resumed { app, .. }
            | Self::Repaired { app, .. }
            | Self::SecretRemoved { app, .. } => app,
            Self::Replaced { fleet, .. }
            | Self::Touched { fleet, .. }
            | Self::Reinforced { fleet, .. }
            | Self::Renumbered { fleet, .. } => &fleet.app,
        }
    }
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ending", rename_all = "snake_case")]
pub enum Ending {
    /// All steps are done.
    Done,
    /// A newer plan took its place: what was still to be done is done by that one, and what it has made and does not
    /// serve goes.
    Superseded {
        /// That plan.
        by: Generation,
    },
    /// A step could not be done; what was made for it is thrown away by an operation of its own.
    Failed {
        /// The step in words.
        step: String,
        /// Why.
        cause: String,
    },
}

/// A member of a fleet that is no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Its serial number within the fleet.
    pub serial: u32,
    /// Why it is no more.
    pub cause: String,
}
