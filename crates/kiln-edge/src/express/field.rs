//! Which of the header fields that matter to the edge a field is, found without a table or a copy.

use crate::hygiene::is_about_origin;

/// What a field is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    /// One connection, in some other way.
    HopByHop,
    /// Where a request came from.
    Forwarded,
    RequestId,
    TraceParent,
    TraceState,
    Expect,
    Date,
    ContentType,
    /// The ends.
    Other,
}

/// The kind of the field with this name, in whatever case it is written.
pub(super) fn kind(name: &str) -> Kind {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    match name.len() {
        2 if is("te") => Kind::HopByHop,
        4 if is("host") => Kind::Host,
        4 if is("date") => Kind::Date,
        6 if is("expect") => Kind::Expect,
        7 if is("upgrade") => Kind::HopByHop,
        10 if is("connection") => Kind::Connection,
        10 if is("keep-alive") => Kind::HopByHop,
        10 if is("tracestate") => Kind::TraceState,
        11 if is("traceparent") => Kind::TraceParent,
        12 if is("content-type") => Kind::ContentType,
        12 if is("x-request-id") => Kind::RequestId,
        14 if is("content-length") => Kind::ContentLength,
        14 if is("http2-settings") => Kind::HopByHop,
        16 if is("proxy-connection") => Kind::HopByHop,
        17 if is("transfer-encoding") => Kind::TransferEncoding,
        18 if is("proxy-authenticate") => Kind::HopByHop,
        19 if is("proxy-authorization") => Kind::HopByHop,
        9.. if is_about_origin(name) => Kind::Forwarded,
        _ => Kind::Other,
    }
}

/// A length as it must be written: digits, and no more of them than a number of 64 bits surely holds.
pub(super) fn length(value: &[u8]) -> Option<u64> {
    let is_one = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    if is_one { std::str::from_utf8(value).ok()?.parse().ok() } else { None }
}

/// The length that an answer says, in a list perhaps, of which all elements are the same (RFC 9112, 6.3).
pub(super) fn length_of_answer(value: &[u8]) -> Option<u64> {
    length(value).or_else(|| {
        let mut all = value.split(|byte| *byte == b',').map(|one| length(one.trim_ascii()));
        let first = all.next()??;
        all.all(|other| other == Some(first)).then_some(first)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hygiene::HOP_BY_HOP;

    #[test]
    fn what_does_not_cross_elsewhere_does_not_cross_here() {
        for name in HOP_BY_HOP {
            let kind = kind(&name.as_str().to_ascii_uppercase());
            let is_known = matches!(kind, Kind::HopByHop | Kind::Connection | Kind::TransferEncoding);
            assert!(is_known, "{name}");
        }
        assert_eq!(kind("x-hop"), Kind::Other);
        for name in ["Forwarded", "X-Forwarded-For", "x-real-ip", "x_forwarded_proto", "X-Forwarded-User"] {
            assert_eq!(kind(name), Kind::Forwarded, "{name}");
        }
    }

    #[test]
    fn a_list_of_lengths_is_one_if_all_are_the_same() {
        for (list, length) in
            [("4", Some(4)), ("4, 4", Some(4)), ("4,04 ,4", Some(4)), ("4, 5", None), ("4,", None)]
        {
            assert_eq!(length_of_answer(list.as_bytes()), length, "{list}");
        }
    }

    #[test]
    fn a_length_is_digits() {
        assert_eq!(length(b"0"), Some(0));
        assert_eq!(length(b"0012"), Some(12));
        for wrong in ["", "+1", "-1", "1 ", "0x1", "1,1", "9999999999999999999"] {
            assert_eq!(length(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
