//! Bytes that descriptors travel with.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
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

/// Receives some bytes, and the descriptors that came with them.
pub(crate) fn receive(
    socket: impl AsFd,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(received.bytes)
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
        assert_eq!(receive(&b, &mut buffer, &mut arrived).unwrap(), 5);
        assert_eq!((&buffer[..5], arrived.len()), (&b"hello"[..], MOST_DESCRIPTORS));
    }
}
