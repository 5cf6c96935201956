//! See Cargo.toml's description; the module map follows.

mod fake_engine;
pub mod sim;

pub use fake_engine::FakeEngine;
