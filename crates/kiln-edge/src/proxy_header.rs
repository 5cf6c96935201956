//! The PROXY protocol, versions 1 and 2: what a load balancer in front of the edge says about a connection before
//! the first byte of it. Only read from peers whose word is taken.
//!
//! ```text
//! 1: PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n      at most 107 bytes; PROXY UNKNOWN …\r\n says nothing
//! 2: 0d 0a 0d 0a 00 0d 0a 51 55 49 54 0a | 2:version 2 + command | family | length, big endian | addresses | more
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const LONGEST_V1: usize = 107;
/// More extra fields than this nobody sends.
const LONGEST_V2: usize = 4096;

/// The most bytes that have to be seen to tell what [`parse`] makes of them.
pub const ENOUGH: usize = 16 + LONGEST_V2;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// Too few to tell.
    Partial,
    /// A header of so many bytes, and who asks.
    Complete(usize, Source),
    /// No such header, or a malformed one.
    Malformed,
}

/// For whom a peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// For a client at that address.
    Client(SocketAddr),
    /// For a client of whom it has no address.
    Unknown,
    /// For itself: about its own health, for instance.
    Peer,
}

/// Reads the header at the beginning of `bytes`.
pub fn parse(bytes: &[u8]) -> ProxyHeader {
    let begins = |whole: &[u8]| bytes.len() < whole.len() && whole.starts_with(bytes);
    if bytes.starts_with(SIGNATURE) {
        version_2(bytes)
    } else if bytes.starts_with(b"PROXY ") {
        version_1(bytes)
    } else if begins(SIGNATURE) || begins(b"PROXY ") {
        ProxyHeader::Partial
    } else {
        ProxyHeader::Malformed
    }
}

fn version_1(bytes: &[u8]) -> ProxyHeader {
    let seen = &bytes[..bytes.len().min(LONGEST_V1)];
    let Some(end) = seen.windows(2).position(|w| w == b"\r\n") else {
        return if bytes.len() < LONGEST_V1 { ProxyHeader::Partial } else { ProxyHeader::Malformed };
    };
    let Ok(line) = std::str::from_utf8(&seen[..end]) else { return ProxyHeader::Malformed };
    let words: Vec<&str> = line.split(' ').collect();
    let client = match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => return ProxyHeader::Complete(end + 2, Source::Unknown),
        ["PROXY", "TCP4", from, to, port, to_port] => client::<Ipv4Addr>(from, to, port, to_port),
        ["PROXY", "TCP6", from, to, port, to_port] => client::<Ipv6Addr>(from, to, port, to_port),
        _ => return ProxyHeader::Malformed,
    };
    client.map_or(ProxyHeader::Malformed, |client| ProxyHeader::Complete(end + 2, Source::Client(client)))
}

fn client<A: std::str::FromStr + Into<IpAddr>>(
    from: &str,
    to: &str,
    port: &str,
    to_port: &str,
) -> Option<SocketAddr> {
    let (from, _) = (from.parse::<A>().ok()?, to.parse::<A>().ok()?);
    let (port, _) = (port.parse().ok()?, to_port.parse::<u16>().ok()?);
    Some(SocketAddr::new(from.into(), port))
}

fn version_2(bytes: &[u8]) -> ProxyHeader {
    let Some(&[command, family, high, low]) = bytes.get(12..16) else { return ProxyHeader::Partial };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if command >> 4 != 2 || length > LONGEST_V2 {
        return ProxyHeader::Malformed;
    }
    let Some(body) = bytes.get(16..16 + length) else { return ProxyHeader::Partial };
    let whole = |source| ProxyHeader::Complete(16 + length, source);
    let client = |client| whole(Source::Client(client));
    match (command & 0x0f, family) {
        // LOCAL.
        (0, _) => whole(Source::Peer),
        (1, 0x11) if length >= 12 => {
            let ip = Ipv4Addr::new(body[0], body[1], body[2], body[3]);
            client(SocketAddr::from((ip, u16::from_be_bytes([body[8], body[9]]))))
        }
        (1, 0x21) if length >= 36 => {
            let mut ip = [0; 16];
            ip.copy_from_slice(&body[..16]);
            client(SocketAddr::from((ip, u16::from_be_bytes([body[32], body[33]]))))
        }
        (1, 0x11 | 0x21) => ProxyHeader::Malformed,
        // Of a kind that has no address for us.
        (1, _) => whole(Source::Unknown),
        _ => ProxyHeader::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spoilt::Numbers;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0x20 | command, family]);
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn both_versions_name_the_client() {
        let client = Source::Client("192.0.2.1:56324".parse().unwrap());
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nGET /";
        assert_eq!(parse(line), ProxyHeader::Complete(line.len() - 5, client));
        let line = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n";
        let other = Source::Client("[2001:db8::1]:1".parse().unwrap());
        assert_eq!(parse(line), ProxyHeader::Complete(line.len(), other));
        let bytes = v2(1, 0x11, &[192, 0, 2, 1, 198, 51, 100, 1, 220, 4, 1, 187, 9, 9]);
        assert_eq!(parse(&bytes), ProxyHeader::Complete(bytes.len(), client));
    }

    #[test]
    fn who_speaks_for_itself_is_told_from_who_does_not_know_the_client() {
        assert_eq!(parse(&v2(0, 0, &[])), ProxyHeader::Complete(16, Source::Peer));
        assert_eq!(parse(&v2(0, 0x11, &[1; 12])), ProxyHeader::Complete(28, Source::Peer));
        let unknown = |length| ProxyHeader::Complete(length, Source::Unknown);
        assert_eq!(parse(b"PROXY UNKNOWN what ever\r\n"), unknown(25));
        // Unspecified, over UDP, over a socket of Unix.
        for family in [0, 0x12, 0x22, 0x31] {
            assert_eq!(parse(&v2(1, family, &[1; 36])), unknown(52), "{family:x}");
        }
    }

    #[test]
    fn every_beginning_of_a_header_is_partial() {
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".to_vec();
        for whole in [line, v2(1, 0x21, &[1; 40])] {
            assert!((0..whole.len()).all(|n| parse(&whole[..n]) == ProxyHeader::Partial));
            assert!(matches!(parse(&whole), ProxyHeader::Complete(n, Source::Client(_)) if n == whole.len()));
        }
    }

    #[test]
    fn what_is_no_header_is_malformed() {
        let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        for bytes in [
            b"GET / HTTP/1.1\r\n".as_slice(),
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n",
            b"PROXY TCP4 ::1 ::2 1 2\r\n",
            b"PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
            &long,
            &v2(1, 0x11, &[1; 11]),
            &v2(2, 0x11, &[1; 12]),
            &v2(1, 0x11, &[0; LONGEST_V2 + 1]),
        ] {
            assert_eq!(parse(bytes), ProxyHeader::Malformed, "{bytes:?}");
        }
    }

    /// A few thousand mutations of headers: no panic, and never more bytes claimed than there are.
    #[test]
    fn mutated_headers_are_survived() {
        let seeds = [b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".to_vec(), v2(1, 0x21, &[7; 40])];
        let mut numbers = Numbers::from(1);
        for n in 0..20_000usize {
            let bytes = numbers.spoil(&seeds[n % 2], 3, Numbers::byte);
            if let ProxyHeader::Complete(length, _) = parse(&bytes) {
                assert!(length <= bytes.len() && length <= ENOUGH);
            }
        }
    }
}
