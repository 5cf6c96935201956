//! Hooks: commands that are run once for a deploy, each in an instance of its own made from the new image.
//!
//! ```text
//!   before    what the service needs is up; its own fleet is not. One that fails is a deploy that failed.
//!   after     the new release serves. One that fails is told and undoes nothing.
//! ```
//! They get what the instances of their service get: environment, secrets, needs, limits. Going back runs none: what
//! was migrated stays migrated, and the schema range of a release says whether it can live with that.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AppName, FleetId, Generation, InstanceId, Millis, ServiceName};

/// The most hooks of one kind that a service may have.
pub const MOST_HOOKS: usize = 16;

/// When a hook is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookMoment {
    /// Before traffic is switched to the new release, and before the fleet of its service is made.
    Before,
    /// After it.
    After,
}

impl fmt::Display for HookMoment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Before => "before",
            Self::After => "after",
        })
    }
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// Program and arguments.
    pub run: Vec<String>,
    /// How long it may take.
    pub timeout: Millis,
}

/// The hooks of a service, each list in the order in which they are run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hooks {
    /// Before the switch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Hook>,
    /// After it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Hook>,
}

impl Hooks {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty()
    }

    /// Those of one moment.
    pub fn at(&self, moment: HookMoment) -> &[Hook] {
        match moment {
            HookMoment::Before => &self.before,
            HookMoment::After => &self.after,
        }
    }
}

/// One hook of one plan: it is run once, whatever dies meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HookId {
    /// The app.
    pub app: AppName,
    /// The service whose hook it is.
    pub service: ServiceName,
    /// The plan.
    pub generation: Generation,
    /// When it is run.
    pub moment: HookMoment,
    /// Its place among those of its moment, from 1.
    pub number: u32,
}

impl HookId {
    /// The fleet that the plan makes, or would make, for its service.
    pub fn fleet(&self) -> FleetId {
        FleetId { app: self.app.clone(), service: self.service.clone(), generation: self.generation }
    }

    /// The only instance it is ever run in.
    pub fn instance(&self) -> InstanceId {
        self.fleet().hook(self.moment, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instance_of_a_hook_is_none_of_its_fleet_and_a_hostname() {
        let long = "abcdefghijklmnopqrst";
        let hook = HookId {
            app: long.parse().unwrap(),
            service: long.parse().unwrap(),
            generation: Generation(9_999_999_999),
            moment: HookMoment::Before,
            number: 16,
        };
        let id = hook.instance();
        assert!(id.as_str().ends_with("-9999999999-before16"));
        assert!(id.as_str().parse::<InstanceId>().is_ok());
    }
}
