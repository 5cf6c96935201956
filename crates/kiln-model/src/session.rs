//! What goes back and forth while a command runs inside an instance: bytes for its standard streams, and how it ended.
//!
//! ```text
//!   kind (1 byte)   length (4 bytes, little-endian)   that many bytes
//!   0 input         to the command's standard input
//!   1 end of input  nothing
//!   2 size          rows and columns, 2 bytes each, little-endian
//!   16 output       from its standard output (and error, if it has a terminal)
//!   17 errors       from its standard error
//!   18 end          how it ended: an `Exit` as JSON. The last one
//! ```

use serde::{Deserialize, Serialize};

use crate::{Exit, InstanceId, OutputStream};

/// A command somebody wants to run inside an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Which instance.
    pub instance: InstanceId,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The terminal it is to have, if any.
    pub terminal: Option<Terminal>,
}

/// A terminal as its user has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// What it can do, by name: the variable TERM.
    pub kind: String,
    /// How large it is at first.
    pub size: TerminalSize,
}

/// How large a terminal is, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// One piece of what goes back and forth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionPart {
    /// To the command.
    Input(Vec<u8>),
    /// Nothing more will be typed.
    InputEnd,
    /// Its terminal has another size.
    Size(TerminalSize),
    /// From the command.
    Output(OutputStream, Vec<u8>),
    /// How it ended.
    End(Exit),
}

/// Why bytes are no part of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what came is no part of a session with a command")]
pub struct NoSessionPart;

/// The longest part; who has more to say makes more of them.
pub const LONGEST_PART: usize = 64 << 10;
const HEAD: usize = 5;

impl SessionPart {
    /// As it is sent.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, bytes) = match self {
            Self::Input(bytes) => (0, bytes.clone()),
            Self::InputEnd => (1, Vec::new()),
            Self::Size(TerminalSize { rows, columns }) => {
                (2, [rows.to_le_bytes(), columns.to_le_bytes()].concat())
            }
            Self::Output(OutputStream::Stdout, bytes) => (16, bytes.clone()),
            Self::Output(OutputStream::Stderr, bytes) => (17, bytes.clone()),
            Self::End(exit) => (18, serde_json::to_vec(exit).expect("an exit is plain data")),
        };
        let length = u32::try_from(bytes.len()).expect("parts are short").to_le_bytes();
        [&[kind][..], &length, &bytes].concat()
    }

    fn decode(kind: u8, bytes: &[u8]) -> Result<Self, NoSessionPart> {
        match (kind, bytes) {
            (0, _) => Ok(Self::Input(bytes.to_vec())),
            (1, []) => Ok(Self::InputEnd),
            (2, &[a, b, c, d]) => {
                let (rows, columns) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
                Ok(Self::Size(TerminalSize { rows, columns }))
            }
            (16, _) => Ok(Self::Output(OutputStream::Stdout, bytes.to_vec())),
            (17, _) => Ok(Self::Output(OutputStream::Stderr, bytes.to_vec())),
            (18, _) => serde_json::from_slice(bytes).map(Self::End).map_err(|_| NoSessionPart),
            _ => Err(NoSessionPart),
        }
    }
}

/// What has arrived of a session and has not been taken yet.
#[derive(Debug, Default)]
pub struct SessionParts(Vec<u8>);

impl SessionParts {
    /// More has arrived.
    pub fn arrived(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next part, if it is there whole.
    ///
    /// # Errors
    /// If it is none, or longer than any.
    pub fn next_part(&mut self) -> Result<Option<SessionPart>, NoSessionPart> {
        let Some(&[kind, a, b, c, d]) = self.0.first_chunk::<HEAD>() else { return Ok(None) };
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > LONGEST_PART {
            return Err(NoSessionPart);
        }
        let Some(bytes) = self.0.get(HEAD..HEAD + length) else { return Ok(None) };
        let part = SessionPart::decode(kind, bytes)?;
        self.0.drain(..HEAD + length);
        Ok(Some(part))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part() -> impl Strategy<Value = SessionPart> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..300);
        prop_oneof![
            bytes().prop_map(SessionPart::Input),
            Just(SessionPart::InputEnd),
            any::<(u16, u16)>().prop_map(|(rows, columns)| SessionPart::Size(TerminalSize { rows, columns })),
            bytes().prop_map(|b| SessionPart::Output(OutputStream::Stdout, b)),
            bytes().prop_map(|b| SessionPart::Output(OutputStream::Stderr, b)),
            any::<i32>().prop_map(|code| SessionPart::End(Exit::Code { code })),
            ".*".prop_map(|cause| SessionPart::End(Exit::NotStarted { cause })),
        ]
    }

    proptest! {
        #[test]
        fn parts_arrive_whole_however_they_were_cut(
            parts in prop::collection::vec(part(), 0..8), cuts in prop::collection::vec(1usize..64, 1..20),
        ) {
            let bytes: Vec<u8> = parts.iter().flat_map(SessionPart::encode).collect();
            let (mut arriving, mut got, mut rest) = (SessionParts::default(), Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                arriving.arrived(now);
                while let Some(part) = arriving.next_part().unwrap() {
                    got.push(part);
                }
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(got, parts);
        }

        #[test]
        fn nothing_makes_the_parser_panic_or_hoard(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
            let mut arriving = SessionParts::default();
            arriving.arrived(&bytes);
            while let Ok(Some(_)) = arriving.next_part() {}
        }
    }

    #[test]
    fn what_is_longer_than_a_part_is_refused_before_it_has_come() {
        let mut arriving = SessionParts::default();
        arriving.arrived(&[0, 1, 0, 1, 0]);
        assert_eq!(arriving.next_part(), Err(NoSessionPart));
    }
}
