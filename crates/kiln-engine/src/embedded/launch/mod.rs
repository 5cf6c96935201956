//! From an order to a running program, with raw system calls and nothing in between.
//!
//! ```text
//!   parent                                     child (shares the parent's memory)
//!   template of the image entered
//!   clone3 into the v2 control group  ──────▶  descriptors, network, tmpfs, /proc, loopback, hostname
//!   v1 control groups made, if idle   ──────▶  v1 control groups made, if the parent is not; joined
//!   id maps written                   ◀──────  user namespace; wants maps
//!                                     ──────▶  ids, limits, capabilities, filter
//!   running                           ◀──EOF─  execve closes the channel
//! ```
//! A launch never waits: the parent goes on when the channel has something to say, so that several children prepare
//! themselves while it makes the next.
//!
//! | module | noun |
//! |---|---|
//! | `launcher` | what is shared by launches: host, templates, ids |
//! | `launching` | one launch under way |
//! | `main_process` | the first process of an instance, as its parent holds it |
//! | `template` | the mount namespace all instances of an image begin with; `device_dir` is its /dev |
//! | `script` | what one child needs to know |
//! | `secrets` | the files of secrets, on a tmpfs of their own |
//! | `child` | what it does with that; `raw` and `spawn` are the system calls, `step` what it says |
//! | `ending` | how a process ended, whoever's child it was |
//! | `slots` | low numbers for the descriptors of children |
//! | `diagnosis` | why a program could not be executed |
//! | `hosts` | the names of what an instance needs |
//! | `machine_id` | the identity of an instance |
//! | `ids` | who instances are on the host |
//! | `times` | how long each step takes, for benchmarks |

mod child;
mod device_dir;
mod diagnosis;
mod ending;
mod error;
mod host;
mod hosts;
mod ids;
mod launcher;
mod launching;
mod machine_id;
mod main_process;
mod raw;
mod script;
mod secrets;
mod slots;
mod spawn;
mod stack;
mod step;
mod template;
mod times;

pub use device_dir::{Device, devices};
pub use diagnosis::interpreter_of_script;
pub(super) use error::LaunchError;
pub(super) use host::Host;
pub use host::covered_paths;
pub(super) use ids::{AppIds, IdBook};
pub(super) use launcher::{Launcher, bytes_of_texts, undumpable};
pub(super) use launching::{Launching, Progress};
pub(super) use main_process::{MainProcess, begin_connection};
pub(super) use slots::{LAUNCHES_AT_ONCE, Slots};
pub(super) use times::{ParentTimes, TimesFile};
