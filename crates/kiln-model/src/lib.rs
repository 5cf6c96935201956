//! The nouns and decisions of Kiln.
//!
//! Nothing here performs I/O, reads a clock or draws a random number: the same inputs give the same plan, byte
//! for byte. Everything else in the workspace either carries these nouns out or shows them to someone.

mod answer;
mod app_state;
mod author;
mod canary;
mod capability;
mod checker;
mod command;
mod diff;
mod digest;
mod edge_table;
mod event;
mod failure;
mod fleet;
mod handmade;
mod healthy;
mod hook;
mod host_name;
mod image;
mod instance;
mod kept;
mod lock;
mod names;
mod need;
mod oci_reference;
pub mod odds;
mod operation;
mod order;
mod output;
mod package;
mod package_rule;
mod plan;
mod planner;
mod portable;
mod probe;
mod program_start;
mod progress;
mod release;
mod release_difference;
mod release_part;
mod schema_range;
mod secret;
mod session;
mod shortage;
pub mod signal;
pub mod spec;
mod store_address;
mod table;
mod text;
mod time;
mod traffic;
mod tree;
mod units;
mod validity;

pub use answer::{
    Answer, AuditAnswer, AuditEntry, BakeAnswer, BakedImage, CancelAnswer, Counts, DamageEntry,
    DeployedAnswer, InstanceEntry, InstancePhase, PlanAnswer, PlannedStep, ReleaseAnswer, ReleaseDiffAnswer,
    ReleaseEntry, ReleaseImage, ReleaseState, SecretAnswer, SecretEntry, ServiceStatus, StatusAnswer,
    VerifiedInstance, VerifyAnswer, WaitAnswer, Waiting,
};
pub use app_state::{AppState, Pause, UnderWay};
pub use author::{Author, Origin};
pub use canary::{
    BadShare, Canary, Evidence, FleetEvidence, LATENCY_BUCKETS, Pair, Share, Terms, Trial, Verdict,
    latency_bucket,
};
pub use capability::{BadCapability, Capability};
pub use checker::{Finding, check};
pub use command::Command;
pub use diff::{DiffAnswer, DiffEntry, DiffKind};
pub use digest::{BadDigest, ImageDigest, ObjectDigest, Sha256, hex_pair};
pub use edge_table::{
    Audience, Circuit, EdgeCanary, EdgeCounts, EdgeFleet, EdgeRoute, FleetCount, HostPattern, HttpsRule,
    Protocol, RouteTable, Target, TcpRoute,
};
pub use event::{Event, Stamped};
pub use failure::{ExitCode, Failure};
pub use fleet::{Fleet, FleetPhase, Futile, StandIn, Touch};
pub use handmade::{CommitAnswer, Handmade, KeptPath, NotKept};
pub use healthy::{HealthView, Healthy, NotHealthy};
pub use hook::{Hook, HookId, HookMoment, Hooks, MOST_HOOKS};
pub use image::{Fate, ImageFormat, ImageHandle, ImageRecord, LeftOut, RunSettings, Volatile};
pub use instance::{
    ExecOrder, Exit, INSTANCE_IDS, InstanceOrder, InstanceState, InstanceStatus, IoLimits, Limits,
    OutputStream, bytes_of_texts,
};
pub use kept::{History, KeptRelease, Occasion};
pub use lock::{BadLock, Lock, LockRequest, LockedImage, LockedIndex, LockedOci, LockedPackage};
pub use names::{
    AppName, BadName, FleetId, Generation, ImageName, InstanceId, NeedName, ReleaseId, RouteName, SecretName,
    SecretVersion, ServiceName, StoreName,
};
pub use need::{EdgeNeed, Inside, MOST_NEEDS, Need, hosts_file, inside};
pub use oci_reference::{BadReference, LayoutName, OciReference, RegistryReference, Which};
pub use operation::{Ending, Loss, Record};
pub use order::{Circle, layers};
pub use output::{OutputLine, OutputTime, WholeLine, WholeLines};
pub use package::{PackageName, PackageRef};
pub use package_rule::{BadPackageRule, PackageRule, VersionOrder};
pub use plan::{Action, OperationKind, Plan, PlanPhase, Step};
pub use planner::{Desired, NothingToDo, plan};
pub use portable::{
    Amount, ExportAnswer, GcAnswer, ImportAnswer, LogEntry, LogVerifiedAnswer, PinAnswer, Swept,
};
pub use probe::{Check, HttpProbe, Probe};
pub use program_start::{STACK_LIMIT, TooLong, can_start};
pub use progress::Progress;
pub use release::{
    BadRelease, CertificatePaths, PassedCheck, Release, ReleaseRoute, ReleaseService, ReleaseTcpRoute,
};
pub use release_difference::{Contents, Difference, differences};
pub use release_part::{Part, Parts};
pub use schema_range::{SchemaRange, WrongSchema};
pub use secret::{BadSecret, MissingSecret, PinnedSecret, SecretOrder, SecretValue, SecretVersions};
pub use session::{
    ExecRequest, LONGEST_PART, NoSessionPart, SessionPart, SessionParts, Terminal, TerminalSize,
};
pub use shortage::Shortage;
pub use spec::{ImageSpec, Spec, SpecError, SpecFile, SpecProblem};
pub use store_address::{BadStoreAddress, StoreAddress, StoreHost};
pub use table::{RouteConflict, receivers, route_conflict, route_table, shifted, switched};
pub use time::Timestamp;
pub use traffic::{Traffic, TrafficReport};
pub use tree::{Content, Meta, Node, Tree, TreeError, Xattrs};
pub use units::{BadUnit, ByteSize, Millis};
pub use validity::{Standing, Validity};
