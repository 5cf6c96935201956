//! The keeper: the parent of all instances of a host.
//!
//! One small process with one thread that waits for whatever happens next and does a bounded amount of work for it:
//! nothing it does waits for anybody. It decides nothing, and it outlives whoever decides.
//!
//! ```text
//!   <run dir>/keeper.lock   held by the keeper of this host root while it lives; holds its process number
//!   <run dir>/keeper.sock   for control: root only
//!   <run dir>/broker.sock   for the edge: sockets into the networks of instances, nothing else
//!   <run dir>/keeper.log    what it could not tell anybody else
//!   <run dir>/keeper.state  its journal: what another keeper needs to go on where this one was killed
//!   /dev/shm/kiln-….output  what it has read from an instance and not yet written to the instance's file
//! ```
//!
//! | module | noun |
//! |---|---|
//! | `config` | where a keeper works, and for whom |
//! | `start` | from a command to a process of its own; `ready` is how whoever started it learns of that |
//! | `turn` | the keeper, and its loop |
//! | `serving` | what it does when asked |
//! | `tending` | what it does when something happens to an instance |
//! | `instance` | an instance that has not ended |
//! | `register` | what is known of every instance, to be told |
//! | `conversation`, `door` | who speaks with it, and who may |
//! | `waiting` | answers that are owed |
//! | `poll` | what it waits for |
//! | `holder` | the process that outlives it, and makes the next one |
//! | `heir` | from one program to the next, without letting go of anything |
//! | `descriptors` | what stays open when a keeper is killed |
//! | `journal` | what it has written down by then; `memory` is when it does |
//! | `adopting` | how the next one goes on |
//! | `executing` | what it does when a command is to be run inside an instance |
//! | `shortage` | instances that run out of memory or space |
//! | `orphans` | what nobody knows of |

mod adopting;
mod config;
mod conversation;
mod descriptors;
mod door;
mod executing;
mod heir;
mod heritage;
mod holder;
mod instance;
mod journal;
mod memory;
mod orphans;
mod poll;
mod ready;
mod register;
mod rounds;
mod serving;
mod signals;
mod start;
mod tending;
mod turn;
mod waiting;

pub use config::{Config, KeeperError};
pub use start::run;
