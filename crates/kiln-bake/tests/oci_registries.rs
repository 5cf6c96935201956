//! Registries that lie, cut off, refuse and want to be left alone; and who is asking. Needs docker-registry.

mod common;
mod oci_support;

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Quiet, baked, locked, try_bake, try_lock};
use kiln_bake::export::{Stored, push};
use kiln_model::{ExitCode, Failure, OciReference};
use kiln_store::Store;
use oci_support::{Answer, Asked, Fake, Image, Layer, Registry, from_oci, serving, tool};
use serde_json::json;

/// One layer whose bytes do not compress.
fn image() -> Image {
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    let content: Vec<u8> = noise.take(600_000).collect();
    let layer = Layer::new().program("run", b"#!/nothing\n").file("noise", &content).done();
    Image::of(&[layer], json!({"Entrypoint": ["/run"]}))
}

struct Place {
    project: tempfile::TempDir,
    state: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { project: tempfile::tempdir().unwrap(), state: tempfile::tempdir().unwrap() }
    }

    fn store(&self) -> Store {
        Store::open(self.state.path()).unwrap()
    }

    fn try_bake(&self, fake: &Fake) -> Result<kiln_bake::Baked, Failure> {
        let order = from_oci(self.project.path(), &format!("{}/team/app", fake.host));
        let lock = try_lock(&order, &self.store())?;
        try_bake(&order, &lock, &self.store())
    }

    /// What is said; the store is as it was.
    fn refused(&self, answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (String, Vec<String>) {
        let fake = Fake::new(answer);
        let failure = self.try_bake(&fake).unwrap_err();
        assert_eq!(failure.code, ExitCode::Bake, "{failure:?}");
        assert_eq!(self.store().verify().unwrap(), []);
        assert_eq!(self.store().images().unwrap(), []);
        let hint = failure.hint.unwrap_or_default();
        (format!("{}: {} ({hint})", failure.message, failure.causes.join(": ")), fake.paths())
    }
}

#[test]
fn a_registry_that_lies_is_found_out() {
    let image = image();
    let lie = |what: &'static str, change: fn(&mut Answer)| {
        let image = image.clone();
        Place::new().refused(move |asked| {
            let mut answer = serving(&image, asked);
            if asked.path.contains(what) {
                change(&mut answer);
            }
            answer
        })
    };
    let (said, _) = lie("manifests/latest", |a| a.body[2] ^= 1);
    assert!(said.contains("contradicts itself") && said.contains("/manifests/latest"), "{said}");
    let (said, _) = lie("blobs/", |a| a.body[20] ^= 1);
    assert!(said.contains("the configuration of") && said.contains("has sha256"), "{said}");
    let (said, _) = lie("blobs/", |a| a.body.push(0));
    assert!(said.contains("bytes and not the"), "{said}");
    let (said, _) = lie("manifests/", |a| a.body = vec![b' '; 5 << 20]);
    assert!(said.contains("larger than 4194304 bytes"), "{said}");
    let (said, _) = lie("manifests/", |a| {
        a.headers.clear();
        a.body = b"{\"schemaVersion\":2".to_vec();
    });
    assert!(said.contains("does not read as one"), "{said}");
}

#[test]
fn a_layer_that_is_cut_off_is_fetched_from_where_it_was_cut() {
    let image = image();
    let largest = image.blobs.values().map(Vec::len).max().unwrap();
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let cutting = image.clone();
    let fake = Fake::new(move |asked| {
        let mut answer = serving(&cutting, asked);
        if asked.path.contains("/blobs/") && answer.body.len() > 200_000 {
            answer.cut = Some(150_000);
        }
        if asked.path.contains("/blobs/") {
            count.fetch_add(answer.cut.unwrap_or(answer.body.len()), Ordering::SeqCst);
        }
        answer
    });
    let place = Place::new();
    let record = place.try_bake(&fake).unwrap().record;
    assert_eq!(record.run.argv, ["/run"]);
    let config = image.blobs.values().map(Vec::len).sum::<usize>() - largest - image.manifest_bytes().len();
    // Each byte came once, and a blob not smaller than two cuts in several pieces.
    assert_eq!(served.load(Ordering::SeqCst), largest + config);
    let ranges: Vec<_> =
        fake.asked.lock().unwrap().iter().filter_map(|a| a.headers.get("range").cloned()).collect();
    assert!(ranges.len() >= 3 && ranges[0] == "bytes=150000-", "{ranges:?}");
}

#[test]
fn a_little_more_each_time_gets_there() {
    let image = image();
    let place = Place::new();
    let slow = image.clone();
    let fake = Fake::new(move |asked| {
        let mut answer = serving(&slow, asked);
        if asked.path.contains("/blobs/") && answer.body.len() > 200_000 {
            answer.cut = Some(60_000);
        }
        answer
    });
    place.try_bake(&fake).unwrap();
    let asked = fake.asked.lock().unwrap().iter().filter(|a| a.headers.contains_key("range")).count();
    assert!(asked > 4, "{asked}");
}

#[test]
fn what_arrived_is_kept_for_the_next_attempt() {
    let image = image();
    let place = Place::new();
    let dying = image.clone();
    let (said, _) = place.refused(move |asked| {
        let mut answer = serving(&dying, asked);
        if asked.path.contains("/blobs/") && answer.body.len() > 10_000 {
            answer.cut = Some(if asked.headers.contains_key("range") { 0 } else { 300_000 });
        }
        answer
    });
    assert!(
        said.contains("was cut off at 300000 of") && said.contains("goes on where this attempt ended"),
        "{said}"
    );
    let well = image.clone();
    let fake = Fake::new(move |asked| serving(&well, asked));
    place.try_bake(&fake).unwrap();
    let asked = fake.asked.lock().unwrap();
    assert!(asked.iter().any(|a| a.headers.get("range").map(String::as_str) == Some("bytes=300000-")));
}

#[test]
fn a_registry_that_cannot_go_on_from_there_is_asked_for_all_of_it() {
    let image = image();
    let place = Place::new();
    let fake = Fake::new(move |asked| {
        let mut asked = asked.clone();
        let resumed = asked.headers.remove("range").is_some();
        let mut answer = serving(&image, &asked);
        if asked.path.contains("/blobs/") && answer.body.len() > 10_000 && !resumed {
            answer.cut = Some(100_000);
        }
        answer
    });
    place.try_bake(&fake).unwrap();
}

#[test]
fn a_busy_registry_is_asked_again_and_not_for_ever() {
    let image = image();
    let served = image.clone();
    let busy = AtomicUsize::new(0);
    let fake = Fake::new(move |asked| match busy.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::of(429, b"").header("Retry-After", "0"),
        2 => Answer::of(503, b"").header("Retry-After", "Thu, 01 Jan 2020 00:00:00 GMT"),
        4 => Answer::of(500, b""),
        _ => serving(&served, asked),
    });
    Place::new().try_bake(&fake).unwrap();

    let (said, paths) = Place::new().refused(|_| Answer::of(429, b"").header("Retry-After", "0"));
    assert!(said.contains("429, 5 times") && said.contains("/v2/team/app/manifests/latest"), "{said}");
    assert_eq!(paths.len(), 5);
    let (said, paths) = Place::new().refused(|_| Answer::of(503, b"").header("Retry-After", "3600"));
    assert!(said.contains("wants to be asked again in 3600 seconds"), "{said}");
    assert_eq!(paths.len(), 1);
}

#[test]
fn refusals_say_what_was_asked_and_as_whom() {
    let (said, paths) = Place::new().refused(|_| Answer::of(404, b""));
    assert!(
        said.contains("does not have it: GET http://127.0.0.1:") && said.contains("check the registry"),
        "{said}"
    );
    assert_eq!(paths, ["GET /v2/team/app/manifests/latest"]);
    let why = br#"{"errors":[{"code":"DENIED","message":"the quota is used up"}]}"#;
    let (said, _) = Place::new().refused(|_| Answer::of(403, why));
    assert!(
        said.contains("with 403, asked without credentials: {\"errors\":[{\"code\":\"DENIED\""),
        "{said}"
    );
    assert!(said.contains("log in"), "{said}");
    let (said, _) = Place::new().refused(|_| Answer::of(507, b"no space left").header("Retry-After", "60"));
    assert!(said.contains("asked again in 60 seconds: no space left"), "{said}");
    let (said, _) = Place::new().refused(|_| Answer::of(401, b""));
    assert!(said.contains("neither a name and password nor a token"), "{said}");
    let (said, _) = Place::new().refused(|_| Answer::of(418, b"a \x1b[31mteapot"));
    assert!(said.contains("418: a \\u{1b}[31mteapot"), "{said}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let place = Place::new();
    let order = from_oci(place.project.path(), &format!("{nobody}/app"));
    let failure = try_lock(&order, &place.store()).unwrap_err();
    assert!(failure.message.contains("no answer to GET") && failure.hint.is_some(), "{failure:?}");
}

#[test]
fn what_takes_everything_has_taken_nothing() {
    let (image, place) = (image(), Place::new());
    let fake = Fake::new(move |asked| serving(&image, asked));
    let digest = place.try_bake(&fake).unwrap().record.digest;
    let store = place.store();
    let stored = Stored::open(&store, &digest).unwrap();
    let pushed_to = |fake: &Fake| {
        let Ok(OciReference::Registry(to)) = format!("{}/team/app:1", fake.host).parse() else { panic!() };
        push(&stored, &to, "amd64", &Quiet).map_err(Failure::from)
    };
    let anything = Fake::new(|_| Answer::of(200, b"<html>welcome</html>").header("Location", "/somewhere"));
    let failure = pushed_to(&anything).unwrap_err();
    assert_eq!(failure.code, ExitCode::Bake);
    assert!(failure.message.contains("has another one now"), "{failure:?}");
    let forgetful = Fake::new(|asked| match asked.method.as_str() {
        "GET" => Answer::of(404, b""),
        _ => Answer::of(201, b"").header("Location", "/somewhere"),
    });
    let failure = pushed_to(&forgetful).unwrap_err();
    assert!(failure.message.contains("the registry does not have it: GET"), "{failure:?}");
}

#[test]
fn a_token_is_fetched_once_and_shown_to_the_registry_alone() {
    let image = image();
    let tokens = Arc::new(AtomicUsize::new(0));
    let given = Arc::clone(&tokens);
    let elsewhere = {
        let image = image.clone();
        Fake::new(move |asked| serving(&image, asked))
    };
    let moved = elsewhere.host.clone();
    let fake = Fake::new(move |asked| {
        if asked.path.starts_with("/token?") {
            given.fetch_add(1, Ordering::SeqCst);
            let good = asked.path.contains("scope=repository%3Ateam%2Fapp%3Apull")
                && asked.path.contains("service=me");
            return Answer::of(if good { 200 } else { 400 }, b"{\"token\":\"the-token\"}");
        }
        let host = &asked.headers["host"];
        if asked.headers.get("authorization").map(String::as_str) != Some("Bearer the-token") {
            let challenge = format!(
                "Bearer realm=\"http://{host}/token\",service=\"me\",scope=\"repository:team/app:pull\""
            );
            return Answer::of(401, b"").header("WWW-Authenticate", challenge);
        }
        match asked.path.contains("/blobs/") {
            true => Answer::of(307, b"").header("Location", format!("http://{moved}{}", asked.path)),
            false => serving(&image, asked),
        }
    });
    Place::new().try_bake(&fake).unwrap();
    // Once to lock and once to bake: two commands, two clients.
    assert!(tokens.load(Ordering::SeqCst) <= 2);
    let leaked = elsewhere.asked.lock().unwrap().iter().any(|a| a.headers.contains_key("authorization"));
    assert!(!leaked, "the token went along with the redirection");
    assert!(!elsewhere.paths().is_empty());
}

/// Runs this very test again in a process whose home has these files, and says how it went. `HOST` in a file or its name
/// stands for the registry.
fn at_home(test: &str, host: &str, files: &[(&str, &str)]) -> (bool, String) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        common::write(dir.path(), &name.replace("HOST", host), &text.replace("HOST", host));
    }
    let programs = dir.path().join("bin");
    for program in fs::read_dir(&programs).into_iter().flatten() {
        // Nobody forked by another test has what another process wrote open for writing.
        let (path, written) = (program.unwrap().path(), dir.path().join("written"));
        let status = Command::new("install").args(["-m", "755"]).args([&path, &written]).status();
        assert!(status.unwrap().success());
        fs::rename(written, path).unwrap();
    }
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("KILN_TEST_HOST", host)
        .env("HOME", dir.path())
        .env("PATH", path)
        .env_remove("DOCKER_CONFIG")
        .env_remove("REGISTRY_AUTH_FILE")
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("XDG_CONFIG_HOME")
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

/// What those processes do: bakes what the registry has, and pushes it back under another name.
fn pull_and_push(host: &str) {
    let place = Place::new();
    let order = from_oci(place.project.path(), &format!("{host}/app:1"));
    let record = baked(&order, &locked(&order, &place.store()), &place.store()).record;
    let store = place.store();
    let image = Stored::open(&store, &record.digest).unwrap();
    // A place that nobody else has pushed to: all of it is new there.
    let back = format!("{host}/team/back-{}:2", std::process::id());
    let Ok(OciReference::Registry(to)) = back.parse() else { panic!("{back}") };
    let pushed = push(&image, &to, "amd64", &Quiet).unwrap_or_else(|e| panic!("{:?}", Failure::from(e)));
    assert!(pushed.new_bytes > 0);
    let back = from_oci(place.project.path(), &back);
    assert_eq!(baked(&back, &locked(&back, &store), &store).record.digest, record.digest);
}

/// Puts the image into a registry with Debian's own tool.
fn filled(registry: &Registry, options: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    image().layout(dir.path(), "x");
    let (from, to) = (format!("oci:{}:x", dir.path().display()), format!("docker://{}/app:1", registry.host));
    let copy = [&["--insecure-policy", "copy", "--dest-tls-verify=false"], options, &[&from, &to]].concat();
    tool("skopeo", &copy);
}

#[test]
fn credentials_are_taken_from_where_login_puts_them() {
    const NAME: &str = "credentials_are_taken_from_where_login_puts_them";
    if let Ok(host) = std::env::var("KILN_TEST_HOST") {
        return pull_and_push(&host);
    }
    let registry = Registry::start("auth:\n  htpasswd:\n    realm: test\n    path: DIR/htpasswd\n");
    filled(&registry, &["--dest-creds=user:secret"]);
    let host = &registry.host;
    let run = |files: &[(&str, &str)]| at_home(NAME, host, files);
    // "user:secret" and "user:wrong"
    let good = r#"{"auths":{"HOST":{"auth":"dXNlcjpzZWNyZXQ="}}}"#;
    for place in [".config/containers/auth.json", ".docker/config.json"] {
        let (went_well, text) = run(&[(place, good)]);
        assert!(went_well, "{place}: {text}");
    }
    let bad = good.replace("dXNlcjpzZWNyZXQ=", "dXNlcjp3cm9uZw==");
    let (went_well, text) = run(&[(".docker/config.json", &bad)]);
    assert!(!went_well && text.contains("with the credentials of") && !text.contains("wrong"), "{text}");
    let (went_well, text) = run(&[]);
    assert!(!went_well && text.contains("without credentials"), "{text}");
    // Helpers, for one registry and for all.
    let helper = "#!/bin/sh\nread host; [ \"$1 $host\" = 'get HOST' ] && echo '{\"Username\":\"user\",\"Secret\":\"secret\"}'\n";
    let helper = ("bin/docker-credential-test", helper);
    for config in [r#"{"credHelpers":{"HOST":"test"}}"#, r#"{"credsStore":"test"}"#] {
        let (went_well, text) = run(&[(".docker/config.json", config), helper]);
        assert!(went_well, "{config}: {text}");
    }
    let (went_well, text) = run(&[(".docker/config.json", r#"{"credsStore":"absent"}"#)]);
    assert!(!went_well && text.contains("could not run `docker-credential-absent`"), "{text}");
}

/// An authority, and the certificate and key of a registry on this machine that it signed, in PEM.
fn authority() -> [String; 3] {
    let (key, own) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
    let mut of_authority = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    of_authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    of_authority.distinguished_name.push(rcgen::DnType::CommonName, "an authority of our own");
    let authority = of_authority.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(of_authority, key);
    let of_registry = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let signed = of_registry.signed_by(&own, &issuer).unwrap();
    [authority.pem(), signed.pem(), own.serialize_pem()]
}

#[test]
fn a_registry_of_an_authority_of_ones_own_or_without_tls_is_a_matter_of_configuration() {
    const NAME: &str = "a_registry_of_an_authority_of_ones_own_or_without_tls_is_a_matter_of_configuration";
    if let Ok(host) = std::env::var("KILN_TEST_HOST") {
        return pull_and_push(&host);
    }
    let [authority_pem, certificate, key] = authority();
    let tls = "  tls:\n    certificate: DIR/certificate.pem\n    key: DIR/key.pem\n";
    let safe = Registry::start_with(tls, &[("certificate.pem", &certificate), ("key.pem", &key)]);
    filled(&safe, &[]);
    let place = ".config/containers/certs.d/HOST/ca.crt";
    let (went_well, text) = at_home(NAME, &safe.host, &[(place, &authority_pem)]);
    assert!(went_well, "{text}");
    let [another, ..] = authority();
    let (went_well, text) = at_home(NAME, &safe.host, &[(place, &another)]);
    assert!(!went_well && text.contains("invalid peer certificate"), "{text}");
    assert!(text.contains(&format!("/etc/containers/certs.d/{}/ca.crt", safe.host)), "{text}");
    let (went_well, text) = at_home(NAME, &safe.host, &[(place, "nothing")]);
    assert!(!went_well && text.contains("it holds no certificate in PEM"), "{text}");

    // One that speaks plainly, where TLS is expected because of a certificate.
    let plain = Registry::start("");
    filled(&plain, &[]);
    let (went_well, text) = at_home(NAME, &plain.host, &[(place, &authority_pem)]);
    assert!(!went_well && text.contains("insecure = true"), "{text}");
    let settings = "[[registry]]\nlocation = \"HOST\"\ninsecure = true\n";
    let settings = (".config/containers/registries.conf", settings);
    let (went_well, text) = at_home(NAME, &plain.host, &[(place, &authority_pem), settings]);
    assert!(went_well, "{text}");
}
