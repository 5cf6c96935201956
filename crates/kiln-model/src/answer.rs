//! What a host answers: the JSON shapes other programs rely on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    Action, AppName, CommitAnswer, DiffAnswer, Difference, ExportAnswer, Failure, GcAnswer, Handmade,
    ImageDigest, ImageName, ImportAnswer, InstanceId, LeftOut, LogEntry, LogVerifiedAnswer, PackageRef,
    PackageRule, PinAnswer, PlanPhase, Release, ReleaseId, SecretName, SecretVersion, ServiceName, Timestamp,
    TrafficReport,
};

/// The answer to a [`crate::Command`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", content = "value", rename_all = "snake_case")]
pub enum Answer {
    /// To a deploy or a rollback.
    Deployed(DeployedAnswer),
    /// To a plan.
    Plan(PlanAnswer),
    /// To a wait for something that went well.
    Waited(WaitAnswer),
    /// To a cancel.
    Cancelled(CancelAnswer),
    /// To a status.
    Status(StatusAnswer),
    /// To releases, newest first.
    Releases(Vec<ReleaseEntry>),
    /// To one release.
    Release(Box<ReleaseAnswer>),
    /// To what differs between two.
    ReleaseDiff(ReleaseDiffAnswer),
    /// To `diff`.
    Diff(DiffAnswer),
    /// To a commit.
    Committed(CommitAnswer),
    /// To instances, by id.
    Instances(Vec<InstanceEntry>),
    /// To an export.
    Exported(ExportAnswer),
    /// To an import.
    Imported(ImportAnswer),
    /// To a pin or an unpin.
    Pinned(PinAnswer),
    /// To a collection.
    Gc(GcAnswer),
    /// To a look at the log that found nothing wrong.
    LogVerified(LogVerifiedAnswer),
    /// To a secret that was set.
    Secret(SecretAnswer),
    /// To the secrets there are, by name, the present version of each first.
    Secrets(Vec<SecretEntry>),
    /// To log, newest first.
    Log(Vec<LogEntry>),
    /// To metrics: Prometheus's text format.
    Metrics(String),
    /// To an audit.
    Audit(AuditAnswer),
    /// To a verify.
    Verify(VerifyAnswer),
    /// It is done, and there is nothing to say.
    Done,
    /// It is done, and the operation log does not tell of it, for this reason.
    Unrecorded(Failure),
}

/// An image a bake has made or found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BakedImage {
    /// Its digest.
    pub digest: ImageDigest,
    /// Size of its metadata and all its contents in bytes.
    pub bytes: u64,
    /// Whether it was there already.
    pub reused: bool,
    /// How many packages it holds.
    pub packages: u64,
    /// How long the bake took, in milliseconds.
    pub millis: u64,
    /// What belongs to one machine and was left out, and what may and was kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
}

/// `kiln bake --json`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BakeAnswer {
    /// By name in the spec.
    pub images: BTreeMap<ImageName, BakedImage>,
}

/// The end of a deploy or a rollback that went well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployedAnswer {
    /// The release that serves all traffic now.
    pub release: ReleaseId,
    /// Where.
    pub address: String,
    /// Whether it was already serving, so that nothing had to be done.
    pub unchanged: bool,
    /// From the command until all new requests went to it, in milliseconds.
    pub switched_millis: u64,
    /// What did not go well after the switch, if anything: the release serves all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// `kiln plan --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanAnswer {
    /// The app.
    pub app: AppName,
    /// The release that serves now.
    pub from: Option<ReleaseId>,
    /// The release the plan leads to.
    pub to: ReleaseId,
    /// Why nothing is to be done, if so; then there are no steps.
    pub nothing_to_do: Option<String>,
    /// What differs between the two, one line a difference.
    pub changes: Vec<String>,
    /// The steps in order.
    pub steps: Vec<PlannedStep>,
    /// What may go wrong, each with what helps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One step of a plan and its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// The step in words.
    pub step: String,
    /// Why it is there.
    pub why: String,
    /// The part of the plan it belongs to.
    pub phase: PlanPhase,
    /// The service it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// The step for programs.
    pub action: Action,
}

/// `kiln wait --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitAnswer {
    /// The app.
    pub app: AppName,
    /// The operation that has ended; none if nothing was under way.
    pub operation: Option<u64>,
    /// The release that serves.
    pub serving: Option<ReleaseId>,
    /// What did not go well after the switch, if anything: the release serves all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// `kiln cancel --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelAnswer {
    /// The app.
    pub app: AppName,
    /// What is being given up: `deploy` or `rollback`.
    pub cancelled: String,
    /// Who asked for it.
    pub by: String,
}

/// `kiln status --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// The app; none if nothing has been deployed and none was named.
    pub app: Option<AppName>,
    /// The release that serves.
    pub live: Option<ReleaseId>,
    /// The release `kiln rollback` goes back to.
    pub previous: Option<ReleaseId>,
    /// Where the traffic goes.
    pub traffic: TrafficReport,
    /// The services of the live release.
    pub services: BTreeMap<ServiceName, ServiceStatus>,
    /// Where the app is reached.
    pub address: String,
    /// What is being waited for, if anything.
    pub waiting: Vec<Waiting>,
    /// The failure of the last deploy, if it failed and none has succeeded since.
    pub last_failure: Option<String>,
    /// What will be a trouble if nobody does anything, each with what helps.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Requests at the fleets there are, and at those that went since this control plane was started.
    pub requests: u64,
    /// Of these, answered by the edge itself with 502, 503 or 504 (in a pause, too), or begun by an instance and broken
    /// off. What an instance answers to the end is an answer, whatever it says.
    pub failed_requests: u64,
    /// In flight now.
    pub in_flight: u64,
}

/// A service in a status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// The release its instances belong to.
    pub release: ReleaseId,
    /// The image they are made from.
    pub image: ImageDigest,
    /// How many there are.
    pub instances: Counts,
}

/// Wanted and present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// How many there should be.
    pub desired: u32,
    /// How many are healthy.
    pub ready: u32,
}

/// Something that is waited for: for what, since when, until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// For what.
    pub what: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when at the latest.
    pub until: Option<Timestamp>,
}

/// One line of `kiln releases --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseEntry {
    /// Its id.
    pub release: ReleaseId,
    /// When it came to this host: it first served, or was imported.
    pub created: Timestamp,
    /// By whom.
    pub by: String,
    /// Its images, by service.
    pub images: BTreeMap<ServiceName, ImageDigest>,
    /// What is wrong with its document, if anything is: then its images are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
    /// What it would take to go back to it.
    pub state: ReleaseState,
    /// Whether somebody wants it to be kept whatever else goes.
    #[serde(default)]
    pub pinned: bool,
}

/// `kiln releases show --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseAnswer {
    /// Its id, which is the digest of `document`.
    pub release: ReleaseId,
    /// When it first served; absent if it never did.
    pub created: Option<Timestamp>,
    /// Who asked for that.
    pub by: Option<String>,
    /// What it would take to go back to it.
    pub state: ReleaseState,
    /// Whether somebody wants it to be kept whatever else goes.
    #[serde(default)]
    pub pinned: bool,
    /// The release itself.
    pub document: Release,
    /// Its images, by service, as far as their records can be read.
    pub images: BTreeMap<ServiceName, ReleaseImage>,
    /// What is wrong with the records of the others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub damaged_images: BTreeMap<ServiceName, String>,
}

/// An image of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseImage {
    /// Its digest.
    pub digest: ImageDigest,
    /// Size of its metadata and all its contents in bytes.
    pub bytes: u64,
    /// Number of paths.
    pub entries: u64,
    /// The packages inside, sorted.
    pub packages: Vec<PackageRef>,
    /// How it came to be, if it was not baked from its inputs alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handmade: Option<Handmade>,
}

/// `kiln releases diff --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseDiffAnswer {
    /// The one.
    pub from: ReleaseId,
    /// The other.
    pub to: ReleaseId,
    /// What differs; empty if they are the same.
    pub differences: Vec<Difference>,
}

/// `kiln audit --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditAnswer {
    /// The package that was asked about, if one was.
    pub package: Option<PackageRule>,
    /// Every service of every release that can be gone back to, newest release first.
    pub services: Vec<AuditEntry>,
    /// Releases of which nothing can be said, because they do not read, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub damaged: BTreeMap<ReleaseId, String>,
    /// Images of which nothing can be said, because their record does not read or is gone, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub damaged_images: BTreeMap<ImageDigest, String>,
}

/// One service of one release, as the record has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its app.
    pub app: AppName,
    /// Its release.
    pub release: ReleaseId,
    /// What it would take to go back to that.
    pub state: ReleaseState,
    /// The service.
    pub service: ServiceName,
    /// The image it is made from.
    pub image: ImageDigest,
    /// Those of the image's packages that were asked about; all of them if none was.
    pub packages: Vec<PackageRef>,
    /// The checks the image has passed.
    pub checks: Vec<String>,
    /// The rules of policy the release has kept.
    pub policy: Vec<String>,
    /// Its instances that exist.
    pub instances: Vec<InstanceId>,
    /// How the image came to be, if it was not baked from its inputs alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handmade: Option<Handmade>,
}

/// `kiln verify --json`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VerifyAnswer {
    /// How many objects, images, packages and releases were hashed again.
    pub looked_at: u64,
    /// What of them is not what its name promises.
    pub damage: Vec<DamageEntry>,
    /// What was removed for the next bake to make again.
    pub removed: Vec<PathBuf>,
    /// Every instance that was compared with its release.
    pub instances: Vec<VerifiedInstance>,
}

/// Something in the store that is damaged or missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageEntry {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
    /// The images that need it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub images: BTreeSet<ImageDigest>,
    /// The releases that need it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub releases: BTreeSet<ReleaseId>,
    /// The running instances that need it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub instances: BTreeSet<InstanceId>,
}

/// An instance that was compared with its release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedInstance {
    /// Which.
    pub id: InstanceId,
    /// Its service.
    pub service: ServiceName,
    /// Its release.
    pub release: ReleaseId,
    /// What differs; empty if nothing does.
    pub differs: Vec<String>,
}

impl DamageEntry {
    /// Damage that nobody is known to suffer from.
    pub fn of(path: PathBuf, problem: String) -> Self {
        let (images, releases, instances) = Default::default();
        Self { path, problem, images, releases, instances }
    }
}

impl VerifyAnswer {
    /// Whether all is as it should be.
    pub fn is_well(&self) -> bool {
        self.damage.is_empty() && self.instances.iter().all(|i| i.differs.is_empty())
    }
}

/// What it would take to go back to a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseState {
    /// Nothing: it serves.
    Live,
    /// One switch: its fleet is up.
    Warm,
    /// A fleet from the store.
    Stored,
}

/// One line of `kiln instances --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceEntry {
    /// Its id.
    pub id: InstanceId,
    /// Its app.
    pub app: AppName,
    /// Its service.
    pub service: ServiceName,
    /// Its release.
    pub release: ReleaseId,
    /// Its image.
    pub image: ImageDigest,
    /// Where it is in its life.
    pub state: InstancePhase,
    /// Since when.
    pub since: Timestamp,
    /// Its main process as the host numbers it.
    pub pid: Option<u32>,
    /// What is wrong with it, or why it was replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Where an instance is in its life, as people are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstancePhase {
    /// It runs and has not yet been healthy.
    Starting,
    /// It is healthy.
    Ready,
    /// It was healthy and does not answer now.
    Unhealthy,
    /// It is being ended.
    Stopping,
    /// It is no more; another one has taken its place.
    Replaced,
    /// It runs a hook of the deploy under way, and serves nobody.
    Hook,
}

/// `kiln secret set --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretAnswer {
    /// Whether this value was not the present one already.
    pub changed: bool,
    /// What is known of it now.
    #[serde(flatten)]
    pub entry: SecretEntry,
}

/// One line of `kiln secret list --json`: one setting of one secret. There is no value in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretEntry {
    /// The app.
    pub app: AppName,
    /// The name.
    pub name: SecretName,
    /// The version of the value; absent if the setting does not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<SecretVersion>,
    /// Counted from 1 for each secret of this host.
    pub number: u64,
    /// When it was set; absent as `version` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// By whom; absent as `version` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Whether it is the last one set of its secret, which is what the next deploy uses. The values of all settings are
    /// kept, of those that are not present as well: releases that were made with them need them.
    pub present: bool,
    /// The kept releases that need this version.
    pub releases: Vec<ReleaseId>,
    /// Why its value cannot be had, if it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
}
