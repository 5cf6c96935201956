//! Where a request came from, and over what: as the connection shows it, or as somebody trusted says.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;
use hyper::header::{FORWARDED, HeaderName, HeaderValue};

use crate::express::request::Word;
use crate::forwarded::{self, Element};
use crate::hygiene::{is_about_origin, is_of_a_host};
use crate::trust::Trust;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// How a request was carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With it.
    Https,
}

impl Scheme {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The other end of a connection.
pub struct Peer {
    pub(crate) ip: IpAddr,
    /// The same as text, made once.
    text: HeaderValue,
    /// Whether what it says of others is believed.
    is_trusted: bool,
    scheme: Scheme,
}

/// The client a request came from.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// Its address.
    pub ip: IpAddr,
    /// How it asked.
    pub scheme: Scheme,
}

impl Peer {
    /// Whoever is at `address`; `trust` says whether it is believed.
    pub fn new(address: SocketAddr, scheme: Scheme, trust: &Trust) -> Self {
        let ip = address.ip().to_canonical();
        let text = HeaderValue::try_from(ip.to_string()).unwrap_or(HeaderValue::from_static("unknown"));
        Self { ip, text, is_trusted: trust.covers(ip), scheme }
    }

    /// Tells the instance who asks. What a peer claims about others stays only if the peer is trusted; what it says
    /// of itself is what the connection shows.
    pub(crate) fn introduce(
        &self,
        headers: &mut HeaderMap,
        host: Option<&HeaderValue>,
        trust: &Trust,
    ) -> Origin {
        let origin;
        if self.is_trusted {
            let said = Said::by(headers, trust);
            origin = self.believe(&said, trust);
            self.add_to_chain(headers, said, host);
        } else {
            origin = Origin { ip: self.ip, scheme: self.scheme };
            let lies =
                headers.keys().filter(|name| is_about_origin(name.as_str())).cloned().collect::<Vec<_>>();
            lies.iter().for_each(|name| drop(headers.remove(name)));
            headers.insert(FORWARDED_FOR, self.text.clone());
        }
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(origin.scheme.as_str()));
        if let (Some(host), false) = (host, headers.contains_key(FORWARDED_HOST)) {
            headers.insert(FORWARDED_HOST, host.clone());
        }
        origin
    }

    /// Whether what it says of others is believed.
    pub(crate) fn word(&self) -> Word {
        if self.is_trusted { Word::Taken } else { Word::Nothing }
    }

    /// [`Self::introduce`] for a head that is written, not held, and in which the peer says nothing of others.
    pub(crate) fn write(&self, head: &mut Vec<u8>, host: &str) -> Origin {
        let scheme = self.scheme.as_str();
        for piece in [
            b"x-forwarded-for: ",
            self.text.as_bytes(),
            b"\r\nx-forwarded-proto: ",
            scheme.as_bytes(),
            b"\r\nx-forwarded-host: ",
            host.as_bytes(),
            b"\r\n",
        ] {
            head.extend_from_slice(piece);
        }
        Origin { ip: self.ip, scheme: self.scheme }
    }

    /// Where a request with these fields came from.
    pub fn origin(&self, headers: &HeaderMap, trust: &Trust) -> Origin {
        if self.is_trusted {
            self.believe(&Said::by(headers, trust), trust)
        } else {
            Origin { ip: self.ip, scheme: self.scheme }
        }
    }

    fn believe(&self, said: &Said, trust: &Trust) -> Origin {
        let ip = client_among(&said.chain, trust).map_or(self.ip, |(_, ip)| ip);
        let scheme = match said.proto.as_deref() {
            Some("https") => Scheme::Https,
            Some("http") => Scheme::Http,
            _ => self.scheme,
        };
        Origin { ip, scheme }
    }

    fn add_to_chain(&self, headers: &mut HeaderMap, said: Said, host: Option<&HeaderValue>) {
        let mut chain = said.chain;
        chain.reverse();
        chain.push(self.ip.to_string());
        if let Ok(chain) = HeaderValue::try_from(chain.join(", ")) {
            headers.insert(FORWARDED_FOR, chain);
        }
        if let Some(host) = said.host {
            headers.insert(FORWARDED_HOST, host);
        }
        if headers.contains_key(FORWARDED) {
            let node = match self.ip {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("\"[{ip}]\""),
            };
            let host =
                host.and_then(|h| h.to_str().ok()).map(|h| format!(";host=\"{h}\"")).unwrap_or_default();
            let element = format!("for={node};proto={}{host}", self.scheme.as_str());
            if let Ok(element) = HeaderValue::try_from(element) {
                headers.append(FORWARDED, element);
            }
        }
    }
}

/// What somebody trusted says of a request: each thing in `X-Forwarded-*`, or else in `Forwarded`.
struct Said {
    /// Who asked whom, the last one first.
    chain: Vec<String>,
    proto: Option<String>,
    /// The host that was asked for, if only `Forwarded` says it.
    host: Option<HeaderValue>,
}

impl Said {
    fn by(headers: &HeaderMap, trust: &Trust) -> Self {
        let mut elements = forwarded::elements(headers);
        let chain = match listed(headers, &FORWARDED_FOR) {
            chain if chain.is_empty() => elements.iter().map(node).collect(),
            chain => {
                // A proxy that knows only the one field passes on whatever its client has written in the other.
                let theirs: Vec<String> = elements.iter().map(node).collect();
                let client = |chain: &[String]| client_among(chain, trust).map(|(_, ip)| ip);
                if client(&theirs) != client(&chain) {
                    elements.clear();
                }
                chain
            }
        };
        let of_the_client = |what| forwarded::of_the_client(&elements, trust, what);
        let proto = proto_of_the_client(headers, &chain, trust);
        let proto = proto.or_else(|| of_the_client(|e| e.proto.as_ref()).map(|p| p.to_ascii_lowercase()));
        let host = of_the_client(|e| e.host.as_ref()).filter(|_| !headers.contains_key(FORWARDED_HOST));
        let host = host.filter(|host| host.bytes().all(|byte| is_of_a_host(&byte)));
        Self { chain, proto, host: host.and_then(|host| HeaderValue::from_str(host).ok()) }
    }
}

/// Who of a chain is the client, and where in it: the last one that somebody trusted saw and that is not trusted itself.
/// What is before it may be invented.
fn client_among(chain: &[String], trust: &Trust) -> Option<(usize, IpAddr)> {
    let seen = chain.iter().map_while(|node| forwarded::address(node)).enumerate();
    let mut last = None;
    for (place, ip) in seen {
        last = Some((place, ip));
        if !trust.covers(ip) {
            break;
        }
    }
    last
}

/// How the client asked by `X-Forwarded-Proto`, in which each proxy may have set the only element or added its own: that
/// of the proxy that saw the client, which has the client's place.
fn proto_of_the_client(headers: &HeaderMap, chain: &[String], trust: &Trust) -> Option<String> {
    let said = listed(headers, &FORWARDED_PROTO);
    let place = client_among(chain, trust).map_or(0, |(place, _)| place);
    said.get(place).or(said.last()).map(|proto| proto.to_ascii_lowercase())
}

/// Who asked, in the words of `X-Forwarded-For`.
fn node(element: &Element) -> String {
    element.address().map_or_else(|| "unknown".to_owned(), |ip| ip.to_string())
}

/// The elements of a comma-separated field, the last one first. One that is no text takes nothing from the others.
fn listed(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let lines = headers.get_all(name).iter();
    let elements = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let text = |element: &[u8]| {
        let text = std::str::from_utf8(element).ok().filter(|text| text.is_ascii());
        text.unwrap_or("unknown").to_owned()
    };
    let mut elements: Vec<String> = elements.filter(|e| !e.is_empty()).map(text).collect();
    elements.reverse();
    elements
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn introduced(peer: &str, fields: &[(&'static str, &str)]) -> (String, &'static str, HeaderMap) {
        let trust = Trust(vec!["10.0.0.0/8".parse().unwrap()]);
        let peer = Peer::new(format!("{peer}:1").parse().unwrap(), Scheme::Http, &trust);
        let mut headers = headers(fields);
        let host = HeaderValue::from_static("example.com");
        let origin = peer.introduce(&mut headers, Some(&host), &trust);
        (origin.ip.to_string(), origin.scheme.as_str(), headers)
    }

    #[test]
    fn a_stranger_is_not_believed() {
        let lies = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=1.1.1.1;proto=https"),
            ("x-forwarded-host", "elsewhere"),
            ("x-forwarded-user", "root"),
            ("x-real-ip", "1.1.1.1"),
            ("x_forwarded_for", "1.1.1.1"),
        ];
        let (ip, scheme, headers) = introduced("192.0.2.9", &lies);
        assert_eq!((ip.as_str(), scheme), ("192.0.2.9", "http"));
        assert_eq!(headers["x-forwarded-for"], "192.0.2.9");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "example.com");
        for name in ["forwarded", "x-forwarded-user", "x-real-ip", "x_forwarded_for"] {
            assert!(!headers.contains_key(name), "{name}");
        }
    }

    #[test]
    fn somebody_trusted_is_believed_as_far_as_it_could_see() {
        let said = [
            ("x-forwarded-for", "6.6.6.6, 192.0.2.9"),
            ("x-forwarded-for", "10.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-prefix", "/app"),
        ];
        let (ip, scheme, headers) = introduced("10.0.0.1", &said);
        assert_eq!(headers["x-forwarded-prefix"], "/app");
        assert_eq!((ip.as_str(), scheme), ("192.0.2.9", "https"));
        assert_eq!(headers["x-forwarded-for"], "6.6.6.6, 192.0.2.9, 10.1.1.1, 10.0.0.1");
        assert_eq!(headers.get_all("x-forwarded-for").iter().count(), 1);
        assert_eq!(headers["x-forwarded-proto"], "https");
    }

    #[test]
    fn how_the_client_asked_is_found_where_each_proxy_adds_how_it_was_asked() {
        let seen = "6.6.6.6, 192.0.2.9, 10.1.1.1";
        for (said, scheme) in [
            (&["https, http"][..], "https"),
            (&["http, https"], "http"),
            // Before the client anything may be invented, in a line of its own or not.
            (&["https, http, http"], "http"),
            (&["https", "http", "http"], "http"),
            (&["HTTPS"], "https"),
            (&["https, gopher"], "https"),
            (&[""], "http"),
        ] {
            let mut fields = vec![("x-forwarded-for", seen)];
            fields.extend(said.iter().map(|said| ("x-forwarded-proto", *said)));
            let (ip, found, headers) = introduced("10.0.0.1", &fields);
            assert_eq!((ip.as_str(), found), ("192.0.2.9", scheme), "{said:?}");
            assert_eq!(headers.get_all("x-forwarded-proto").iter().collect::<Vec<_>>(), [scheme], "{said:?}");
        }
    }

    #[test]
    fn forwarded_says_the_same_in_its_own_words() {
        let (ip, scheme, headers) =
            introduced("10.0.0.1", &[("forwarded", "for=\"[2001:db8::1]:4711\";proto=https")]);
        assert_eq!((ip.as_str(), scheme), ("2001:db8::1", "https"));
        let all: Vec<_> = headers.get_all("forwarded").iter().collect();
        assert_eq!(all[1], "for=10.0.0.1;proto=http;host=\"example.com\"");
    }

    /// Whichever way it is said, the edge takes it for the same and tells instances the same.
    #[test]
    fn what_is_said_in_forwarded_comes_to_the_same_as_in_the_other_fields() {
        let outcome = |fields: &[(&'static str, &str)]| {
            let (ip, scheme, headers) = introduced("10.0.0.1", fields);
            let told = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
            (ip, scheme, told.map(|name| headers[name].to_str().unwrap().to_owned()))
        };
        for (said, same) in [
            ("for=192.0.2.9", &[("x-forwarded-for", "192.0.2.9")][..]),
            (
                "for=6.6.6.6;proto=http;host=evil, for=192.0.2.9;proto=https;host=\"a.com:81\", for=10.1.1.1",
                &[
                    ("x-forwarded-for", "6.6.6.6, 192.0.2.9, 10.1.1.1"),
                    ("x-forwarded-proto", "https"),
                    ("x-forwarded-host", "a.com:81"),
                ],
            ),
            // What the proxy that the client asked does not say, those behind it may know.
            (
                "for=192.0.2.9, for=10.1.1.2;proto=https, for=10.1.1.1;proto=http;host=a.com",
                &[
                    ("x-forwarded-for", "192.0.2.9, 10.1.1.2, 10.1.1.1"),
                    ("x-forwarded-proto", "https"),
                    ("x-forwarded-host", "a.com"),
                ],
            ),
            // Nobody in front of the client is asked.
            (
                "for=6.6.6.6;proto=https;host=evil, for=192.0.2.9",
                &[("x-forwarded-for", "6.6.6.6, 192.0.2.9")],
            ),
            // Where all are trusted, the first of them is the client.
            (
                "for=10.1.1.2;proto=https, for=10.1.1.1",
                &[("x-forwarded-for", "10.1.1.2, 10.1.1.1"), ("x-forwarded-proto", "https")],
            ),
            (
                "for=192.0.2.9, for=_hidden;proto=https;host=\"a/b\"",
                &[("x-forwarded-for", "192.0.2.9, unknown"), ("x-forwarded-proto", "https")],
            ),
            ("proto=https", &[("x-forwarded-for", "unknown"), ("x-forwarded-proto", "https")]),
        ] {
            assert_eq!(outcome(&[("forwarded", said)]), outcome(same), "{said}");
        }
    }

    /// A proxy appends to what its client has written, whatever that is.
    #[test]
    fn what_is_no_text_hides_nobody() {
        for fields in [
            &[("x-forwarded-for", "\u{e9}, 192.0.2.9"), ("x-forwarded-proto", "\u{e9}, https")][..],
            &[("forwarded", "for=\u{e9}, for=192.0.2.9;proto=https")],
        ] {
            let (ip, scheme, headers) = introduced("10.0.0.1", fields);
            assert_eq!((ip.as_str(), scheme), ("192.0.2.9", "https"), "{fields:?}");
            assert_eq!(headers["x-forwarded-for"], "unknown, 192.0.2.9, 10.0.0.1");
        }
    }

    /// A proxy that writes `X-Forwarded-For` alone passes on what its client says in `Forwarded`.
    #[test]
    fn what_forwarded_says_of_somebody_else_is_not_believed() {
        for (said, scheme, asked) in [
            ("for=8.8.8.8;proto=https;host=q", "http", "example.com"),
            ("proto=https;host=q", "http", "example.com"),
            ("for=9.9.9.9, for=8.8.8.8;proto=https;host=q", "http", "example.com"),
            ("for=9.9.9.9;proto=https;host=a.com", "https", "a.com"),
            // Not every proxy on the way says it.
            ("for=9.9.9.9;proto=https;host=a.com, for=10.1.1.1", "https", "a.com"),
        ] {
            let fields = [("x-forwarded-for", "9.9.9.9"), ("forwarded", said)];
            let (ip, found, headers) = introduced("10.0.0.1", &fields);
            assert_eq!((ip.as_str(), found), ("9.9.9.9", scheme), "{said}");
            assert_eq!(headers["x-forwarded-host"], asked, "{said}");
        }
    }

    #[test]
    fn nonsense_from_somebody_trusted_is_no_address() {
        let (ip, scheme, _) =
            introduced("10.0.0.1", &[("x-forwarded-for", "unknown"), ("x-forwarded-proto", "gopher")]);
        assert_eq!((ip.as_str(), scheme), ("10.0.0.1", "http"));
    }
}
