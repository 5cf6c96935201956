//! Plans: immutable lists of steps from the observed world to a release.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AppName, FleetId, Generation, HookId, HookMoment, Millis, ReleaseId, ServiceName, Share, Terms};

/// What an operation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// A new release is to serve.
    Deploy,
    /// An earlier release is to serve again.
    Rollback,
    /// What an operation that failed has made is thrown away.
    Abandon,
    /// Fleets whose time as warm ones is over are removed.
    Retire,
    /// The app is taken off this host.
    Down,
}

impl OperationKind {
    /// Whether a release serves when it has gone well.
    pub fn leads_to_a_release(self) -> bool {
        matches!(self, Self::Deploy | Self::Rollback)
    }
}

impl fmt::Display for OperationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Deploy => "deploy",
            Self::Rollback => "rollback",
            Self::Abandon => "abandon",
            Self::Retire => "retire",
            Self::Down => "down",
        })
    }
}

/// A plan. It is made once, checked, and carried out or given up; never edited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its number; higher than that of every plan before it on this host.
    pub generation: Generation,
    /// The plan whose failure this one cleans up after, if that is what it does.
    pub parent: Option<Generation>,
    /// The app.
    pub app: AppName,
    /// What it is for.
    pub kind: OperationKind,
    /// The release that serves when it begins.
    pub from: Option<ReleaseId>,
    /// The release that serves when it has been carried out.
    pub to: Option<ReleaseId>,
    /// What is done, in this order.
    pub steps: Vec<Step>,
    /// The version of its schema that the data has once the release serves, if the release says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaves: Option<u32>,
}

/// One step and the reason it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// Why, in a few words.
    pub why: String,
}

/// What a step does. Each can be done again after a crash and then changes nothing that was done already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Action {
    /// From now on this fleet exists, with `size` instances, and is kept at that size.
    Provision {
        /// Which.
        fleet: FleetId,
        /// The release its instances belong to.
        release: ReleaseId,
        /// How many.
        size: u32,
    },
    /// Runs a command once, in an instance of its own, and waits for its end. One before the switch that does not end
    /// with success fails the plan; one after it is told of.
    RunHook {
        /// Which.
        hook: HookId,
        /// The release it is a hook of.
        release: ReleaseId,
        /// Program and arguments.
        run: Vec<String>,
        /// How long it may take.
        within: Millis,
    },
    /// Waits until every instance of these fleets is healthy.
    AwaitHealthy {
        /// Which.
        fleets: Vec<FleetId>,
        /// How long at most.
        within: Millis,
    },
    /// So many of the app's users are served by these fleets from one moment to the next, and the others as before.
    Shift {
        /// The release they make up.
        release: ReleaseId,
        /// Which.
        fleets: Vec<FleetId>,
        /// How many, of all.
        share: Share,
    },
    /// Waits until there is evidence that these fleets do as well as those that serve the other users.
    Observe {
        /// Which.
        fleets: Vec<FleetId>,
        /// The share of the users they have meanwhile.
        share: Share,
        /// What decides.
        terms: Terms,
    },
    /// All new requests of the app go to these fleets, from one moment to the next.
    Switch {
        /// The release they make up.
        release: ReleaseId,
        /// Which.
        fleets: Vec<FleetId>,
    },
    /// Waits until the edge acknowledges that nothing is in flight at these fleets any more.
    AwaitDrained {
        /// Which.
        fleets: Vec<FleetId>,
        /// How long at most; what is in flight then is cut.
        within: Millis,
    },
    /// These fleets stay up without traffic, so that going back to them is one switch.
    KeepWarm {
        /// Which.
        fleets: Vec<FleetId>,
        /// How long.
        span: Millis,
    },
    /// The app is served by nobody from now on.
    Unroute,
    /// These fleets are ended and gone.
    Retire {
        /// Which.
        fleets: Vec<FleetId>,
    },
}

/// The parts of a plan, in the order in which they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanPhase {
    /// The new release comes up beside the one that serves; nobody notices.
    Prepare,
    /// New requests go over, from one moment to the next.
    Switch,
    /// What was replaced finishes what it has, and goes.
    Finish,
}

impl fmt::Display for PlanPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Prepare => {
                "prepare: what serves is not touched; if anything fails, what was made is thrown away"
            }
            Self::Switch => "switch: from one moment to the next",
            Self::Finish => "finish: the new release serves",
        })
    }
}

impl Plan {
    /// The part in which a step is.
    pub fn phase(&self, step: usize) -> PlanPhase {
        let switch =
            self.steps.iter().position(|s| matches!(s.action, Action::Switch { .. } | Action::Unroute));
        match switch {
            Some(switch) if step == switch => PlanPhase::Switch,
            Some(switch) if step < switch => PlanPhase::Prepare,
            _ => PlanPhase::Finish,
        }
    }
}

impl Action {
    /// The service it is about, if it is about one.
    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Provision { fleet, .. } => Some(&fleet.service),
            Self::RunHook { hook, .. } => Some(&hook.service),
            _ => None,
        }
    }
}

/// The services that fleets are of, and as they are named in a sentence. One may have two fleets that drain.
fn named(fleets: &[FleetId]) -> (Vec<&str>, String) {
    let services: BTreeSet<&str> = fleets.iter().map(|f| ServiceName::as_str(&f.service)).collect();
    let services: Vec<&str> = services.into_iter().collect();
    let names = services.join(", ");
    (services, names)
}

/// The form of a word that goes with so many.
fn agreeing<'a, T>(with: &[T], one: &'a str, several: &'a str) -> &'a str {
    if with.len() == 1 { one } else { several }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Provision { fleet, release, size } => {
                write!(f, "provision {size} × {} of {}", fleet.service, release.short())
            }
            Self::RunHook { hook, run, within, .. } => {
                let (service, run) = (&hook.service, run.join(" "));
                let when = match hook.moment {
                    HookMoment::Before => "before the switch",
                    HookMoment::After => "after the switch",
                };
                write!(f, "run `{run}` of {service} {when}, at most {within}")
            }
            Self::AwaitHealthy { fleets, within } => {
                let (services, names) = named(fleets);
                let are = agreeing(&services, "is", "are");
                write!(f, "wait until {names} {are} healthy, at most {within}")
            }
            Self::Shift { release, share, .. } => {
                write!(f, "send {share} of the users to {}", release.short())
            }
            Self::Observe { fleets, share, terms } => {
                let Terms { hold, within, .. } = terms;
                let (_, names) = named(fleets);
                write!(f, "observe {names} with {share} of the users, {hold} at least and {within} at most")
            }
            Self::Switch { release, .. } => write!(f, "switch all traffic to {}", release.short()),
            Self::AwaitDrained { fleets, within } => {
                let (services, names) = named(fleets);
                let fleets = agreeing(&services, "fleet", "fleets");
                write!(f, "drain the old {fleets} of {names}, at most {within}")
            }
            Self::KeepWarm { fleets, span } => {
                let (services, names) = named(fleets);
                let fleets = agreeing(&services, "fleet", "fleets");
                write!(f, "keep the old {fleets} of {names} warm for {span}")
            }
            Self::Unroute => write!(f, "take the routes away"),
            Self::Retire { fleets } => {
                let ids: Vec<String> = fleets.iter().map(ToString::to_string).collect();
                write!(f, "remove the {} {}", agreeing(&ids, "fleet", "fleets"), ids.join(", "))
            }
        }
    }
}
