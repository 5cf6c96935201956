//! Certificates whose time is over, has not begun, or ends soon: shown all the same, and everybody is told.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_testkit::shifted_clock::ShiftedClock;

use crate::host::{KILN, TestHost, free, said};
use crate::project::Project;

const NAME: &str = "hello.example.com";
const DAY: i64 = 24 * 3600;
/// The first of January 2030 and 2040.
const FROM: i64 = 1_893_456_000;
const UNTIL: i64 = 2_208_988_800;

/// Writes a certificate for [`NAME`] that is good from the first of one January to the first of another.
fn write(project: &Project, from: i32, until: i32) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    // In one go: whoever looks in between finds what was there before.
    project.write("key.pem", &key.serialize_pem());
    project.write("cert.pem", &params.self_signed(&key).unwrap().pem());
}

/// What `openssl s_client` thinks of the certificate, its authority aside.
fn judged(project: &Project, https: SocketAddr) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-verify_return_error", "-connect", &https.to_string(), "-servername", NAME])
        .arg("-CAfile")
        .arg(Path::new(project.dir()).join("cert.pem"))
        .stdin(Stdio::null())
        .output()
        .expect("openssl");
    said(&output)
}

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// The figure of this name, whatever its labels.
fn figure(metrics: SocketAddr, name: &str) -> Option<i64> {
    let text =
        ureq::get(format!("http://{metrics}/metrics")).call().unwrap().into_body().read_to_string().unwrap();
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

/// What there is to be told of certificates.
fn warnings(host: &TestHost) -> Vec<String> {
    let status = host.json(&["status"]);
    let all = status["warnings"].as_array().unwrap().iter().map(|w| w.as_str().unwrap().to_owned());
    all.filter(|warning| warning.contains(".pem")).collect()
}

#[test]
fn an_expired_certificate_is_shown_and_everybody_is_told() {
    let (clock, project) = (ShiftedClock::new(), Project::example("hello"));
    let mut host = TestHost::start();
    host.leave_control();
    let (https, metrics) = (free(), free());
    let arguments =
        ["--listen-tls", &https.to_string(), "--metrics", &metrics.to_string()].map(str::to_owned);
    let arguments = arguments.each_ref().map(String::as_str);
    host.restart_control_as_with(&clock.wrapped(Path::new(KILN)), &arguments);
    write(&project, 2019, 2020);
    let tls = format!(
        "[tls]\ncertificates = [{{ cert = \"{0}/cert.pem\", key = \"{0}/key.pem\" }}]\n\n[deploy]",
        project.dir()
    );
    project.edit("kiln.toml", "[deploy]", &tls);

    // Whoever plans or deploys is told, and does it.
    let words = format!(
        "the certificate for {NAME} in {}/cert.pem expired on 2020-01-01T00:00:00.000Z",
        project.dir()
    );
    for command in ["plan", "deploy"] {
        let output = host.kiln(&[command, project.dir()]);
        assert!(output.status.success(), "{}", said(&output));
        assert!(said(&output).contains(&format!("warning: {words}")), "{}", said(&output));
    }
    // Whoever looks is told, too; the log has it once.
    assert!(warnings(&host).iter().any(|w| w.starts_with(&words)), "{:?}", warnings(&host));
    assert!(said(&host.kiln(&["status"])).contains(&format!("warning: {words}")));
    let log = || std::fs::read_to_string(host.root.path().join("run/edge.log")).unwrap();
    assert_eq!(log().matches(&words).count(), 1, "{}", log());
    assert_eq!(figure(metrics, "kiln_edge_certificate_not_after_timestamp_seconds{"), Some(1_577_836_800));
    // Clients decide: those who look leave, and are counted; those who do not are served.
    let refused = "kiln_edge_failed_handshakes_total{cause=\"certificate_refused\"}";
    assert_eq!(figure(metrics, refused), Some(0));
    assert!(judged(&project, https).contains("certificate has expired"));
    host.wait_until("it is counted", || figure(metrics, refused) == Some(1));
    let tls = ureq::tls::TlsConfig::builder().disable_verification(true).build();
    let agent = ureq::Agent::new_with_config(ureq::Agent::config_builder().tls_config(tls).build());
    let ask = || agent.get(format!("https://{https}/")).call().unwrap().status();
    assert_eq!(ask(), 200);

    // It is renewed, and the clock passes over its whole time, in both directions.
    write(&project, 2030, 2040);
    for (at, told) in [
        (now(), Some("is good from 2030-01-01")),
        (FROM + DAY, None),
        (UNTIL - 2 * DAY, Some("ends on 2040-01-01")),
        (UNTIL + DAY, Some("expired on 2040-01-01")),
        (FROM + DAY, None),
    ] {
        clock.jump(at - now());
        host.wait_until("it is told how it stands", || match (&warnings(&host)[..], told) {
            ([], None) => true,
            ([one], Some(told)) => one.contains(told),
            _ => false,
        });
        assert_eq!(ask(), 200);
        assert_eq!(figure(metrics, "kiln_edge_certificate_not_before_timestamp_seconds{"), Some(FROM));
    }
    assert!(log().contains("ends on 2040-01-01") && log().contains("expired on 2040-01-01"), "{}", log());

    // A renewal that goes wrong is told of; the one before stays, when control dies over it, too.
    project.write("key.pem", "not a key");
    host.wait_until("it is told that it cannot be used", || {
        warnings(&host).iter().any(|w| w.contains("key.pem") && w.contains("the private key cannot be read"))
    });
    host.kill_control();
    host.restart_control_as_with(Path::new(KILN), &arguments);
    host.wait_until("the next one tells it, too", || !warnings(&host).is_empty());
    assert_eq!(figure(metrics, "kiln_edge_certificate_not_after_timestamp_seconds{"), Some(UNTIL));
    assert_eq!(ask(), 200);
    let refused = host.kiln(&["plan", project.dir()]);
    assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
}

/// A host without a door for TLS sends visitors away on an app's word, and says so; one with somebody in front who may
/// speak TLS does not.
#[test]
fn who_is_sent_to_https_where_nobody_listens_is_told_of() {
    let project = Project::example("hello");
    let mut host = TestHost::start();
    project.edit("kiln.toml", "[route.web]", "[route.web]\nhttps = \"redirect\"");
    let words = "visitors of any host are sent to https, and nobody listens there";
    for command in ["plan", "deploy"] {
        let output = host.kiln(&[command, project.dir()]);
        assert!(output.status.success(), "{}", said(&output));
        assert!(said(&output).contains(&format!("warning: {words}")), "{}", said(&output));
    }
    let is_told = |host: &TestHost| {
        let all = host.json(&["status"])["warnings"].to_string();
        all.contains(words)
    };
    assert!(is_told(&host));
    assert!(said(&host.kiln(&["status"])).contains(&format!("warning: {words}")));
    // Both what helps and what the host cannot know of end it.
    for arguments in [["--trust", "127.0.0.0/8"], ["--listen-tls", &free().to_string()]] {
        host.leave_control();
        host.restart_control_as_with(Path::new(KILN), &arguments);
        host.wait_until("it is not told any more", || !is_told(&host));
        let output = host.kiln(&["plan", project.dir()]);
        assert!(output.status.success() && !said(&output).contains(words), "{}", said(&output));
    }
}
