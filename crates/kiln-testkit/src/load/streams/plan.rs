//! What streams are wanted.

use std::net::SocketAddr;

use super::kind::StreamKind;

/// Clients that begin a stream when their last one has ended.
#[derive(Debug, Clone)]
pub struct StreamPlan {
    /// Where the service answers; loopback only.
    pub address: SocketAddr,
    /// The Host field.
    pub host: String,
    /// What clients do.
    pub kinds: Vec<StreamKind>,
    /// How many clients do it, for each kind.
    pub clients_of_each: usize,
}
