//! Control groups: limits, and the certainty that everything of an instance is gone.
//!
//! ```text
//!   <v2 tree>/kiln-<host root>/<instance id>/          always: kill, populated
//!   <v1 controller>/kiln-<host root>/<instance id>/    where a controller is bound to v1: limits
//! ```
//! Which controller is where is read from the mount table, for each by itself: hosts have all of them in v2, all in
//! v1, or some in each.
//!
//! | module | noun |
//! |---|---|
//! | `disk` | the disk a file lies on, as the controller of reading has it |
//! | `layout` | which controller is mounted where, read from the mount table |
//! | `setting` | a limit as the file and the text that set it |
//! | `groups` | the directories of this host root: made, joined, killed, removed |

mod disk;
mod groups;
mod layout;
mod setting;

pub(super) use disk::Disk;
pub(super) use groups::{Groups, NO_IO, Wanting};
pub(super) use layout::{Controller, Layout};
pub(super) use setting::{Allowance, Setting};
