//! How the keeper is spoken to.
//!
//! A connection is a Unix stream of frames: four bytes of length (little-endian), then that many of JSON. The client
//! sends a request, the keeper answers it, one after the other; whoever has several things to say at once opens
//! several connections. Descriptors travel with the first byte of the frame they belong to.
//!
//! | module | noun |
//! |---|---|
//! | `message` | requests and replies |
//! | `frame` | a message as bytes, and its bounds |
//! | `descriptors` | bytes that descriptors travel with |

mod descriptors;
mod frame;
mod message;

pub(super) use descriptors::{MOST_DESCRIPTORS, Received, receive, send};
pub(super) use frame::{Frame, Inbox};
pub(super) use message::{Answer, Call, Cursor, Reply, Request};

/// The sockets of a keeper, inside its run directory.
pub(super) const CONTROL_SOCKET: &str = "keeper.sock";
pub(super) const BROKER_SOCKET: &str = "broker.sock";
