//! Reality follows the plan.
//!
//! [`core`](Core) is the loop without threads or I/O of its own; [`LocalHost`] connects it with the real world: the
//! store, the keeper, the edge, and the commands people give. [`contract::Host`] is the one door through which they
//! come in.

mod acme;
mod changes;
mod condition;
pub mod contract;
mod core;
mod health;
mod host;
pub mod pipeline;
mod probe;
mod project;
mod running;
mod shelf;
mod sync;
mod world;

pub use acme::ProofKind;
pub use condition::{Condition, Unasked};
pub use core::{Bygone, Core, InstanceReport, News, NewsSender, Past, Precedence, Refusal, Request, Will};
pub use health::Prober;
pub use host::failure::{store as refused_by_store, system as refused_by_system, with_remedy};
pub use host::verify::without_host as verify_store;
pub use host::without_history::repair_log;
pub use host::{AcmeOptions, EdgeOptions, HostConfig, LocalHost, LostKey, Offline};
pub use project::Project;
pub use shelf::SystemClock;
pub use world::{Clock, Edge, Health, History, Shelf, Trouble, Watch, World};
