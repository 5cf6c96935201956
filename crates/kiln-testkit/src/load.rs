//! Load for a service on loopback: requests begin when they are due, whether or not earlier ones have ended, and every
//! one of them is accounted for. Beside them [`Streams`], which last.

mod connection;
mod latency;
mod ledger;
mod plan;
mod queue;
mod report;
mod response;
mod run;
mod streams;

pub use plan::{LoadPlan, Marker};
pub use report::{LoadFailure, LoadReport};
pub use run::{Load, LoadHandle};
pub use streams::{StreamCounts, StreamKind, StreamPlan, StreamReport, Streams};
