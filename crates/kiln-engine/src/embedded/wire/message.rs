//! Requests and replies.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use kiln_model::{ExecOrder, Exit, InstanceId, InstanceOrder, InstanceStatus, NeedName, StoreHost};
use serde::{Deserialize, Serialize};

/// Something asked of a keeper.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Comes back in the reply.
    pub(crate) number: u64,
    /// What is asked.
    pub(crate) call: Call,
}

/// What can be asked. All but `Sockets`, `Listeners` and `Store` is for control only.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Call {
    /// Make instances; answered when all of them run or are known not to.
    Create(Vec<InstanceOrder>),
    /// Ask instances to end.
    Stop(Vec<InstanceId>),
    /// End instances; answered when they are gone.
    Kill(Vec<InstanceId>),
    /// All statuses.
    List,
    /// Statuses that are newer than `since`; answered when there are some, or after a while.
    Changes {
        /// Up to where the client knows.
        since: Cursor,
        /// How long it waits at most.
        timeout_ms: u64,
    },
    /// Drop the memory of ended instances.
    Forget(Vec<InstanceId>),
    /// Sockets in the network of an instance.
    Sockets {
        /// Which.
        id: InstanceId,
        /// How many.
        count: u32,
    },
    /// What listens inside an instance for what it needs.
    Listeners {
        /// Which.
        id: InstanceId,
    },
    /// A connection to a store an instance needs, begun.
    Store {
        /// Which instance.
        id: InstanceId,
        /// Which of its needs.
        need: NeedName,
    },
    /// Where the stores are that go by a name, all of them.
    Locate(BTreeMap<StoreHost, SocketAddr>),
    /// Run a command in an instance; its standard streams travel with it. Answered when it has ended; it is killed
    /// when who asked goes.
    Exec {
        /// Which.
        id: InstanceId,
        /// What is run.
        order: ExecOrder,
    },
    /// Who answers.
    Who,
    /// Leave everything to another program, which goes on in a moment.
    Succeed {
        /// Where it is.
        program: PathBuf,
    },
    /// Kill all instances, clean up, and end; answered before the end.
    Shutdown,
}

/// How much of what happened somebody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Cursor {
    /// Which keeper counted: another one begins again.
    pub(crate) keeper: u64,
    /// The number of the last change known.
    pub(crate) change: u64,
}

/// What a keeper says to a request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// The request's.
    pub(crate) number: u64,
    /// The answer.
    pub(crate) answer: Answer,
}

/// What it can say.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It is done.
    Done,
    /// To `Create` and `List`.
    Statuses(Vec<InstanceStatus>),
    /// To `Changes`.
    Changes {
        /// The new statuses.
        statuses: Vec<InstanceStatus>,
        /// Up to where the client knows now.
        until: Cursor,
    },
    /// To `Sockets` and `Store`; they travel with it.
    Sockets,
    /// To `Listeners`; they travel with it, in this order.
    Listeners(Vec<NeedName>),
    /// To `Exec`: how the command ended.
    Executed(Exit),
    /// To `Sockets` and `Exec`: no such instance runs.
    NoSuchInstance,
    /// To `Who`.
    Keeper {
        /// Its number on the host.
        pid: u32,
    },
    /// It cannot be done, or not by whom it was asked.
    Refused(String),
}
