//! What a good spec means.

use std::collections::BTreeMap;

use kiln_model::spec::{Base, Ingredients, NotReleasable, schema};
use kiln_model::{
    ByteSize, Check, ExitCode, Failure, Handmade, HttpProbe, ImageDigest, ImageFormat, ImageRecord, Limits,
    Millis, Probe, Release, RunSettings, SecretName, Sha256, Spec, SpecFile,
};

const PRODUCT: &str = include_str!("fixtures/product.toml");

const SMALLEST: &str = r#"
app = "hello"
[image.web]
from = "scratch"
run = ["/web"]
[service.web]
image = "web"
port = 8080
"#;

fn parse(text: &str) -> Spec {
    Spec::parse("kiln.toml", text).unwrap_or_else(|e| panic!("{e}: {:#?}", e.problems))
}

/// The smallest spec with more lines in `[image.web]`.
fn with_image(lines: &str) -> Spec {
    parse(&SMALLEST.replace("[service.web]", &format!("{lines}\n[service.web]")))
}

#[test]
fn every_key_of_the_products_example_has_the_right_shape() {
    let file = SpecFile::parse("kiln.toml", PRODUCT).unwrap();
    assert_eq!(file.service["web"].needs, ["db"]);
    assert_eq!(file.image["web"].check.len(), 2);
}

#[test]
fn what_is_not_said_has_a_sensible_value() {
    let spec = parse(SMALLEST);
    let service = spec.services.values().next().unwrap();
    assert_eq!(service.instances, 1);
    assert_eq!(service.limits, Limits { memory: ByteSize(128 << 20), cpu_millis: 1000, pids: 256, io: None });
    assert_eq!(service.health.probe, Probe::Tcp);
    assert_eq!((service.health.healthy_after, service.health.unhealthy_after), (2, 3));
    assert_eq!((spec.drain, spec.keep_warm), (Millis(30_000), Millis(600_000)));
    let image = spec.images.values().next().unwrap();
    assert_eq!(image.base, Base::Scratch);
    assert_eq!(
        (image.user.as_deref(), image.workdir.as_deref(), image.stop_signal),
        (Some("root"), Some("/"), Some(15))
    );
    let volatile: Vec<&str> = image.volatile.iter().map(|v| v.path.as_str()).collect();
    assert_eq!(volatile, ["/run", "/tmp", "/var/tmp"]);
}

#[test]
fn the_only_service_takes_every_request_unless_routes_say_otherwise() {
    let spec = parse(SMALLEST);
    let route = spec.routes.values().next().unwrap();
    assert_eq!((route.host.as_ref(), route.path.as_str(), route.service.as_str()), (None, "/", "web"));

    let two = format!("{SMALLEST}\n[service.api]\nimage = \"web\"\nport = 1\n");
    assert!(parse(&two).routes.is_empty());

    let routed =
        format!("{two}\n[route.api]\npath = \"/api/\"\nservice = \"api\"\nhost = \"A.example.com\"\n");
    let spec = parse(&routed);
    assert_eq!(spec.routes.len(), 1);
    let route = spec.routes.values().next().unwrap();
    assert_eq!(route.path, "/api");
    assert_eq!(route.host.as_ref().unwrap().as_str(), "a.example.com");
}

#[test]
fn packages_keep_their_order_and_may_come_from_further_suites() {
    let text = SMALLEST.replace("scratch", "debian:bookworm");
    let lines = r#"
        packages = ["zsh", "nginx=1.22.*", "curl/bookworm-backports", "zsh"]
        suites = ["bookworm-backports", { name = "trixie", priority = 50 }]
    "#;
    let spec = parse(&text.replace("[service.web]", &format!("{lines}\n[service.web]")));
    let image = spec.images.values().next().unwrap();
    assert_eq!(image.packages, ["zsh", "nginx=1.22.*", "curl/bookworm-backports"]);
    let suites: Vec<_> = image.suites.iter().map(|s| (s.name.as_str(), s.priority)).collect();
    assert_eq!(suites, [("bookworm-backports", 100), ("trixie", 50)]);
}

#[test]
fn every_kind_of_check_is_understood() {
    let spec = with_image(
        r#"
        [[image.web.check]]
        run = ["/web", "--check"]
        timeout = "5s"
        [[image.web.check]]
        http = { path = "/healthz", status = 204 }
        [[image.web.check]]
        port = 9090
        [[image.web.check]]
        file = { path = "/etc/motd", mode = "0644", owner = "root", contains = "hi" }
        [[image.web.check]]
        package = { name = "nginx-light", version = "1.22.*" }
        [[image.web.check]]
        package = "libc6"
        "#,
    );
    let probe = HttpProbe { path: "/healthz".into(), status: Some(204), contains: None };
    let package = |name: &str, version: Option<&str>| Check::Package {
        name: name.into(),
        version: version.map(str::to_owned),
    };
    assert_eq!(
        spec.images.values().next().unwrap().checks,
        [
            Check::Run { argv: vec!["/web".into(), "--check".into()], timeout: Millis(5_000) },
            Check::Http { probe, port: 8080, timeout: Millis(30_000) },
            Check::Port { port: 9090, timeout: Millis(30_000) },
            Check::File {
                path: "/etc/motd".into(),
                mode: Some(0o644),
                owner: Some("root".into()),
                contains: Some("hi".into()),
            },
            package("nginx-light", Some("1.22.*")),
            package("libc6", None),
        ]
    );
}

#[test]
fn volatile_paths_are_added_to_the_usual_ones_and_may_resize_them() {
    let spec = with_image(r#"volatile = ["/var/cache/app/", { path = "/tmp", size = "1MiB" }]"#);
    let volatile: BTreeMap<&str, u64> = spec
        .images
        .values()
        .next()
        .unwrap()
        .volatile
        .iter()
        .map(|v| (v.path.as_str(), v.size.0 >> 20))
        .collect();
    assert_eq!(
        volatile,
        BTreeMap::from([("/run", 4), ("/tmp", 1), ("/var/cache/app", 16), ("/var/tmp", 16)])
    );
}

#[test]
fn a_mirror_and_signals_and_cpu_shares() {
    let text = SMALLEST.replace("run = ", "stop_signal = \"quit\"\nrun = ").replace("8080", "8080\ncpu = 2")
        + "[sources.debian]\nmirror = \"http://mirror.example.com/debian/\"\n";
    let spec = parse(&text);
    assert_eq!(spec.images.values().next().unwrap().stop_signal, Some(3));
    assert_eq!(spec.services.values().next().unwrap().limits.cpu_millis, 2000);
    assert_eq!(spec.sources.debian_mirror.as_deref(), Some("http://mirror.example.com/debian"));
}

fn record(content: &[u8]) -> ImageRecord {
    let env = BTreeMap::from([("A".into(), "image".into()), ("B".into(), "image".into())]);
    let run = RunSettings { env, ..RunSettings::as_root(["/web"]) };
    ImageRecord {
        format: ImageFormat::default(),
        digest: ImageDigest(Sha256::of(content)),
        name: "web".parse().unwrap(),
        metadata_bytes: 1,
        content_bytes: 1,
        entries: 1,
        packages: vec![],
        run,
        volatile: vec![],
        inputs: Sha256::of(b"inputs"),
        documents: BTreeMap::new(),
        left_out: vec![],
        handmade: None,
    }
}

fn released(spec: &Spec, content: &[u8]) -> Result<Release, NotReleasable> {
    let images = BTreeMap::from([("web".parse().unwrap(), record(content))]);
    spec.release(&Ingredients { images: &images, secrets: &BTreeMap::new(), policy: Default::default() })
}

#[test]
fn the_same_spec_and_images_make_the_same_release_and_others_another() {
    let spec = parse(&SMALLEST.replace("port = 8080", "port = 8080\nenv = { A = \"service\" }"));
    let release = released(&spec, b"one").unwrap();
    assert_eq!(release.id(), released(&spec, b"one").unwrap().id());
    assert_ne!(release.id(), released(&spec, b"two").unwrap().id());
    assert_ne!(release.id(), released(&parse(SMALLEST), b"one").unwrap().id());
    let env = &release.services.values().next().unwrap().env;
    assert_eq!((env["A"].as_str(), env["B"].as_str()), ("service", "image"));
}

#[test]
fn no_release_without_a_service_or_its_image() {
    let (images, secrets) = (BTreeMap::new(), BTreeMap::new());
    let nothing = Ingredients { images: &images, secrets: &secrets, policy: Default::default() };
    let missing = parse(SMALLEST).release(&nothing);
    assert_eq!(missing, Err(NotReleasable::NotBaked("web".parse().unwrap())));
    let images_only = parse("app = \"hello\"\n[image.web]\nfrom = \"scratch\"\nrun = [\"/web\"]\n");
    assert_eq!(images_only.release(&nothing), Err(NotReleasable::NoService));
}

#[test]
fn the_schema_knows_every_section_and_allows_no_other_key() {
    let schema = schema();
    assert_eq!(schema["additionalProperties"], false);
    let sections: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
    assert_eq!(sections, ["app", "deploy", "image", "policy", "route", "service", "sources", "store", "tls"]);
    assert!(!schema.to_string().contains("null"), "TOML has no null");
}

#[test]
fn secrets_are_files_and_variables_if_asked_for() {
    let text = "port = 8080\nsecrets = [\"API_KEY\", { name = \"DB\", env = \"DB_PASSWORD\" }]";
    let spec = parse(&SMALLEST.replace("port = 8080", text));
    let missing = spec.missing_secrets(&BTreeMap::new());
    assert_eq!(missing.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["API_KEY", "DB"]);
    assert_eq!(released(&spec, b"one"), Err(NotReleasable::NoSecret("API_KEY".parse().unwrap())));
    let images = BTreeMap::from([("web".parse().unwrap(), record(b"one"))]);
    let version = |c: char| format!("s-{}", c.to_string().repeat(20)).parse().unwrap();
    let with = |key: char| {
        let secrets =
            [("API_KEY".parse().unwrap(), version(key)), ("DB".parse().unwrap(), version('d'))].into();
        spec.release(&Ingredients { images: &images, secrets: &secrets, policy: Default::default() }).unwrap()
    };
    let secrets = &with('a').services.values().next().unwrap().secrets.clone();
    let pinned = |name: &str| &secrets[&name.parse::<SecretName>().unwrap()];
    assert_eq!((&pinned("API_KEY").version, &pinned("API_KEY").env), (&version('a'), &None));
    assert_eq!(pinned("DB").env.as_deref(), Some("DB_PASSWORD"));
    assert_ne!(with('a').id(), with('b').id(), "another version is another release");
}

const POLICY: &str = "\n[policy]\nrequire_packages = [\"ca-certificates\", \"openssl >= 3.0\"]\n\
    forbid_packages = [\"telnet\", \"openssl<2\"]\nrequire_checks = [\"file\"]\n";

fn with_packages(packages: &[(&str, &str)]) -> BTreeMap<kiln_model::ImageName, ImageRecord> {
    let one = |(name, version): &(&str, &str)| kiln_model::PackageRef {
        name: (*name).into(),
        version: (*version).into(),
        architecture: "amd64".into(),
    };
    let packages = packages.iter().map(one).collect();
    BTreeMap::from([("web".parse().unwrap(), ImageRecord { packages, ..record(b"one") })])
}

#[test]
fn a_policy_that_is_kept_becomes_part_of_the_release() {
    let text = format!("{SMALLEST}\n[[image.web.check]]\nfile = {{ path = \"/web\" }}\n{POLICY}");
    let spec = parse(&text);
    let images = with_packages(&[("ca-certificates", "1"), ("openssl", "3.1")]);
    let kept = spec.kept_policy(&images, &|a, b| a.cmp(b), ("kiln.toml", &text)).unwrap();
    let words: Vec<&str> = kept.iter().map(String::as_str).collect();
    assert_eq!(
        words,
        [
            "forbid package openssl<2",
            "forbid package telnet",
            "require check file",
            "require package ca-certificates",
            "require package openssl>=3.0",
        ]
    );
}

#[test]
fn a_policy_that_is_broken_names_the_line_and_the_package() {
    let text = format!("{SMALLEST}{POLICY}");
    let images = with_packages(&[("openssl", "1.1"), ("telnet", "0.17")]);
    let refused = parse(&text).kept_policy(&images, &|a, b| a.cmp(b), ("kiln.toml", &text)).unwrap_err();
    let failure = kiln_model::Failure::from(refused);
    assert_eq!(failure.code, kiln_model::ExitCode::Policy);
    let line = |n: usize| failure.problems[n].source.split(' ').next().unwrap().to_owned();
    assert_eq!(
        [0, 1, 2, 3, 4].map(line),
        ["require_packages", "require_packages", "forbid_packages", "forbid_packages", "require_checks"]
    );
    let messages: Vec<&str> = failure.problems.iter().map(|p| p.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "image `web` does not hold the package ca-certificates",
            "image `web` does not hold openssl>=3.0: it has openssl 1.1",
            "image `web` holds telnet 0.17, which telnet forbids",
            "image `web` holds openssl 1.1, which openssl<2 forbids",
            "image `web` has no file check",
        ]
    );
    let span = &failure.problems[1].span;
    assert_eq!(&failure.problems[1].source[span.clone()], "\"openssl >= 3.0\"");
}

#[test]
fn a_policy_that_is_none_is_refused_as_the_spec_is_read() {
    let text =
        format!("{SMALLEST}\n[policy]\nforbid_packages = [\"open ssl<\"]\nrequire_checks = [\"htp\"]\n");
    let problems = Spec::parse("kiln.toml", &text).unwrap_err().problems;
    assert!(problems[0].message.contains("does not say which package is meant"), "{problems:?}");
    assert_eq!(problems[1].nearest.as_deref(), Some("http"));
}

/// Whatever else is in the spec: the line that would have to be written is not.
#[test]
fn handmade_images_need_a_word_in_the_policy() {
    let text = SMALLEST.replace("from = \"scratch\"", "from = \"image:fixed\"");
    let refused = parse(&text).allows_its_handmade(("kiln.toml", &text)).unwrap_err();
    let failure = Failure::from(refused);
    assert_eq!(failure.code, ExitCode::Policy);
    assert!(
        failure.problems[0].to_string().contains("image `web` starts from a handmade image"),
        "{failure:?}"
    );
    assert!(failure.hint.as_deref().unwrap_or_default().contains("`allow_handmade = true` under [policy]"));
    let allowed = format!("{text}\n[policy]\nallow_handmade = true\n");
    let spec = parse(&allowed);
    assert!(spec.allows_its_handmade(("kiln.toml", &allowed)).is_ok());
    let handmade = Handmade {
        name: "fixed".parse().unwrap(),
        image: ImageDigest(Sha256::of(b"before")),
        instance: "hello-web-1-1".parse().unwrap(),
        kept: vec!["/srv".into()],
    };
    let image = ImageRecord { handmade: Some(handmade), ..record(b"one") };
    let images = BTreeMap::from([("web".parse().unwrap(), image)]);
    let order = |a: &str, b: &str| a.cmp(b);
    let kept = spec.kept_policy(&images, &order, ("kiln.toml", &allowed)).unwrap();
    assert_eq!(kept, ["allow handmade images".to_owned()].into());
    assert!(parse(&text).kept_policy(&images, &order, ("kiln.toml", &text)).is_err(), "nor by another way");
}
