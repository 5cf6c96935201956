//! What is said on the edge's control socket: one request and one reply per connection, each a length (4 bytes,
//! little endian) and that many bytes of JSON.

use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use kiln_model::{EdgeCounts, FleetEvidence, FleetId, Millis, RouteTable};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::certificate::Certificate;
use crate::passing;
use crate::proofs::Proof;
use crate::terse::Terse;

/// No table that a host can hold comes near.
pub(crate) const LONGEST: usize = 256 * 1024 * 1024;

/// What the edge can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(crate) enum Request<'a> {
    /// Serve by this table; answered when every thread does.
    TakeTable {
        #[serde(borrow)]
        terse: Terse<'a>,
    },
    /// The same, as edges understood it before there was [`Terse`]. A host may have one of those that is leaving, or
    /// be run by an older control plane than this edge.
    SetTable { table: Cow<'a, RouteTable> },
    /// Show these to clients of HTTPS from now on.
    SetCertificates { certificates: Vec<Certificate> },
    /// Show these to an authority that looks, and no others.
    SetProofs { proofs: Vec<Proof> },
    /// What is in flight.
    Counts,
    /// What was seen of these fleets while two releases served.
    Evidence { fleets: Vec<FleetId> },
    /// What is in flight, when it is nothing at any of these, or after the timeout.
    WaitDrained { fleets: Vec<FleetId>, timeout: Millis },
    /// Listen there as well; the sockets come with it, in this order.
    Listen { doors: Vec<String> },
    /// Close these doors.
    Deafen { doors: Vec<String> },
    /// Say what this edge is and give away its listening sockets: a successor is to have them.
    HandOver,
    /// Take no new connections, see those there are to their end, or until the grace is over, and end. Answered at
    /// once.
    Leave { grace: Millis },
    /// Go on with the access log in the file that comes with it.
    TakeLog,
    /// All figures, for Prometheus.
    Metrics,
    /// Figures of the edge as a whole.
    Stats,
    /// End, when nothing is in flight or after the grace.
    Shutdown { grace: Millis },
}

/// How a request for another table begins, as [`encode`] writes it.
const TAKES_TABLE: &[u8] = br#"{"ask":"take_table","#;

impl<'a> Request<'a> {
    /// What was asked. A table of ten thousand routes is read as it stands: an enum whose variant is told by a field is
    /// kept in pieces until that field is found, which takes twice the time.
    pub(crate) fn decode(bytes: &'a [u8]) -> io::Result<Self> {
        #[derive(Deserialize)]
        struct TakeTable<'a> {
            #[serde(borrow)]
            terse: Terse<'a>,
        }
        if bytes.starts_with(TAKES_TABLE) {
            let TakeTable { terse } = serde_json::from_slice(bytes)?;
            return Ok(Self::TakeTable { terse });
        }
        Ok(serde_json::from_slice(bytes)?)
    }
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub(crate) enum Reply {
    /// To everything about fleets.
    Counts { counts: EdgeCounts },
    /// To `stats`, and to `shutdown` at the end of draining.
    Stats { stats: EdgeStats },
    /// To `evidence`: one entry for each of the fleets that is known, and which process counted.
    Evidence { pid: u32, evidence: Vec<FleetEvidence> },
    /// To what needs no words.
    Done,
    /// To `metrics`.
    Text { text: String },
    /// To `hand_over`; the sockets come with it.
    Estate { estate: Estate },
    /// The table is not newer than the one in force.
    Stale { in_force: u64 },
    /// Not done.
    Refused { why: String },
}

/// What an edge leaves to its successor, beside its listening sockets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Estate {
    /// What its listening sockets are, in their order.
    pub(crate) doors: Vec<String>,
    /// What it was started as.
    pub(crate) identity: String,
    /// Its process.
    pub(crate) pid: u32,
    /// Whether it has a table that serves anybody.
    pub(crate) table: Option<RouteTable>,
    pub(crate) certificates: Vec<Certificate>,
}

/// Figures of the edge as a whole, since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EdgeStats {
    /// Requests begun, those included that no fleet saw.
    pub requests: u64,
    /// Of these, answered by the edge itself with 502, 503 or 504, or cut short by an instance.
    pub failed: u64,
    /// Begun and not ended.
    pub in_flight: u64,
    /// Client connections, tunnels included.
    pub connections: u64,
}

pub(crate) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"));
    }
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

/// The length that a frame's first bytes announce.
pub(crate) fn announced(prefix: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(prefix) as usize;
    if length > LONGEST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message of that length is not one of ours",
        ));
    }
    Ok(length)
}

/// Says `request` on a blocking stream, with `fds`, and reads what is answered, and the descriptors that come along.
pub(crate) fn ask<T: DeserializeOwned>(
    stream: &mut UnixStream,
    request: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> io::Result<(T, Vec<OwnedFd>)> {
    let frame = encode(request)?;
    let sent = passing::send(&*stream, &frame, fds)?;
    stream.write_all(&frame[sent..])?;
    let (mut prefix, mut received) = ([0; 4], Vec::new());
    let mut have = 0;
    while have < prefix.len() {
        match passing::receive(&*stream, &mut prefix[have..], &mut received)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => have += length,
        }
    }
    let mut body = vec![0; announced(prefix)?];
    stream.read_exact(&mut body)?;
    Ok((serde_json::from_slice(&body)?, received))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_in_any_order_and_in_the_way_it_is_written_in_place() {
        let table = RouteTable { version: 7, ..RouteTable::default() };
        let request = Request::TakeTable { terse: Terse::of(&table) };
        let frame = encode(&request).unwrap();
        assert!(frame[4..].starts_with(TAKES_TABLE), "{}", String::from_utf8_lossy(&frame));
        let terse = serde_json::to_string(&Terse::of(&table)).unwrap();
        let turned = format!("{{\"terse\":{terse},\"ask\":\"take_table\"}}");
        for bytes in [&frame[4..], turned.as_bytes()] {
            assert_eq!(Request::decode(bytes).unwrap(), request);
        }
        assert_eq!(Request::decode(br#"{"ask":"counts"}"#).unwrap(), Request::Counts);
        let older = Request::SetTable { table: Cow::Borrowed(&table) };
        assert_eq!(Request::decode(&encode(&older).unwrap()[4..]).unwrap(), older);
        for wrong in
            [&br#"{"ask":"take_table","ters":{}}"#[..], br#"{"ask":"take_table","#, br#"{"ask":"no"}"#, b""]
        {
            Request::decode(wrong).unwrap_err();
        }
    }
}
