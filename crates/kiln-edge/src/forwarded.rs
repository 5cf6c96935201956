//! `Forwarded` (RFC 7239), read from its end.
//!
//! Each proxy appends what it has seen, so what stands in front may be invented by whoever asks. Read from the end, nothing
//! that is wrong there (a quote that is never closed above all) changes what is read of those who came later.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;
use hyper::header::{FORWARDED, HeaderValue};

use crate::trust::Trust;

/// What one proxy says of who asked it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    /// Who asked: an address, or a word for somebody who is not to be known.
    pub node: Option<String>,
    /// How.
    pub proto: Option<String>,
    /// For which host.
    pub host: Option<String>,
}

impl Element {
    fn of(text: &str) -> Self {
        let mut element = Self::default();
        for (name, value) in from_the_end(text, b';').into_iter().filter_map(|pair| pair.split_once('=')) {
            let place = match name.trim().to_ascii_lowercase().as_str() {
                "for" => &mut element.node,
                "proto" => &mut element.proto,
                "host" => &mut element.host,
                _ => continue,
            };
            place.get_or_insert_with(|| unquoted(value.trim()));
        }
        element
    }

    /// The address of who asked, if it says one.
    pub fn address(&self) -> Option<IpAddr> {
        address(self.node.as_deref()?)
    }
}

/// What proxies say, the last one first.
pub(crate) fn elements(headers: &HeaderMap) -> Vec<Element> {
    let lines: Vec<&[u8]> = headers.get_all(FORWARDED).iter().map(HeaderValue::as_bytes).collect();
    lines.into_iter().rev().flat_map(of_line).collect()
}

/// What proxies say in one line, the last one first. What is no text in front takes nothing from what is behind it.
pub fn of_line(line: &[u8]) -> Vec<Element> {
    from_the_end(&String::from_utf8_lossy(line), b',').into_iter().map(Element::of).collect()
}

/// What `elements` say of the request of the client: what the proxy says that it asked, else the nearest one behind that
/// says it.
pub(crate) fn of_the_client<'a>(
    elements: &'a [Element],
    trust: &Trust,
    what: fn(&Element) -> Option<&String>,
) -> Option<&'a String> {
    let known = elements.iter().map_while(Element::address);
    let asked = match known.clone().position(|ip| !trust.covers(ip)) {
        Some(client) => client,
        None => known.count().saturating_sub(1),
    };
    elements.get(..=asked)?.iter().rev().find_map(what)
}

/// An address, with or without brackets and port.
pub(crate) fn address(node: &str) -> Option<IpAddr> {
    let bare = node.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(ip, _)| ip);
    let bare = bare.unwrap_or(node);
    let ip = bare.parse::<IpAddr>().ok().or_else(|| bare.parse::<SocketAddr>().ok().map(|a| a.ip()))?;
    Some(ip.to_canonical())
}

/// The parts of `text` between `separator`s that stand in no quotes, the last one first.
fn from_the_end(text: &str, separator: u8) -> Vec<&str> {
    let (mut parts, mut end, mut is_quoted) = (Vec::new(), text.len(), false);
    for (at, byte) in text.bytes().enumerate().rev() {
        if byte == b'"' && !(is_quoted && is_escaped(&text.as_bytes()[..at])) {
            is_quoted = !is_quoted;
        } else if byte == separator && !is_quoted {
            parts.push(&text[at + 1..end]);
            end = at;
        }
    }
    parts.push(&text[..end]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

/// Whether a backslash takes the meaning from what follows `before`.
fn is_escaped(before: &[u8]) -> bool {
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// A value without its quotes, and what stands in them without backslashes.
fn unquoted(value: &str) -> String {
    let Some(quoted) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return value.to_owned();
    };
    let (mut plain, mut is_escaped) = (String::with_capacity(quoted.len()), false);
    for character in quoted.chars() {
        is_escaped = character == '\\' && !is_escaped;
        if !is_escaped {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spoilt::Numbers;

    fn read(lines: &[&str]) -> Vec<Element> {
        let mut headers = HeaderMap::new();
        headers
            .extend(lines.iter().map(|line| (FORWARDED, HeaderValue::from_bytes(line.as_bytes()).unwrap())));
        elements(&headers)
    }

    fn element(node: &str, proto: &str, host: &str) -> Element {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Element { node: some(node), proto: some(proto), host: some(host) }
    }

    #[test]
    fn the_last_one_is_read_first_and_names_are_names_in_any_case() {
        for lines in [
            &["for=1.1.1.1;proto=http, For=\"[::1]:7\" ; HOST=a.com;by=x"][..],
            &["for=1.1.1.1;proto=http", ",FOR=\"[::1]:7\";host=\"a.com\","],
            &["proto=http; for=\"1.1.1.1\",host=\"a\\.co\\m\";for=\"[::1]:7\";secret=\"a,b;c\\\"\""],
        ] {
            assert_eq!(read(lines), [element("[::1]:7", "", "a.com"), element("1.1.1.1", "http", "")]);
        }
        assert_eq!(read(&["for=_hidden, for=unknown"])[1], element("_hidden", "", ""));
        assert_eq!(read(&["", " , "]), []);
    }

    /// Whoever asks writes what stands in front, whatever that is.
    #[test]
    fn nothing_in_front_changes_what_stands_behind() {
        let own = "for=192.0.2.9;proto=https;host=\"a.com\"";
        for lie in [
            "for=\"",
            "for=6.6.6.6;x=\"",
            "\"",
            "for=\"6.6.6.6\\\"",
            ";;=",
            "for=6.6.6.6;host=\"x\\",
            "for=\u{e9}",
        ] {
            assert_eq!(read(&[&format!("{lie}, {own}")])[0], element("192.0.2.9", "https", "a.com"), "{lie}");
        }
        let mut numbers = Numbers::from(7);
        for _ in 0..5_000 {
            let lie =
                numbers.spoil(b"for=\"6.6.6.6\";host=\"a\\\"b\", for=x", 3, |n| b"\";,\\=x"[n.below(6)]);
            let line = format!("{}, {own}", String::from_utf8(lie).unwrap());
            assert_eq!(read(&[&line])[0], element("192.0.2.9", "https", "a.com"), "{line}");
        }
    }
}
