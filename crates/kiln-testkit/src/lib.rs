//! See Cargo.toml's description; the module map follows.

pub mod conformance;
mod fake_engine;
pub mod fixture_image;
pub mod load;
pub mod program;
pub mod shifted_clock;
pub mod sim;
pub mod storm;

pub use fake_engine::FakeEngine;
