//! Just enough of the websocket protocol (RFC 6455) to say goodbye between two messages instead of within one.

/// Where a stream of frames stands. Fed with all bytes of one direction, in whatever pieces they come.
#[derive(Debug, Clone, Default)]
pub struct Frames {
    /// The beginning of a frame whose header is not complete.
    header: [u8; 14],
    held: usize,
    /// Bytes of the current frame's payload still to come.
    payload: u64,
    closed: bool,
}

/// "Going away" (1001), to a client.
pub(crate) const GOODBYE_TO_CLIENT: [u8; 4] = [0x88, 0x02, 0x03, 0xe9];
/// The same to a server, for which it must be masked; a mask of zeros hides nothing and is one.
pub(crate) const GOODBYE_TO_SERVER: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];

impl Frames {
    /// Follows these bytes.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let here = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
                self.payload -= here as u64;
                bytes = &bytes[here..];
                continue;
            }
            self.header[self.held] = bytes[0];
            self.held += 1;
            bytes = &bytes[1..];
            if self.held == self.header_length() {
                self.begin_payload();
            }
        }
    }

    /// Whether the next byte begins a frame.
    pub fn is_between(&self) -> bool {
        self.held == 0 && self.payload == 0
    }

    /// Whether a close frame has gone by: nothing may follow it.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    fn header_length(&self) -> usize {
        if self.held < 2 {
            return 2;
        }
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        let length = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + mask
    }

    fn begin_payload(&mut self) {
        let long =
            |n: usize| self.header[2..2 + n].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        self.payload = match self.header[1] & 0x7f {
            126 => long(2),
            127 => long(8),
            short => u64::from(short),
        };
        self.closed |= self.header[0] & 0x0f == 0x08;
        self.held = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spoilt::Numbers;

    /// Frames of all three lengths, masked and not, then a close.
    fn stream() -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends) = (vec![], vec![0]);
        for (length, mask) in
            [(0usize, false), (5, true), (125, false), (126, true), (300, false), (70_000, true)]
        {
            let bit = if mask { 0x80 } else { 0 };
            match length {
                0..=125 => bytes.extend([0x82, bit | length as u8]),
                126..=65_535 => {
                    bytes.extend([0x82, bit | 126]);
                    bytes.extend((length as u16).to_be_bytes());
                }
                _ => {
                    bytes.extend([0x82, bit | 127]);
                    bytes.extend((length as u64).to_be_bytes());
                }
            }
            bytes.extend(vec![7; length + if mask { 4 } else { 0 }]);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn the_ends_of_frames_are_found_in_any_pieces() {
        let (bytes, ends) = stream();
        for piece in [1, 2, 3, 7, 1000, bytes.len()] {
            let mut frames = Frames::default();
            let mut at = 0;
            for chunk in bytes.chunks(piece) {
                frames.pass(chunk);
                at += chunk.len();
                assert_eq!(frames.is_between(), ends.contains(&at), "in pieces of {piece}, after {at} bytes");
            }
            assert!(!frames.is_closed());
            frames.pass(&GOODBYE_TO_CLIENT);
            assert!(frames.is_closed() && frames.is_between());
        }
    }

    #[test]
    fn the_goodbyes_are_whole_frames() {
        let mut frames = Frames::default();
        frames.pass(&GOODBYE_TO_SERVER);
        assert!(frames.is_closed() && frames.is_between());
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut numbers = Numbers::from(9);
        for _ in 0..3_000 {
            let mut frames = Frames::default();
            for _ in 0..40 {
                let bytes = [(); 8].map(|()| numbers.byte());
                frames.pass(&bytes[..numbers.below(8)]);
            }
        }
    }
}
