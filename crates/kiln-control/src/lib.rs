//! Reality follows the plan.

pub mod contract;
