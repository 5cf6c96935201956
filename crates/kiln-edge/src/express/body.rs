//! What has come of the body of an answer, and what is still to come.

use super::answer::Framing;
use super::chunks::{Chunks, Malformed};

/// What a long body is read by.
pub(super) const LARGE: usize = 64 * 1024;

/// A body as it comes, by how its end is known.
pub(super) enum Body {
    Left(u64),
    Chunks(Chunks),
    UntilClose,
}

/// What a piece of a body was.
pub(super) struct Piece {
    /// Bytes of it that were used.
    pub(super) used: usize,
    /// Bytes of data in them.
    pub(super) data: usize,
    pub(super) is_last: bool,
}

impl Body {
    pub(super) fn of(framing: Framing) -> Self {
        match framing {
            Framing::Nothing => Self::Left(0),
            Framing::Length(length) => Self::Left(length),
            Framing::Chunks => Self::Chunks(Chunks::default()),
            Framing::Close => Self::UntilClose,
        }
    }

    /// Gives away the data in `bytes`, none of it empty.
    pub(super) fn take(&mut self, bytes: &[u8], mut give: impl FnMut(&[u8])) -> Result<Piece, Malformed> {
        let (mut used, mut data) = (0, 0);
        while used < bytes.len() && !self.has_ended() {
            let (behind, part) = self.next(&bytes[used..])?;
            used += behind;
            data += part.len();
            if !part.is_empty() {
                give(part);
            }
        }
        Ok(Piece { used, data, is_last: self.has_ended() })
    }

    fn next<'b>(&mut self, bytes: &'b [u8]) -> Result<(usize, &'b [u8]), Malformed> {
        match self {
            Self::Left(left) => {
                let data = &bytes[..usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len())];
                *left -= data.len() as u64;
                Ok((data.len(), data))
            }
            Self::Chunks(chunks) => chunks.next(bytes),
            Self::UntilClose => Ok((bytes.len(), bytes)),
        }
    }

    /// Whether all of it has come, as far as that can be told from its bytes.
    pub(super) fn has_ended(&self) -> bool {
        match self {
            Self::Left(left) => *left == 0,
            Self::Chunks(chunks) => chunks.is_done(),
            Self::UntilClose => false,
        }
    }

    /// How much of it is still to come, if that is known.
    pub(super) fn left(&self) -> Option<u64> {
        match self {
            Self::Left(left) => Some(*left),
            Self::Chunks(_) | Self::UntilClose => None,
        }
    }
}
