//! Health, and the proof of it that a switch asks for.

use std::collections::BTreeSet;

use crate::{Fleet, FleetId, InstanceId};

/// The instances that were healthy when they were last asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthView(pub BTreeSet<InstanceId>);

impl HealthView {
    /// How many members of a fleet are healthy.
    pub fn ready(&self, fleet: &Fleet) -> u32 {
        let ready = fleet.instances().filter(|(_, id)| self.0.contains(id)).count();
        u32::try_from(ready).unwrap_or(u32::MAX)
    }
}

/// Something observed healthy. There is no other way to come by one than to observe it, so that what takes one
/// cannot be given a fleet nobody looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthy<T>(T);

/// A fleet that is not healthy as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{ready} of {desired} instances of {fleet} are healthy")]
pub struct NotHealthy {
    /// Which fleet.
    pub fleet: FleetId,
    /// How many members are healthy.
    pub ready: u32,
    /// How many there should be.
    pub desired: u32,
}

impl Healthy<FleetId> {
    /// Looks at a fleet.
    ///
    /// # Errors
    /// If fewer members are healthy than there should be.
    pub fn observe(fleet: &Fleet, view: &HealthView) -> Result<Self, NotHealthy> {
        let (ready, desired) = (view.ready(fleet), fleet.size());
        if ready >= desired {
            Ok(Self(fleet.id.clone()))
        } else {
            Err(NotHealthy { fleet: fleet.id.clone(), ready, desired })
        }
    }
}

impl<T> Healthy<T> {
    /// What was observed.
    pub fn get(&self) -> &T {
        &self.0
    }
}
