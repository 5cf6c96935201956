//! What a client does, and what it must see of it.

use std::time::Duration;

/// A kind of stream: what is asked for, and what a whole one is.
#[derive(Debug, Clone)]
pub enum StreamKind {
    /// Requests over one connection that speaks HTTP/2 from its first byte, for as long as the service lets it: while a
    /// download comes, short answers beside it.
    Http2 {
        /// The path of the download.
        long: String,
        /// How many bytes it has.
        bytes: usize,
        /// The path of what is answered at once.
        short: String,
    },
    /// Server-sent events: `data: 0`, `data: 1` and so on, and then a proper end.
    Events {
        /// Their path.
        path: String,
        /// How many come.
        events: usize,
    },
    /// A conversation over a websocket: each text comes back, in order, and between them the service says `tick 0`, `tick 1`
    /// and so on of itself. The client says goodbye, and the service says it, too.
    Websocket {
        /// Its path.
        path: String,
        /// How many texts the client sends.
        messages: usize,
        /// The time between two of them.
        pace: Duration,
    },
    /// A download over a connection of its own.
    Download {
        /// Its path.
        path: String,
        /// How many bytes it has.
        bytes: usize,
    },
    /// An upload over a connection of its own, at a steady pace; any answer with 200 is right.
    Upload {
        /// Its path.
        path: String,
        /// How many bytes it has.
        bytes: usize,
        /// How long it takes.
        takes: Duration,
    },
}

impl StreamKind {
    /// What reports call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Http2 { .. } => "HTTP/2",
            Self::Events { .. } => "events",
            Self::Websocket { .. } => "websockets",
            Self::Download { .. } => "downloads",
            Self::Upload { .. } => "uploads",
        }
    }
}
