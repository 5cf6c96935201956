//! See Cargo.toml's description; the module map follows.

pub mod erofs;
