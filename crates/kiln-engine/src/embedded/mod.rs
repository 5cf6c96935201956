//! The engine that needs nothing but Linux.
//!
//! Instances are children of a *keeper*, a small process of its own; control speaks with it through [`Embedded`], the
//! edge through [`broker`].
//!
//! | module | noun |
//! |---|---|
//! | `client` | the engine, as control has it |
//! | `broker` | the way to sockets in the networks of instances, as the edge has it |
//! | `connections` | connections inside an instance's network |
//! | `room` | how many more instances a keeper can hold |
//! | `line` | one connection to a keeper, from the outside |
//! | `pulse` | whether a keeper answers, without waiting for it |
//! | `bell` | what calls back whoever waits on one |
//! | `wire` | what is said on it |
//! | `keeper` | the process all instances are children of |
//! | `launch` | from an order to a running program |
//! | `cgroup` | limits, and the certainty that everything is gone |
//! | `seccomp` | the system calls instances may make |
//! | `capture` | what instances write, on its way to files |

mod bell;
pub mod broker;
mod capture;
mod cgroup;
mod client;
mod connections;
pub mod keeper;
mod launch;
mod line;
mod pulse;
mod room;
mod seccomp;
mod wire;

pub use client::{Embedded, UpgradeError};
pub use launch::{Device, covered_paths, devices, interpreter_of_script};
pub use pulse::{Beat, Pulse};

/// What the kernel calls the time since the host was started.
fn boot() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
