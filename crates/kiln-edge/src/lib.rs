//! The data plane: takes what clients ask, gives it to an instance of the right fleet, and brings the answer back.
//!
//! A process of its own, without privileges. Control hands it a whole [`kiln_model::RouteTable`] at a time
//! ([`EdgeClient::set_table`]); from the acknowledgement on, no request begins by an older table on any thread.
//! What is in flight is counted per fleet, and a fleet is stopped only when that count is zero
//! ([`EdgeClient::wait_drained`]).
//!
//! | room | what lives there |
//! |---|---|
//! | `sockets`, `listen`, `process`, `confine`, `seccomp` | how the process comes to be, and what it gives up |
//! | `protocol`, `terse`, `passing`, `client`, `orders`, `director` | what control says, and how every thread comes to follow it |
//! | `told`, `table`, `router`, `shares`, `balance`, `standing` | from a request to an instance, without an await |
//! | `worker`, `accept`, `clients`, `greet`, `serve`, `tasks`, `connection`, `client_io`, `farewell`, `head_check` | one thread and its clients |
//! | `proxy_header`, `trust`, `origin`, `forwarded`, `tls`, `certificate` | who a client is, and what is between it and the edge |
//! | `course`, `inbound`, `forward`, `hygiene`, `trace`, `body`, `lease`, `cut`, `tunnel`, `refusal`, `unread`, `deadline` | one request and its answer |
//! | `express`, `buffers` | the same for ordinary requests of HTTP/1.1, without hyper, and the half of those of HTTP/2 |
//! | `upstream`, `upstream_io`, `connect`, `stock`, `dial` | connections to instances |
//! | `pump`, `websocket`, `tcp`, `counted` | streams that are not HTTP, or not any more |
//! | `inside`, `store` | what comes from inside instances, and where it leads |
//! | `counts`, `account`, `metrics` | what is in flight, and what is told of it |

mod accept;
mod account;
mod balance;
mod body;
mod buffers;
pub mod certificate;
mod client;
mod client_io;
mod clients;
mod config;
mod confine;
mod connect;
mod connection;
mod counted;
mod counts;
mod course;
mod cut;
mod deadline;
mod dial;
mod director;
mod error;
mod evidence;
pub mod express;
mod farewell;
mod forward;
pub mod forwarded;
mod greet;
pub mod head_check;
mod hygiene;
mod inbound;
mod inside;
mod kept_body;
mod lease;
mod listen;
mod metrics;
mod orders;
pub mod origin;
mod passing;
mod process;
mod proofs;
mod protocol;
pub mod proxy_header;
mod pump;
mod random;
mod refusal;
mod router;
mod seccomp;
mod serve;
mod shares;
mod sink;
mod sockets;
#[cfg(test)]
mod spoilt;
mod standing;
mod stock;
mod store;
mod table;
mod tasks;
mod tcp;
mod terse;
mod tls;
mod told;
pub mod trace;
mod trailers;
mod trust;
mod tunnel;
mod unread;
mod upstream;
mod upstream_io;
pub mod visitor;
pub mod websocket;
mod worker;

pub use certificate::Certificate;
pub use client::{EdgeClient, Inheritance};
pub use config::{Confinement, EdgeConfig, EdgeSettings, Limits};
pub use dial::Dial;
pub use error::EdgeError;
pub use listen::{bind, local};
pub use process::run;
pub use proofs::Proof;
pub use protocol::EdgeStats;
pub use sockets::{Door, Listener, Sockets, bind_control, spawn};
pub use trust::{Network, Trust};
