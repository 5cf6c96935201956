//! Makes and destroys instances.
//!
//! [`Engine`] is the contract; whatever implements it passes the conformance suite in `kiln-testkit`.

mod contract;
pub mod embedded;
mod lack;

pub use contract::{Broker, Engine, EngineError, Execution, Room};
pub use lack::remedy;
