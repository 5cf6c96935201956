//! What happens while a command runs, as it is streamed to whoever asked.

use serde::{Deserialize, Serialize};

use crate::{
    AppName, BakedImage, Failure, HookMoment, InstanceId, OutputStream, Progress, ReleaseId, ServiceName,
    Timestamp,
};

/// One event with its moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped {
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What can happen while a command runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// News about work under way.
    Progress(Progress),
    /// An image is there.
    Baked {
        /// Its name in the spec.
        name: String,
        /// What it is.
        image: BakedImage,
    },
    /// A check of an image has passed (or was found to have passed before).
    Checked {
        /// The image's name in the spec.
        image: String,
        /// The check in a few words.
        check: String,
        /// Whether the result is from an earlier run on the same image.
        cached: bool,
        /// How long it took, in milliseconds.
        millis: u64,
    },
    /// What somebody else has asked for is followed from here on, and goes on if they leave.
    Follows {
        /// Its number in the log.
        operation: u64,
    },
    /// There is a plan; its steps in words, in order.
    Planned {
        /// The release it leads to.
        release: ReleaseId,
        /// The steps.
        steps: Vec<String>,
    },
    /// A step has begun.
    StepBegun {
        /// The step in words.
        step: String,
    },
    /// A step has ended well.
    StepDone {
        /// The step in words.
        step: String,
        /// How long it took, in milliseconds.
        millis: u64,
    },
    /// Something will be a trouble if nobody does anything.
    Warned {
        /// What, and what helps.
        warning: String,
    },
    /// An instance is healthy.
    InstanceReady {
        /// Which.
        instance: InstanceId,
    },
    /// An instance ended or was thrown away.
    InstanceLost {
        /// Which.
        instance: InstanceId,
        /// Why.
        cause: String,
    },
    /// A hook has ended.
    HookEnded {
        /// The instance it ran in.
        instance: InstanceId,
        /// The service whose hook it is.
        service: ServiceName,
        /// When it is run.
        moment: HookMoment,
        /// What went wrong, if anything did.
        problem: Option<String>,
    },
    /// All new requests go to this release from now on.
    Switched {
        /// The release.
        release: ReleaseId,
    },
    /// The release serves all traffic. Last of a deploy or rollback that went well.
    Deployed {
        /// The release.
        release: ReleaseId,
        /// Where it can be reached.
        address: String,
        /// Whether it was already serving, so that nothing had to be done.
        unchanged: bool,
        /// From the arrival of the command until all new requests went to it, in microseconds.
        #[serde(default)]
        switched_micros: u64,
        /// What did not go well after the switch, if anything: the release serves all the same.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    },
    /// It went wrong. Last of a deploy or rollback that did.
    Failed {
        /// The release that was to be, if it got so far.
        release: Option<ReleaseId>,
        /// The release that serves, if any does.
        serving: Option<ReleaseId>,
        /// The step at which it failed, in words.
        step: String,
        /// The failure in one sentence, causes included.
        cause: String,
        /// The same, for programs.
        failure: Failure,
    },
    /// A line an instance wrote.
    Output {
        /// The app, if it was an instance of one (throwaway instances of checks are not).
        app: Option<AppName>,
        /// The service, if it was one's instance.
        service: Option<ServiceName>,
        /// The release, if it was one's instance.
        release: Option<ReleaseId>,
        /// The instance.
        instance: InstanceId,
        /// Where it wrote to.
        stream: OutputStream,
        /// When.
        written: Timestamp,
        /// What, without its line end.
        line: String,
    },
}
