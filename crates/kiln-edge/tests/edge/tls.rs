//! HTTPS: certificates by name, replaced under way; what comes without TLS; who a client is said to be.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use kiln_edge::{Certificate, Door, EdgeSettings, Limits, Listener, Trust};
use kiln_model::{EdgeRoute, HttpsRule};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, SignatureScheme, StreamOwned, SupportedProtocolVersion,
};

use crate::harness::{Edge, route};
use crate::instance::Instance;
use crate::wire::Client;

pub struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    roots: RootCertStore,
}

impl Authority {
    pub fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        Self { issuer: rcgen::Issuer::new(params, key), roots }
    }

    pub fn certify(&self, names: &[&str]) -> Certificate {
        self.certify_with(rcgen::KeyPair::generate().unwrap(), names)
    }

    fn certify_with(&self, key: rcgen::KeyPair, names: &[&str]) -> Certificate {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let params = rcgen::CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Certificate { chain: certificate.pem(), key: key.serialize_pem() }
    }

    fn try_connect(
        &self,
        edge: &Edge,
        name: &str,
        alpn: &[&[u8]],
    ) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
        self.try_connect_as(edge, name, alpn, rustls::crypto::ring::default_provider(), rustls::ALL_VERSIONS)
    }

    fn try_connect_as(
        &self,
        edge: &Edge,
        name: &str,
        alpn: &[&[u8]],
        provider: CryptoProvider,
        versions: &[&'static SupportedProtocolVersion],
    ) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let builder =
            ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions);
        let mut config = builder.unwrap().with_root_certificates(self.roots.clone()).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = StreamOwned::new(client, TcpStream::connect(edge.https).unwrap());
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }

    pub fn connect(&self, edge: &Edge, name: &str) -> StreamOwned<ClientConnection, TcpStream> {
        self.try_connect(edge, name, &[b"http/1.1"]).unwrap()
    }
}

fn get(stream: &mut StreamOwned<ClientConnection, TcpStream>, host: &str) -> String {
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[test]
fn clients_are_shown_the_certificate_for_the_name_they_ask_for() {
    let instance = Instance::saying("hi");
    let edge = Edge::serving(&[&instance]);
    let authority = Authority::new();
    let certificates = [authority.certify(&["a.example.com"]), authority.certify(&["*.wild.example.com"])];
    edge.client.set_certificates(&certificates).unwrap();
    for name in ["a.example.com", "x.wild.example.com"] {
        let mut stream = authority.connect(&edge, name);
        assert!(get(&mut stream, name).starts_with("HTTP/1.1 200 OK"), "{name}");
        assert_eq!(stream.conn.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    }
    // Nobody has a certificate for that one; the first is shown, and the client does not take it.
    assert!(authority.try_connect(&edge, "elsewhere.example.com", &[]).is_err());
    assert_eq!(instance.seen()[0].header("x-forwarded-proto"), Some("https"));
    assert_eq!(edge.drained().failed, 0);
}

/// Somebody who checks signatures of this kind alone.
fn knowing(scheme: SignatureScheme) -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    let WebPkiSupportedAlgorithms { all, mapping } = provider.signature_verification_algorithms;
    let known = mapping.iter().filter(|(kind, _)| *kind == scheme).copied().collect::<Vec<_>>();
    let mapping: &'static [_] = known.leak();
    provider.signature_verification_algorithms = WebPkiSupportedAlgorithms { all, mapping };
    provider
}

/// Old clients know RSA alone, new ones are quicker with other keys: hosts have both.
#[test]
fn of_several_keys_for_a_name_each_client_is_shown_one_that_it_knows() {
    let edge = Edge::serving(&[&Instance::saying("hi")]);
    let authority = Authority::new();
    let one = |kind, name: &str| authority.certify_with(rcgen::KeyPair::generate_for(kind).unwrap(), &[name]);
    let (p256, ed25519) = (&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519);
    let all = [
        one(p256, "a.example.com"),
        one(ed25519, "a.example.com"),
        one(p256, "b.example.com"),
        one(ed25519, "*.example.com"),
    ];
    edge.client.set_certificates(&all).unwrap();
    for (scheme, name, shown) in [
        (SignatureScheme::ECDSA_NISTP256_SHA256, "a.example.com", 0),
        (SignatureScheme::ED25519, "a.example.com", 1),
        (SignatureScheme::ECDSA_NISTP256_SHA256, "b.example.com", 2),
        (SignatureScheme::ED25519, "b.example.com", 3),
        (SignatureScheme::ED25519, "c.example.com", 3),
    ] {
        for version in rustls::ALL_VERSIONS {
            let stream = authority.try_connect_as(&edge, name, &[], knowing(scheme), &[version]);
            let stream = stream.unwrap_or_else(|e| panic!("{scheme:?} {name} {version:?}: {e}"));
            let expected = CertificateDer::from_pem_slice(all[shown].chain.as_bytes()).unwrap();
            let certificates = stream.conn.peer_certificates().unwrap();
            assert_eq!(certificates[0], expected, "{scheme:?} {name} {version:?}");
        }
    }
    // One who asks for a name that nobody has is shown something all the same, and does not take it.
    let stranger = knowing(SignatureScheme::ED25519);
    let refused = authority.try_connect_as(&edge, "elsewhere.test", &[], stranger, rustls::ALL_VERSIONS);
    assert!(refused.unwrap_err().to_string().contains("not valid for name"));
}

#[test]
fn certificates_are_replaced_without_touching_who_is_connected() {
    let edge = Edge::serving(&[&Instance::saying("hi")]);
    let (old, new) = (Authority::new(), Authority::new());
    edge.client.set_certificates(&[old.certify(&["a.example.com"])]).unwrap();
    let mut kept = old.connect(&edge, "a.example.com");
    assert!(get(&mut kept, "a.example.com").contains("200 OK"));
    edge.client.set_certificates(&[new.certify(&["a.example.com"])]).unwrap();
    assert!(get(&mut kept, "a.example.com").contains("200 OK"));
    assert!(old.try_connect(&edge, "a.example.com", &[]).is_err());
    assert!(get(&mut new.connect(&edge, "a.example.com"), "a.example.com").contains("200 OK"));
}

#[test]
fn a_certificate_of_no_use_is_refused_and_those_from_before_stay() {
    let edge = Edge::serving(&[&Instance::saying("hi")]);
    let authority = Authority::new();
    let (good, other) = (authority.certify(&["a.example.com"]), authority.certify(&["b.example.com"]));
    edge.client.set_certificates(std::slice::from_ref(&good)).unwrap();
    let mismatch = Certificate { chain: good.chain.clone(), key: other.key.clone() };
    let empty = Certificate { chain: String::new(), key: other.key.clone() };
    let nonsense = Certificate { chain: good.chain.clone(), key: "no key".into() };
    for (bad, why) in
        [(mismatch, "not that of the certificate"), (empty, "no certificate"), (nonsense, "private key")]
    {
        let error = edge.client.set_certificates(&[other.clone(), bad]).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    assert!(get(&mut authority.connect(&edge, "a.example.com"), "a.example.com").contains("200 OK"));
    assert!(authority.try_connect(&edge, "b.example.com", &[]).is_err());
}

/// Whether a certificate will do is for clients to say; what they say is counted, and how long it is good is told.
#[test]
fn handshakes_that_come_to_nothing_are_counted_by_cause() {
    let edge = Edge::serving(&[&Instance::saying("hi")]);
    let known = Authority::new();
    let certificate = known.certify(&["a.example.com"]);
    let details = certificate.inspect().unwrap();
    // Named twice, it is told once: a series that is there twice spoils all of them.
    edge.client.set_certificates(&[certificate.clone(), certificate]).unwrap();
    get(&mut known.connect(&edge, "a.example.com"), "a.example.com");
    known.try_connect(&edge, "elsewhere.example.com", &[]).unwrap_err();
    let mut plain = TcpStream::connect(edge.https).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let _ = plain.read_to_end(&mut Vec::new());
    drop(TcpStream::connect(edge.https).unwrap());
    for cause in ["certificate_refused", "not_agreed", "abandoned"] {
        edge.tells(&format!("kiln_edge_failed_handshakes_total{{cause=\"{cause}\"}} 1"));
    }
    let labels = format!("name=\"a.example.com\",serial=\"{}\"", details.serial);
    for (name, at) in [("not_before", details.validity.from), ("not_after", details.validity.until)] {
        edge.tells(&format!("kiln_edge_certificate_{name}_timestamp_seconds{{{labels}}} {}", at.0 / 1000));
    }
    let told = edge.client.metrics().unwrap();
    assert_eq!(told.matches("kiln_edge_certificate_not_after_timestamp_seconds{").count(), 1, "{told}");
}

#[test]
fn http_2_is_agreed_on_in_the_handshake() {
    let edge = Edge::serving(&[&Instance::saying("hi")]);
    let authority = Authority::new();
    edge.client.set_certificates(&[authority.certify(&["a.example.com"])]).unwrap();
    let mut stream = authority.try_connect(&edge, "a.example.com", &[b"h2", b"http/1.1"]).unwrap();
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"h2"[..]));
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).unwrap();
    assert_eq!(frame[3], 4, "a SETTINGS frame: {frame:?}");
    // Somebody who speaks of no protocol speaks HTTP/1.1.
    let mut plain = authority.try_connect(&edge, "a.example.com", &[]).unwrap();
    assert!(get(&mut plain, "a.example.com").contains("200 OK"));
}

#[test]
fn a_handshake_that_does_not_end_is_given_up() {
    let limits = Limits { header_read: std::time::Duration::from_millis(60), ..Limits::default() };
    let edge = Edge::with(limits, 1);
    edge.serve(&[&Instance::saying("hi")]);
    let mut stream = TcpStream::connect(edge.https).unwrap();
    stream.write_all(&[22, 3, 1]).unwrap();
    assert!(matches!(stream.read(&mut [0; 10]), Ok(0) | Err(_)));
    edge.tells("kiln_edge_refused_connections_total{cause=\"too_slow\"} 1");
    // Nor is one that talks something else.
    let mut stream = TcpStream::connect(edge.https).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(!rest.starts_with(b"HTTP"));
}

#[test]
fn requests_without_tls_are_told_to_come_again() {
    let edge = Edge::start();
    let fleet = edge.fleet(1, &[&Instance::saying("hi")]);
    let route = EdgeRoute { https: HttpsRule::Redirect, ..route(None, "/", &[(&fleet.id, 1)]) };
    edge.set(vec![route], vec![fleet]);
    let answer = edge.connect().send("GET /a?b=c HTTP/1.1\r\nHost: a.example.com:8080\r\n\r\n").read();
    assert_eq!(answer.status(), 308);
    let expected = format!("https://a.example.com:{}/a?b=c", edge.https.port());
    assert_eq!(answer.header("location"), Some(expected.as_str()));
    let answer = edge.connect().send("OPTIONS * HTTP/1.1\r\nHost: a.example.com:8080\r\n\r\n").read();
    let expected = format!("https://a.example.com:{}", edge.https.port());
    assert_eq!((answer.status(), answer.header("location")), (308, Some(expected.as_str())));
    let labels = "app=\"hello\",service=\"web\",release=\"\",generation=\"1\",route=\"*/\"";
    edge.tells(&format!("kiln_refused_requests_total{{{labels},cause=\"only_https\"}} 2"));
    let authority = Authority::new();
    edge.client.set_certificates(&[authority.certify(&["a.example.com"])]).unwrap();
    assert!(get(&mut authority.connect(&edge, "a.example.com"), "a.example.com").contains("200 OK"));
    assert_eq!(edge.drained().failed, 0);
}

fn trusting(proxy_headers: bool) -> EdgeSettings {
    EdgeSettings {
        trust: Trust(vec!["127.0.0.0/8".parse().unwrap()]),
        proxy_headers,
        ..EdgeSettings::default()
    }
}

#[test]
fn somebody_trusted_in_front_says_who_the_client_is() {
    let edge = Edge::with_settings(Limits::default(), 1, trusting(false));
    let instance = Instance::saying("hi");
    let fleet = edge.fleet(1, &[&instance]);
    let route = EdgeRoute { https: HttpsRule::Redirect, ..route(None, "/", &[(&fleet.id, 1)]) };
    edge.set(vec![route], vec![fleet]);
    for said in [
        "X-Forwarded-For: 192.0.2.7, 127.0.0.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: a.com",
        "Forwarded: for=192.0.2.7;proto=https;host=a.com, for=127.0.0.9",
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{said}\r\n\r\n");
        assert_eq!(edge.connect().send(request).read().status(), 200, "{said}");
        let seen = instance.seen().pop().unwrap();
        assert_eq!(seen.header("x-forwarded-for"), Some("192.0.2.7, 127.0.0.9, 127.0.0.1"), "{said}");
        assert_eq!(seen.header("x-forwarded-proto"), Some("https"), "{said}");
        assert_eq!(seen.header("x-forwarded-host"), Some("a.com"), "{said}");
    }
}

#[test]
fn a_balancer_in_front_says_it_before_the_first_byte() {
    let edge = Edge::with_settings(Limits::default(), 1, trusting(true));
    let instance = Instance::saying("hi");
    edge.serve(&[&instance]);
    let mut client = edge.connect();
    // In pieces, as the network may deliver it.
    client.send("PROXY TCP4 192.0.2.7");
    while edge.client.stats().unwrap().connections == 0 {
        std::thread::yield_now();
    }
    client.send(" 198.51.100.1 56324 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read().text(), "hi");
    assert_eq!(client.get("/").text(), "hi");
    let mut second = edge.connect();
    second.send(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x08\xc6\x33\x64\x01\0\x01\0\x02");
    assert_eq!(second.get("/").text(), "hi");
    let from: Vec<_> =
        instance.seen().iter().map(|m| m.header("x-forwarded-for").unwrap().to_owned()).collect();
    assert_eq!(from, ["192.0.2.7", "192.0.2.7", "192.0.2.8"]);
    // Without that header nobody trusted gets in: it would pass for the balancer.
    let mut bare = edge.connect();
    bare.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(bare.is_at_end());
    edge.tells("kiln_edge_refused_connections_total{cause=\"no_proxy_header\"} 1");
    // Whoever wants figures is not sent by the balancer, wherever he is.
    let listeners = Listener::bind(Door::Metrics, "127.0.0.1:0".parse().unwrap(), 1).unwrap();
    let figures = kiln_edge::local(&listeners[0].socket).unwrap();
    edge.client.listen(&listeners).unwrap();
    assert_eq!(Client::new(TcpStream::connect(figures).unwrap()).get("/metrics").status(), 200);
}
