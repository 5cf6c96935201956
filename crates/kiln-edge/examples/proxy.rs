//! What the benchmark of the edge measures: `proxy certificate DIR`, `proxy backend ADDR`, `proxy edge BACKEND DIR`,
//! `proxy hold http|https ADDR COUNT`.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Response, service::service_fn};
use hyper_util::rt::TokioIo;
use kiln_edge::{Certificate, Dial, Door, EdgeClient, EdgeConfig, EdgeSettings, Limits, Listener, Sockets};
use kiln_model::{
    EdgeFleet, EdgeRoute, FleetId, Generation, HttpsRule, InstanceId, Protocol, RouteTable, Target,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

const THREADS: usize = 2;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["certificate", dir] => certificate(Path::new(dir)),
        ["backend", address] => backend(address.parse().expect("an address")),
        ["edge", backend, dir] => edge(backend.parse().expect("an address"), Path::new(dir)),
        ["hold", scheme, address, count] => {
            hold(scheme == "https", address.parse().expect("an address"), count.parse().expect("a number"));
        }
        _ => panic!(
            "usage: proxy certificate DIR | backend ADDR | edge BACKEND DIR | hold http|https ADDR COUNT"
        ),
    }
}

fn certificate(dir: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    std::fs::write(dir.join("cert.pem"), &cert).expect("a file");
    std::fs::write(dir.join("key.pem"), &key).expect("a file");
    std::fs::write(dir.join("both.pem"), cert + &key).expect("a file");
}

/// Opens connections, asks once over each, and keeps them until it is ended.
fn hold(tls: bool, address: SocketAddr, count: usize) {
    let config = tls.then(|| Arc::new(trusting()));
    let ask = |stream: &mut dyn Duplex| {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
        assert!(stream.read(&mut [0; 1024]).expect("an answer") > 0, "a connection was closed");
    };
    let mut kept: Vec<Box<dyn Duplex>> = Vec::new();
    for _ in 0..count {
        let stream = TcpStream::connect(address).expect("the proxy");
        // Or the request waits until somebody says that the end of the handshake has arrived.
        stream.set_nodelay(true).expect("a connection");
        let mut stream: Box<dyn Duplex> = match &config {
            None => Box::new(stream),
            Some(config) => {
                let name = "localhost".try_into().expect("a name");
                let client = rustls::ClientConnection::new(config.clone(), name).expect("a client");
                Box::new(rustls::StreamOwned::new(client, stream))
            }
        };
        ask(&mut *stream);
        kept.push(stream);
    }
    println!("held");
    loop {
        std::thread::park();
    }
}

trait Duplex: Read + Write {}
impl<T: Read + Write> Duplex for T {}

/// A client that believes everybody: it is memory that is measured.
fn trusting() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth()
}

#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A small answer to everything, as cheaply as hyper gives one.
fn backend(address: SocketAddr) {
    let listeners = kiln_edge::bind(address, THREADS).expect("a port");
    let serve = |listener: OwnedFd| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async move {
            let listener = tokio::net::TcpListener::from_std(listener.into()).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                let service = service_fn(|_| async {
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello, world\n"))))
                });
                let http = hyper::server::conn::http1::Builder::new();
                tokio::task::spawn_local(http.serve_connection(TokioIo::new(stream), service));
            }
        });
    };
    let threads: Vec<_> = listeners.into_iter().map(|l| std::thread::spawn(move || serve(l))).collect();
    threads.into_iter().for_each(|thread| thread.join().expect("it serves"));
}

/// Every instance is the same backend.
struct Same(SocketAddr);

impl Dial for Same {
    fn sockets(&self, _: &InstanceId, count: u32) -> io::Result<Vec<OwnedFd>> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = || rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None);
        (0..count).map(|_| Ok(socket()?)).collect()
    }

    fn address(&self, _: &InstanceId, _: u16) -> SocketAddr {
        self.0
    }
}

/// Serves, and prints where: HTTP, then HTTPS.
fn edge(backend: SocketAddr, dir: &Path) {
    let (any, path) = ("127.0.0.1:0".parse().expect("an address"), dir.join("edge.sock"));
    let mut sockets = Sockets::bind(any, THREADS, &path).expect("ports");
    sockets.listeners.extend(Listener::bind(Door::Https, any, THREADS).expect("ports"));
    let addresses = [Door::Http, Door::Https].map(|door| sockets.address(door).expect("a door"));
    let (dial, limits, settings) = (Arc::new(Same(backend)), Limits::default(), EdgeSettings::default());
    let config = EdgeConfig { sockets, dial, confinement: None, limits, settings };
    let serving = std::thread::spawn(move || kiln_edge::run(config));
    let client = EdgeClient::connect(&path).expect("an edge");
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).expect("a file");
    let certificate = Certificate { chain: read("cert.pem"), key: read("key.pem") };
    client.set_certificates(&[certificate]).expect("a certificate");
    client.set_table(&table()).expect("a table");
    println!("{} {}", addresses[0], addresses[1]);
    serving.join().expect("it serves").expect("it serves");
}

fn table() -> RouteTable {
    let id = FleetId {
        app: "bench".parse().expect("a name"),
        service: "web".parse().expect("a name"),
        generation: Generation(1),
    };
    let targets = vec![Target { fleet: id.clone(), weight: 1 }];
    let service = id.service.clone();
    let routes = vec![EdgeRoute {
        host: None,
        path: "/".into(),
        service,
        targets,
        https: HttpsRule::Optional,
        audience: kiln_model::Audience::Everybody,
        hold: None,
        max_body: None,
        timeout: None,
    }];
    let instances = (1..=4).map(|serial| id.instance(serial)).collect();
    let fleets = vec![EdgeFleet {
        id,
        port: 80,
        instances,
        release: None,
        protocol: Protocol::Http1,
        circuit: None,
        callers: vec![],
        needs: Default::default(),
        parted: false,
    }];
    RouteTable { version: 1, routes, fleets, ..RouteTable::default() }
}
