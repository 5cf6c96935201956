//! Load that takes its time: streams that begin, last, and must come to their end, each of them accounted for.

mod events;
mod http2;
mod kind;
mod ledger;
mod plan;
mod report;
mod run;
mod transfer;
mod websocket;
mod wire;

pub use kind::StreamKind;
pub use plan::StreamPlan;
pub use report::{StreamCounts, StreamReport};
pub use run::Streams;
