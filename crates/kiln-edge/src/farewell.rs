//! The end of a client's connection when everything has been said: it is listened to until it has gone.
//!
//! A client that is answered before it has sent everything goes on to send, one of HTTP/2 goes on to say what it has
//! read. If that met a closed socket the client would be told of a reset, and lose what it has not read yet: the answer.
//! So what still comes is taken and dropped, within bounds (RFC 9112, 9.6).

use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// How long a client is listened to that says nothing and does not go.
const SILENCE: Duration = Duration::from_secs(2);
/// How long one is listened to that goes on to speak.
const SPEECH: Duration = Duration::from_secs(30);
/// How much is heard of it.
const BYTES: usize = 64 * 1024 * 1024;

/// A client that is told nothing more.
pub(crate) struct Farewell {
    until: Instant,
    silence: Pin<Box<Sleep>>,
    left: usize,
}

impl Farewell {
    pub(crate) fn begin() -> Self {
        Self { until: Instant::now() + SPEECH, silence: Box::pin(sleep(SILENCE)), left: BYTES }
    }

    /// Ready when the client has closed as well, or has had its time.
    pub(crate) fn poll(&mut self, socket: &TcpStream, cx: &mut Context<'_>) -> Poll<()> {
        let mut nowhere = [0; 16 * 1024];
        while socket.poll_read_ready(cx).is_ready() {
            match socket.try_read(&mut nowhere) {
                Ok(length @ 1..) if length < self.left => self.heard(length),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => return Poll::Ready(()),
            }
        }
        self.silence.as_mut().poll(cx)
    }

    fn heard(&mut self, length: usize) {
        self.left -= length;
        self.silence.as_mut().reset(self.until.min(Instant::now() + SILENCE));
    }
}
