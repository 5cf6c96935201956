//! A client's connection as requests are read from it and answers written to it, one after the other.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::rt::Write;

use super::errand::Express;
use super::query::Written;
use super::request::{self, Parsed, Request};
use crate::buffers;
use crate::client_io::ClientIo;
use crate::connection::{Connection, Pause};
use crate::proofs;
use crate::worker::Worker;

/// One client's connection.
pub(super) struct Lane {
    pub(super) worker: Rc<Worker>,
    pub(super) connection: Rc<Connection>,
    pub(super) io: ClientIo,
    /// What was read and not looked at.
    ahead: Vec<u8>,
}

/// What comes next on a connection.
pub(super) enum Next {
    /// A request, and the bytes it was read from.
    Request(Express<Written>, Box<[u8]>),
    /// Something for hyper; it is in front again.
    Foreign,
    /// Nothing.
    End,
}

impl Lane {
    pub(super) fn new(worker: Rc<Worker>, connection: Rc<Connection>, mut io: ClientIo) -> Self {
        let ahead = io.given_back();
        Self { worker, connection, io, ahead }
    }

    /// Waits for the next request.
    pub(super) async fn next(&mut self) -> Next {
        let mut bytes = std::mem::take(&mut self.ahead);
        loop {
            if !bytes.is_empty() {
                match self.look(&bytes) {
                    Look::Partial if bytes.len() < buffers::SIZE => self.connection.marks.bytes_came(),
                    Look::Partial | Look::Foreign => {
                        self.io.give_back(bytes);
                        return Next::Foreign;
                    }
                    Look::Request(errand, length) => {
                        let read = bytes[..length].into();
                        self.ahead = bytes[length..].to_vec();
                        self.worker.buffers.give(bytes);
                        return Next::Request(errand, read);
                    }
                }
            }
            let pause = if bytes.is_empty() { Pause::Between } else { Pause::Within };
            self.connection.pause.set(pause);
            let filled = poll_fn(|cx| self.poll_fill(cx, &mut bytes)).await;
            self.connection.pause.set(Pause::Within);
            if !matches!(filled, Ok(1..)) {
                self.worker.buffers.give(bytes);
                return Next::End;
            }
        }
    }

    /// Reads more; a buffer is had only while there is something in it.
    fn poll_fill(&mut self, cx: &mut Context<'_>, bytes: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        if self.io.has_nothing(cx) {
            return Poll::Pending;
        }
        if bytes.capacity() < buffers::SIZE {
            let mut larger = self.worker.buffers.take();
            larger.extend_from_slice(bytes);
            *bytes = larger;
        }
        let filled = self.io.poll_fill(cx, bytes);
        if filled.is_pending() && bytes.is_empty() {
            self.worker.buffers.give(std::mem::take(bytes));
        }
        filled
    }

    fn look(&self, bytes: &[u8]) -> Look {
        let mut room = [MaybeUninit::uninit(); request::FIELDS];
        match request::parse(bytes, &mut room, self.connection.peer().word()) {
            Parsed::Partial => Look::Partial,
            Parsed::Whole(request) if self.takes(&request) => {
                let (head, body) = request.length;
                let sent = &bytes[head..head + body];
                let errand = Express::new(&request, sent, &self.connection, &self.worker.random);
                errand.map_or(Look::Foreign, |errand| Look::Request(errand, head + body))
            }
            Parsed::Whole(_) | Parsed::Foreign => Look::Foreign,
        }
    }

    fn takes(&self, request: &Request<'_, '_>) -> bool {
        request.count() <= self.worker.limits.header_count && !request.target.starts_with(proofs::PLACE)
    }

    /// Gives a request back to be carried by hyper.
    pub(super) fn give_back(&mut self, read: &[u8]) {
        self.io.give_back([read, &self.ahead].concat());
        self.ahead = Vec::new();
    }

    /// Whether the client has left while it waits for an answer; what it sends meanwhile is kept.
    pub(super) fn is_left(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.ahead.is_empty() {
            return false;
        }
        let mut bytes = Vec::new();
        match self.poll_fill(cx, &mut bytes) {
            Poll::Pending => false,
            Poll::Ready(Ok(1..)) => {
                self.ahead = bytes;
                false
            }
            Poll::Ready(Ok(0) | Err(_)) => true,
        }
    }

    /// Writes all of `bytes`.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut written = 0;
        poll_fn(|cx| {
            while written < bytes.len() {
                match ready!(Pin::new(&mut self.io).poll_write(cx, &bytes[written..]))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    length => written += length,
                }
            }
            Pin::new(&mut self.io).poll_flush(cx)
        })
        .await
    }

    /// Tells the client that nothing more comes.
    pub(super) async fn close(&mut self) {
        // If it fails there is nobody to be told.
        let _ = poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await;
    }
}

enum Look {
    Partial,
    Foreign,
    Request(Express<Written>, usize),
}
