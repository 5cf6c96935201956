//! Reality follows the plan.
//!
//! [`core`](Core) is the loop without threads or I/O of its own; everything around it connects it with the real
//! world. [`contract::Host`] is the one door through which commands come in.

pub mod contract;
mod core;
mod health;
mod probe;
mod world;

pub use core::{Core, InstanceReport, News, NewsSender, Refusal, Request};
pub use health::Prober;
pub use world::{Clock, Condition, Edge, Health, History, Shelf, Trouble, Watch, World};
