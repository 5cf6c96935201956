//! The door of a host: HTTP and JSON over a Unix socket, on both sides.
//!
//! ```text
//! <run dir>/control.sock        mode 0600; who is at the other end the kernel says
//! /run/kiln/hosts/<pid>.json    one per running host, so that the command line finds it
//!
//! POST /v1/commands             a Command; the answer is a stream, one JSON object a line:
//!                               events, then {"answer": …} or {"failure": …}; it may be given a name in the header
//!                               field `kiln-command`, and then
//! DELETE /v1/commands/{name}    says that it is not wanted any more
//! POST /v1/exec                 a command inside an instance; becomes a stream in both directions
//! GET  /v1/apps/{app}/status    and /releases, /instances, /log?limit=N: the same commands, for curl
//! GET  /v1/health               whether the host answers at all
//! ```
//! Everything lowers into [`kiln_model::Command`] and goes through [`kiln_control::contract::Host`]. No other crate
//! knows HTTP.

mod asked;
mod caller;
mod client;
mod discovery;
mod reach;
mod routes;
mod server;
mod session;
mod stream;
mod wire;

pub use caller::this_process;
pub use client::{Client, GivesUp};
pub use discovery::{Registered, Registration, Registry};
pub use server::{ServeError, Server};
pub use wire::Line;
