//! A message as bytes.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroize;

/// The most a frame may hold: a few thousand orders, or the statuses of all instances a host can have.
const MOST: usize = 32 << 20;
const HEAD: usize = 4;

/// A message, encoded.
pub(crate) struct Frame(pub(crate) Vec<u8>);

impl Frame {
    /// Encodes a message.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if it is too long.
    pub(crate) fn of(message: &impl Serialize) -> io::Result<Self> {
        let mut bytes = vec![0; HEAD];
        serde_json::to_writer(&mut bytes, message)?;
        let length = bytes.len() - HEAD;
        if length > MOST {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is longer than a frame"));
        }
        bytes[..HEAD].copy_from_slice(&(length as u32).to_le_bytes());
        Ok(Self(bytes))
    }
}

/// What has been received and not been understood yet.
#[derive(Debug, Default)]
pub(crate) struct Inbox(Vec<u8>);

impl Inbox {
    /// Takes received bytes.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Whether a whole message is there.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if what begins here is longer than any message.
    pub(crate) fn is_complete(&self) -> io::Result<bool> {
        let Some(head) = self.0.first_chunk::<HEAD>() else { return Ok(false) };
        let length = u32::from_le_bytes(*head) as usize;
        if length > MOST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is longer than allowed"));
        }
        Ok(self.0.len() >= HEAD + length)
    }

    /// The next message, if it is there whole.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for anything else than the messages expected.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        if !self.is_complete()? {
            return Ok(None);
        }
        let length = self.0.first_chunk::<HEAD>().map_or(0, |head| u32::from_le_bytes(*head) as usize);
        let message = serde_json::from_slice(&self.0[HEAD..HEAD + length])?;
        // There may have been secrets in it.
        self.0[..HEAD + length].zeroize();
        self.0.drain(..HEAD + length);
        self.0.shrink_to(MOST.min(64 << 10));
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole_however_they_were_cut() {
        let frames = [Frame::of(&"one").unwrap().0, Frame::of(&"two").unwrap().0].concat();
        let (mut inbox, mut messages) = (Inbox::default(), Vec::new());
        for byte in frames {
            inbox.take(&[byte]);
            messages.extend(inbox.next::<String>().unwrap());
        }
        assert_eq!(messages, ["one", "two"]);
    }

    #[test]
    fn what_is_no_message_is_refused_before_it_is_read() {
        let mut inbox = Inbox::default();
        inbox.take(b"GET / HTTP/1.1");
        assert_eq!(inbox.next::<String>().unwrap_err().kind(), io::ErrorKind::InvalidData);
        let mut inbox = Inbox::default();
        inbox.take(&[2, 0, 0, 0, b'{', b'x']);
        assert!(inbox.next::<String>().is_err());
    }
}
