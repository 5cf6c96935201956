//! Which header fields cross the edge (RFC 9110, 7.6.1): those about one connection do not.

use hyper::HeaderMap;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
/// The id of a request, for finding it again in logs.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What is about one connection, whatever it says.
pub(crate) const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HTTP2_SETTINGS,
];

/// Removes what concerns only the connection the message came over, and what `Connection` names beside that; which that is,
/// for it may follow behind the body as well.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) -> Vec<HeaderName> {
    let named = if headers.contains_key(CONNECTION) { named_by_connection(headers) } else { Vec::new() };
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    named
}

/// Leaves of an answer's lengths what is true for whoever it is passed on to. One beside a transfer coding goes: the coding
/// overrides it and goes no further, and the length would be all there is to believe (RFC 9112, 6.3). One that is said
/// several times, in a list or in fields of their own (RFC 9110, 8.6), is said once: that it is the same each time whoever has
/// framed the answer has seen to.
pub(crate) fn settle_length(headers: &mut HeaderMap) {
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
        return;
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let (first, second) = (lengths.next(), lengths.next());
    let Some(first) = first.filter(|first| second.is_some() || first.as_bytes().contains(&b',')) else {
        return;
    };
    if let Ok(one) = HeaderValue::from_bytes(first_of_list(first.as_bytes())) {
        headers.insert(CONTENT_LENGTH, one);
    }
}

/// The first element of a list.
pub(crate) fn first_of_list(list: &[u8]) -> &[u8] {
    list.split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii()
}

/// The fields `Connection` says are about the connection; those that frame or address the message never are.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter().map(HeaderValue::as_bytes);
    // Bytes that are no text spoil the name they stand in, and no other.
    let names = values.flat_map(|value| value.split(|byte| *byte == b','));
    let names = names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
    names.filter(|n| *n != HOST && *n != CONTENT_LENGTH).collect()
}

/// The protocol a message asks to go over to, if it does so properly. Never HTTP/2: what came over such a tunnel would
/// reach the instance past routes, limits and log (RFC 9113 has given that way up, 3.1).
pub(crate) fn upgrade_asked(headers: &HeaderMap) -> Option<HeaderValue> {
    let asks = named_by_connection(headers).contains(&UPGRADE);
    let is_http_2 = |token: &[u8]| token.trim_ascii().eq_ignore_ascii_case(b"h2c");
    let is_other = |value: &&HeaderValue| !value.as_bytes().split(|byte| *byte == b',').any(is_http_2);
    headers.get(UPGRADE).filter(|_| asks).filter(is_other).cloned()
}

/// Whether a body is in no other coding than the one that is taken apart and made anew (RFC 9112, 6.1).
pub(crate) fn is_plainly_coded(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_known = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    codings.next().is_none_or(is_known) && codings.next().is_none()
}

/// Whether a field of this name says where a request came from, or who sent it: only from somebody trusted it is worth
/// anything. Programs that get fields as variables know no difference between `-` and `_`.
pub(crate) fn is_about_origin(name: &str) -> bool {
    let begins = |beginning: &str| {
        name.len() >= beginning.len()
            && name.bytes().zip(beginning.bytes()).all(|(byte, other)| {
                let byte = if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
                byte == other
            })
    };
    begins("x-forwarded-") || (name.len() == 9 && (begins("x-real-ip") || begins("forwarded")))
}

/// Asks for (or confirms) an upgrade, after [`strip_hop_by_hop`] has removed it.
pub(crate) fn ask_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Whether the sender of these takes trailers, which gRPC cannot do without.
pub(crate) fn takes_trailers(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(TE).iter().map(HeaderValue::as_bytes);
    let mut codings = lines.flat_map(|line| line.split(|byte| *byte == b','));
    codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// HTTP/2 may spread cookies over several fields; HTTP/1.1 knows only one (RFC 9113, 8.2.3).
pub(crate) fn gather_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(COOKIE, whole);
    }
}

/// The request's id, as the client gave it (if it is fit to be logged), else a new one; it alone is in `headers` then.
pub(crate) fn request_id(headers: &mut HeaderMap, new: impl FnOnce() -> String) -> HeaderValue {
    let given = given_id(headers);
    if let Some(given) = &given
        && headers.get_all(REQUEST_ID).iter().nth(1).is_none()
    {
        return given.clone();
    }
    let id = given.unwrap_or_else(|| id(new().as_bytes()));
    headers.insert(REQUEST_ID, id.clone());
    id
}

/// The id that the client gave a request, if it is fit to be logged.
pub(crate) fn given_id(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(REQUEST_ID).filter(|v| is_fit(v.as_bytes())).cloned()
}

/// An id as a field says it. None is like another: what compresses fields is not to remember them.
pub(crate) fn id(text: &[u8]) -> HeaderValue {
    let mut id = HeaderValue::from_bytes(text).unwrap_or(HeaderValue::from_static("-"));
    id.set_sensitive(true);
    id
}

/// Whether what a client calls its request is fit to be logged.
pub(crate) fn is_fit(id: &[u8]) -> bool {
    (1..=128).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

/// Whether this is a host, with its port if it has one (RFC 9110, 7.2).
pub(crate) fn is_host(text: &[u8]) -> bool {
    let behind_name = match text.first() {
        Some(b'[') => text.iter().position(|byte| *byte == b']').map(|end| &text[end + 1..]),
        _ => Some(
            text.iter().position(|byte| *byte == b':').map_or(&text[text.len()..], |colon| &text[colon..]),
        ),
    };
    let is_port = |port: &[u8]| {
        let digits = port.iter().all(u8::is_ascii_digit);
        digits && port.iter().fold(0u64, |n, digit| (n * 10 + u64::from(digit - b'0')).min(1 << 32)) <= 65535
    };
    let has_port = |rest: &[u8]| rest.is_empty() || rest.strip_prefix(b":").is_some_and(is_port);
    text.iter().all(is_of_a_host) && behind_name.is_some_and(has_port)
}

/// Whether a byte may stand in a host and its port.
pub(crate) fn is_of_a_host(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connection_names_goes_whatever_else_stands_there() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("connection", "x-a, x\u{e9}, X-B , ,host"), ("x-a", "1"), ("x-b", "1"), ("host", "a")]
        {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let named = strip_hop_by_hop(&mut headers);
        assert_eq!(named, ["x-a", "x-b"]);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["host"]);
        headers.insert(TE, HeaderValue::from_bytes(b"\xff, Trailers").unwrap());
        assert!(takes_trailers(&headers));
    }

    #[test]
    fn a_host_has_one_port_and_that_is_a_number() {
        for host in ["a", "a.b:80", "a:", "127.0.0.1:65535", "[::1]", "[::1]:8080", "a:00080", "_x"] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for none in [
            "a:b",
            "a:65536",
            "a:-1",
            "a:80:80",
            "::1",
            "[::1",
            "[::1]80",
            "a b",
            "u@a",
            "a:99999999999999999999",
        ] {
            assert!(!is_host(none.as_bytes()), "{none}");
        }
    }

    #[test]
    fn what_is_about_the_origin_is_known_however_it_is_written() {
        for name in ["x-forwarded-for", "X-Forwarded-User", "x_forwarded_proto", "X-Real_IP", "Forwarded"] {
            assert!(is_about_origin(name), "{name}");
        }
        for name in ["x-forwarded", "x-real-ip-2", "x-request-id", "forward", "x", ""] {
            assert!(!is_about_origin(name), "{name}");
        }
    }
}
