//! Certificates from an authority: pebble, which is made to be difficult, on loopback.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::host::{TestHost, free, said};
use crate::project::Project;

/// Says of every name that it is this machine, but of `preview.nowhere` and what follows, of which it knows nothing.
struct Names {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl Names {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let (address, ended) = (socket.local_addr().unwrap(), Arc::<AtomicBool>::default());
        let told = ended.clone();
        std::thread::spawn(move || {
            let mut query = [0; 1500];
            while !told.load(SeqCst) {
                let Ok((length, from)) = socket.recv_from(&mut query) else { continue };
                if let Some(answer) = answer(&query[..length]) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { address, ended }
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.ended.store(true, SeqCst);
    }
}

/// The question again, and 127.0.0.1 if it is for an address of version 4.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let mut end = 12;
    while *query.get(end)? != 0 {
        end += usize::from(query[end]) + 1;
    }
    let question = query.get(12..end + 5)?;
    let is_known = !question.starts_with(b"\x07preview\x07nowhere");
    let is_a = question[question.len() - 4..question.len() - 2] == [0, 1] && is_known;
    let mut answer = query[..2].to_vec();
    let outcome = if is_known { 0x80 } else { 0x83 };
    answer.extend([0x81, outcome, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    answer.extend(question);
    if is_a {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
    }
    Some(answer)
}

/// The authority.
struct Pebble {
    dir: TempDir,
    directory: SocketAddr,
    server: Child,
    _names: Names,
}

impl Pebble {
    /// Looks at proofs on these ports, and signs for so many seconds.
    fn start(http: u16, https: u16, validity: u32) -> Self {
        let (dir, names) = (TempDir::new().unwrap(), Names::start());
        let own =
            rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        std::fs::write(dir.path().join("cert.pem"), own.cert.pem()).unwrap();
        std::fs::write(dir.path().join("key.pem"), own.signing_key.serialize_pem()).unwrap();
        let (directory, management) = (free(), free());
        let config = json!({"pebble": {
            "listenAddress": directory.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": dir.path().join("cert.pem"),
            "privateKey": dir.path().join("key.pem"),
            "httpPort": http,
            "tlsPort": https,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "certificateValidityPeriod": validity,
        }});
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let server = Command::new("pebble")
            .arg("-config")
            .arg(dir.path().join("config.json"))
            .args(["-dnsserver", &names.address.to_string()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("this test needs the package pebble");
        let pebble = Self { dir, directory, server, _names: names };
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(directory).is_err() {
            assert!(std::time::Instant::now() < deadline, "pebble does not serve:\n{}", pebble.log());
            std::thread::yield_now();
        }
        pebble
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/dir", self.directory.port())
    }

    fn roots(&self) -> String {
        self.dir.path().join("cert.pem").to_str().unwrap().to_owned()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        if std::thread::panicking() {
            eprintln!("pebble:\n{}", self.log());
        }
    }
}

/// The issuer and the serial number of the certificate that is shown for a name; none if none is.
fn shown(https: SocketAddr, name: &str) -> Option<(String, String)> {
    let asked = Command::new("openssl")
        .args(["s_client", "-connect", &https.to_string(), "-servername", name])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .expect("openssl");
    let mut reading = Command::new("openssl")
        .args(["x509", "-noout", "-issuer", "-serial", "-checkhost", name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl");
    // What it does not take it does not need.
    let _ = std::io::Write::write_all(&mut reading.stdin.take().unwrap(), &asked.stdout);
    let text = String::from_utf8(reading.wait_with_output().expect("its end").stdout).ok()?;
    let of = |start: &str| text.lines().find_map(|line| line.strip_prefix(start)).map(str::to_owned);
    let is_for_it = text.contains("does match certificate");
    is_for_it
        .then(|| of("issuer=").zip(of("serial=")))
        .flatten()
        .filter(|(issuer, _)| issuer.contains("Pebble"))
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).permissions().mode() & 0o777
}

#[test]
fn certificates_are_got_renewed_and_never_lost() {
    let mut host = TestHost::start();
    let project = Project::example("hello");
    project.edit("kiln.toml", "[route.web]\n", "[route.web]\nhost    = \"one.example.com\"\n");
    project.edit("kiln.toml", "[deploy]", "[tls]\nautomatic = true\n\n[deploy]");
    let refused = host.kiln(&["deploy", project.dir()]);
    assert_eq!(refused.status.code(), Some(9), "{}", said(&refused));
    assert!(said(&refused).contains("--acme"), "{}", said(&refused));

    let address: SocketAddr = host.address.trim_start_matches("http://").parse().unwrap();
    let https = free();
    let pebble = Pebble::start(address.port(), https.port(), 30);
    let (url, roots, listen) = (pebble.url(), pebble.roots(), https.to_string());
    let with = |proof: &'static str| {
        [
            "--listen-tls",
            &listen,
            "--acme",
            &url,
            "--acme-roots",
            &roots,
            "--acme-contact",
            "ann@example.com",
            "--acme-proof",
            proof,
        ]
        .map(str::to_owned)
    };
    let restart = |host: &mut TestHost, proof| {
        host.leave_control();
        let arguments = with(proof);
        host.restart_control_with(&arguments.each_ref().map(String::as_str));
    };
    restart(&mut host, "http-01");
    host.deploy(&project);
    host.wait_until("there is a certificate", || shown(https, "one.example.com").is_some());
    let (_, first) = shown(https, "one.example.com").unwrap();
    let state = host.root.path().join("state");
    assert_eq!(mode(&state.join("acme-account.json")), 0o600);
    assert_eq!(mode(&state.join("certificate-one.example.com.json")), 0o600);
    let account = std::fs::read(state.join("acme-account.json")).unwrap();

    // It is renewed when two thirds of its 30 seconds are over, and nobody who is connected notices.
    let tls = ureq::tls::TlsConfig::builder().disable_verification(true).build();
    let agent = ureq::Agent::new_with_config(ureq::Agent::config_builder().tls_config(tls).build());
    let ask = || {
        agent
            .get(format!("https://{https}/"))
            .header("host", "one.example.com")
            .call()
            .map(|a| a.status().as_u16())
    };
    host.wait_until("it is renewed", || {
        assert_eq!(ask().expect("an answer"), 200);
        shown(https, "one.example.com").is_some_and(|(_, now)| now != first)
    });
    assert_eq!(ask().expect("an answer"), 200);

    // The other proof, for another name, by the same account.
    restart(&mut host, "tls-alpn-01");
    project.edit("kiln.toml", "one.example.com", "two.example.com");
    host.deploy(&project);
    host.wait_until("there is one for the other name", || shown(https, "two.example.com").is_some());
    assert_eq!(std::fs::read(state.join("acme-account.json")).unwrap(), account);

    // Without the authority the last one is shown, by the next control plane, too; and it is said what is waited for.
    drop(pebble);
    host.kill_control();
    let arguments = with("http-01");
    host.restart_control_with(&arguments.each_ref().map(String::as_str));
    assert!(shown(https, "two.example.com").is_some());
    project.edit("kiln.toml", "two.example.com", "three.example.com");
    host.deploy(&project);
    host.wait_until("it is said what is waited for", || {
        let status = host.json(&["status"]).to_string();
        status.contains("the next attempt at a certificate for three.example.com, after 1 failure")
    });
    let status = said(&host.kiln(&["status"]));
    let why = "no certificate can be got for three.example.com since ";
    assert!(status.lines().any(|line| line.starts_with(&format!("warning: {why}"))), "{status}");
    let log = std::fs::read_to_string(host.root.path().join("run/edge.log")).unwrap();
    assert!(log.contains("no certificate was got for three.example.com: "), "{log}");
}

#[test]
fn previews_get_certificates_of_their_own_and_hurt_nobody_that_do_not() {
    let mut host = TestHost::start();
    let address: SocketAddr = host.address.trim_start_matches("http://").parse().unwrap();
    let https = free();
    let pebble = Pebble::start(address.port(), https.port(), 3600);
    let (url, roots, listen) = (pebble.url(), pebble.roots(), https.to_string());
    host.leave_control();
    host.restart_control_with(&["--listen-tls", &listen, "--acme", &url, "--acme-roots", &roots]);
    let project = Project::example("hello");
    let routes = ["nowhere", "zoo"]
        .map(|name| format!("[route.{name}]\nhost = \"{name}.example.com\"\nservice = \"web\"\n\n"))
        .concat();
    let wild = "[route.all]\nhost = \"*.example.org\"\nservice = \"web\"\n\n";
    let routes = format!("{routes}{wild}[tls]\nautomatic = true\n\n[deploy]");
    project.edit("kiln.toml", "[route.web]\nservice = \"web\"\n\n[deploy]", &routes);
    let canary = "strategy  = { canary = [\"50%\"], hold = \"1s\", preview = true }";
    project.edit("kiln.toml", "strategy  = \"blue-green\"", canary);

    // A name for all names below it is doubtful from the beginning, and stays so.
    let doubt = "`[tls] automatic` gets no certificate for *.example.org: ";
    let warns =
        |text: &str, of: &str| text.lines().any(|line| line.contains("warning: ") && line.contains(of));
    let planned = said(&host.kiln(&["plan", project.dir()]));
    assert!(warns(&planned, doubt), "{planned}");
    let deployed = said(&host.kiln(&["deploy", project.dir()]));
    assert!(warns(&deployed, doubt), "{deployed}");
    for name in ["nowhere.example.com", "zoo.example.com", "preview.zoo.example.com"] {
        host.wait_until(name, || shown(https, name).is_some());
    }
    host.wait_until("it is said what cannot be got", || {
        let status = said(&host.kiln(&["status"]));
        warns(&status, "no certificate can be got for preview.nowhere.example.com") && warns(&status, doubt)
    });
    let status = said(&host.kiln(&["status"]));
    assert!(warns(&status, "or ask with the header field X-Kiln-Preview"), "{status}");
    assert!(
        status.contains("the next attempt at a certificate for preview.nowhere.example.com, after"),
        "{status}"
    );
    assert!(
        !status.contains("certificate for zoo") && !status.contains("certificate for nowhere"),
        "{status}"
    );
}
