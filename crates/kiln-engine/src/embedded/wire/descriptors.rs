//! Bytes that descriptors travel with.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// How many travel with one frame at most: more bring no speed, and the kernel stops at 253.
pub(crate) const MOST_DESCRIPTORS: usize = 64;

/// Sends some of `bytes`; the descriptors, of which there are at most [`MOST_DESCRIPTORS`], arrive with the first.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[OwnedFd]) -> rustix::io::Result<usize> {
    let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(rustix::io::Errno::TOOBIG);
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
}

/// What has been received.
pub(crate) struct Received {
    pub(crate) bytes: usize,
    /// Whether descriptors that came with them did not arrive: this process may have no more, or they were too many.
    pub(crate) is_short: bool,
}

/// Receives some bytes, and the descriptors that came with them.
pub(crate) fn receive(
    socket: impl AsFd,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(Received { bytes: received.bytes, is_short: received.flags.contains(ReturnFlags::CTRUNC) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn as_many_as_allowed_arrive() {
        let (a, b) = UnixStream::pair().unwrap();
        let sent: Vec<OwnedFd> = (0..MOST_DESCRIPTORS).map(|_| a.try_clone().unwrap().into()).collect();
        assert_eq!(send(&a, b"hello", &sent).unwrap(), 5);
        let (mut buffer, mut arrived) = ([0; 16], Vec::new());
        let received = receive(&b, &mut buffer, &mut arrived).unwrap();
        assert_eq!((received.bytes, received.is_short), (5, false));
        assert_eq!((&buffer[..5], arrived.len()), (&b"hello"[..], MOST_DESCRIPTORS));
    }

    #[test]
    fn what_does_not_arrive_is_said_to_be_missing() {
        const MORE: usize = MOST_DESCRIPTORS + 10;
        let (a, b) = UnixStream::pair().unwrap();
        let sent = [a.as_fd(); MORE];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MORE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&sent)));
        sendmsg(&a, &[IoSlice::new(b"hello")], &mut control, SendFlags::empty()).unwrap();
        let (mut buffer, mut arrived) = ([0; 16], Vec::new());
        let received = receive(&b, &mut buffer, &mut arrived).unwrap();
        assert!(received.is_short && arrived.len() < MORE);
    }
}
