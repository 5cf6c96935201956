//! Everything the core touches, as traits: the real world in a daemon, a simulated one in tests.

use std::collections::BTreeMap;

use crate::condition::Condition;
use kiln_engine::Engine;
use kiln_model::{
    AppName, EdgeCounts, ExecOrder, FleetEvidence, FleetId, ImageDigest, ImageHandle, InstanceId, Millis,
    Probe, Record, Release, ReleaseId, ReleaseService, RouteTable, SecretOrder, Timestamp,
};

/// Something outside the core that did not do what it was asked, in one sentence with its causes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Trouble(pub String);

impl Trouble {
    /// From an error and the errors behind it.
    pub fn of(error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        Self(text)
    }
}

/// Tells the time.
pub trait Clock: Send + Sync {
    /// The present moment.
    fn now(&self) -> Timestamp;
}

/// Keeps history.
pub trait History: Send {
    /// Adds one entry; when this returns it is on the disk.
    ///
    /// # Errors
    /// If it could not be written; then it is as if it had not been tried.
    fn append(&mut self, record: &Record) -> Result<(), Trouble>;

    /// Makes sure that nothing is left of what could not be written.
    ///
    /// # Errors
    /// If that cannot be done yet; then a successor may find an entry of which it was said that it is not there.
    fn mend(&mut self) -> Result<(), Trouble> {
        Ok(())
    }
}

/// Finds releases and images.
pub trait Shelf: Send + Sync {
    /// A release by its id.
    ///
    /// # Errors
    /// If it is not there, or not what its id says.
    fn release(&self, id: &ReleaseId) -> Result<Release, Trouble>;

    /// What an engine needs to mount an image.
    ///
    /// # Errors
    /// If the image is not there, or its metadata is damaged.
    fn image(&self, digest: &ImageDigest) -> Result<ImageHandle, Trouble>;

    /// The secrets of a service of an app, opened.
    ///
    /// # Errors
    /// If one is not there or cannot be opened.
    fn secrets(&self, app: &AppName, service: &ReleaseService) -> Result<Vec<SecretOrder>, Trouble>;
}

/// The data plane as the core sees it.
pub trait Edge: Send + Sync {
    /// Puts a table in force; when this returns, no new request is routed by an older one. The version it is in force
    /// under is told: an older one than asked for, if the same was put in force before and nobody knew.
    ///
    /// # Errors
    /// If the edge does not answer within a moment; then the table may or may not be in force.
    fn set_table(&self, table: &RouteTable) -> Result<EdgeCounts, Trouble>;

    /// What of a table could not be served now, such as a port that somebody else has; nothing if that is not known.
    /// Returns at once, and changes nothing.
    fn lacks(&self, _: &RouteTable) -> Option<String> {
        None
    }

    /// What is in flight.
    ///
    /// # Errors
    /// If the edge does not answer within a moment.
    fn counts(&self) -> Result<EdgeCounts, Trouble>;

    /// What was seen of these fleets while they served beside others, since nobody knows when, as far as it is known by
    /// now: it only grows, and fleets of which nothing is known are left out. Returns at once.
    fn evidence(&self, fleets: &[FleetId]) -> Vec<FleetEvidence>;

    /// Asks to be woken when nothing is in flight at these fleets any more. Returns at once.
    fn wake_when_drained(&self, fleets: &[FleetId]);
}

/// What to ask an instance, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// The port asked.
    pub port: u16,
    /// The question.
    pub probe: Probe,
    /// How often it is asked.
    pub interval: Millis,
    /// How long the answer may take.
    pub timeout: Millis,
    /// Good answers in a row that make it healthy.
    pub healthy_after: u32,
    /// Bad ones that make it unhealthy.
    pub unhealthy_after: u32,
    /// What is run, if the question is a command.
    pub exec: Option<ExecOrder>,
    /// Since when it counts as healthy until it says otherwise, if it does: it was when this control plane's predecessor
    /// died.
    pub presumed_healthy: Option<Timestamp>,
}

/// Asks instances how they are.
pub trait Health: Send + Sync {
    /// Watches exactly these from now on.
    fn watch(&self, watches: &BTreeMap<InstanceId, Watch>);

    /// What is known of those watched.
    fn conditions(&self) -> BTreeMap<InstanceId, Condition>;
}

/// All of it.
pub struct World {
    /// Makes and destroys instances.
    pub engine: std::sync::Arc<dyn Engine>,
    /// The data plane.
    pub edge: Box<dyn Edge>,
    /// Asks instances how they are.
    pub health: Box<dyn Health>,
    /// Keeps history.
    pub history: Box<dyn History>,
    /// Finds releases and images.
    pub shelf: Box<dyn Shelf>,
    /// Tells the time.
    pub clock: Box<dyn Clock>,
}
