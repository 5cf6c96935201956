//! Makes and destroys instances.
//!
//! [`Engine`] is the contract; whatever implements it passes the conformance suite in `kiln-testkit`.

mod contract;
pub mod embedded;

pub use contract::{Broker, Engine, EngineError, Execution};
