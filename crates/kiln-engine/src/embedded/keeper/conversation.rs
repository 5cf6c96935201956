//! One connection, as the keeper has it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

use super::super::wire::{Frame, Inbox, Received, Reply, Request, receive, send};
use super::door::Rights;

/// Somebody who asks one thing after the other.
#[derive(Debug)]
pub(super) struct Conversation {
    socket: OwnedFd,
    pub(super) rights: Rights,
    inbox: Inbox,
    /// What came with the request that is arriving, or being worked on.
    descriptors: Vec<OwnedFd>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The next request has not come yet.
    Listening,
    /// A request is being worked on. Until it is answered nothing more is read: who does not take answers cannot
    /// make the keeper hoard them.
    Working,
    /// The answer is on its way.
    Replying { bytes: Vec<u8>, sent: usize, descriptors: Vec<OwnedFd> },
}

/// How many descriptors come with a request at most.
const STREAMS: usize = 3;

/// What one look at a connection reads at most.
const ONE_TURN: usize = 64 << 10;

impl Conversation {
    pub(super) fn new(socket: OwnedFd, rights: Rights) -> Self {
        Self { socket, rights, inbox: Inbox::default(), descriptors: Vec::new(), state: State::Listening }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What has to happen on the socket for the conversation to go on.
    pub(super) fn wants(&self) -> EventFlags {
        match self.state {
            State::Listening => EventFlags::IN,
            State::Working => EventFlags::empty(),
            State::Replying { .. } => EventFlags::OUT,
        }
    }

    /// Goes on as far as possible without waiting. A request is to be answered with [`Conversation::reply`].
    ///
    /// # Errors
    /// If the conversation is over, for whatever reason.
    pub(super) fn proceed(&mut self) -> io::Result<Option<Request>> {
        match self.state {
            // Only its end is waited for in this state.
            State::Working => return Err(io::ErrorKind::ConnectionReset.into()),
            State::Replying { .. } => self.flush()?,
            State::Listening => self.receive()?,
        }
        self.next_request()
    }

    /// A request that has arrived whole, if it is time for one.
    pub(super) fn next_request(&mut self) -> io::Result<Option<Request>> {
        if !matches!(self.state, State::Listening) {
            return Ok(None);
        }
        let request = self.inbox.next()?;
        if request.is_some() {
            self.state = State::Working;
        }
        Ok(request)
    }

    /// What came with the request that is being worked on.
    pub(super) fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.descriptors)
    }

    /// Answers the request that is being worked on.
    pub(super) fn reply(&mut self, reply: &Reply, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        self.descriptors.clear();
        let bytes = Frame::of(reply)?.0;
        self.state = State::Replying { bytes, sent: 0, descriptors };
        self.flush()
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut buffer = [0; ONE_TURN];
        let received = receive(&self.socket, &mut buffer, &mut self.descriptors);
        // No request comes with more than its standard streams, and nobody makes the keeper hold anything else.
        self.descriptors.truncate(if self.rights == Rights::Control { STREAMS } else { 0 });
        match received {
            Ok(Received { bytes: 0, .. }) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Received { bytes, .. }) => {
                self.inbox.take(&buffer[..bytes]);
                Ok(())
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let State::Replying { bytes, sent, descriptors } = &mut self.state else { return Ok(()) };
        while *sent < bytes.len() {
            match send(&self.socket, &bytes[*sent..], descriptors) {
                Ok(more) => {
                    *sent += more;
                    descriptors.clear();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
        self.state = State::Listening;
        Ok(())
    }
}
