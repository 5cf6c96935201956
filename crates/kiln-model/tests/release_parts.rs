//! Whatever is in the encoding of a release is told by `kiln releases show` and `kiln releases diff`.

use kiln_model::*;
use serde_json::Value;

/// A release with everything a release may have.
const FULL: &str = include_str!("fixtures/release-full.json");

/// The same, written so that it does not compile when a release may have more.
fn full() -> Release {
    let sha = Sha256::of(b"abc");
    let service = ReleaseService {
        image: ImageDigest(sha),
        run: RunSettings {
            argv: vec!["/usr/sbin/nginx".into(), "-g".into(), "daemon off;".into()],
            user: "www-data".into(),
            uid: 33,
            gid: 34,
            groups: vec![4, 5],
            env: [("PATH".to_owned(), "/usr/bin".to_owned())].into(),
            workdir: "/srv".into(),
            stop_signal: 3,
            stop_grace: Millis(10_000),
        },
        env: [("GREETING".to_owned(), "hello".to_owned()), ("PATH".to_owned(), "/usr/bin".to_owned())].into(),
        volatile: vec![Volatile { path: "/run".into(), size: ByteSize(4 << 20), exec: true }],
        port: 8080,
        protocol: Protocol::H2c,
        circuit: Some(Circuit { in_flight: 16, queue: 64, queue_time: Millis(2_000) }),
        instances: 4,
        limits: Limits {
            memory: ByteSize(64 << 20),
            cpu_millis: 500,
            pids: 256,
            io: Some(IoLimits { read: Some(ByteSize(10 << 20)), reads: Some(100) }),
        },
        probe: Probe::Http(HttpProbe {
            path: "/health".into(),
            status: Some(204),
            contains: Some("well".into()),
        }),
        probe_interval: Millis(100),
        probe_timeout: Millis(1_000),
        healthy_after: 2,
        unhealthy_after: 3,
        start_timeout: Millis(30_000),
        secrets: [(
            "API_KEY".parse().unwrap(),
            PinnedSecret {
                version: "s-0123456789abcdef0123".parse().unwrap(),
                env: Some("API_TOKEN".into()),
            },
        )]
        .into(),
        checks: [PassedCheck { check: "http /".into(), key: sha }].into(),
        needs: [
            ("api".parse().unwrap(), Need::Service { port: 9000 }),
            ("db".parse().unwrap(), Need::Store { address: "192.0.2.7:5432".parse().unwrap() }),
        ]
        .into(),
        hooks: Hooks {
            before: vec![Hook { run: vec!["/bin/migrate".into()], timeout: Millis(60_000) }],
            after: vec![Hook { run: vec!["/bin/notify".into()], timeout: Millis(5_000) }],
        },
        capabilities: [Capability::Kill].into(),
    };
    Release {
        format: Release::FORMAT,
        app: "hello".parse().unwrap(),
        services: [("web".parse().unwrap(), service)].into(),
        routes: [(
            "main".parse().unwrap(),
            ReleaseRoute {
                host: Some("www.example.com".parse().unwrap()),
                path: "/shop".into(),
                service: "web".parse().unwrap(),
                https: HttpsRule::Redirect,
                max_body: Some(ByteSize(10 << 20)),
                timeout: Some(Millis(300_000)),
            },
        )]
        .into(),
        tcp: [("git".parse().unwrap(), ReleaseTcpRoute { port: 9418, service: "web".parse().unwrap() })]
            .into(),
        certificates: vec![CertificatePaths {
            cert: "/etc/tls/cert.pem".into(),
            key: "/etc/tls/key.pem".into(),
        }],
        drain: Millis(30_000),
        keep_warm: Millis(600_000),
        schema: Some(SchemaRange { oldest: 6, newest: 7 }),
        automatic_tls: true,
        canary: Some(Canary {
            shares: vec!["5%".parse().unwrap(), "50%".parse().unwrap()],
            terms: Terms {
                hold: Millis(60_000),
                within: Millis(600_000),
                errors: "1%".parse().unwrap(),
                slower: "20%".parse().unwrap(),
            },
            preview: true,
        }),
        policy: ["forbid package telnetd".to_owned()].into(),
    }
}

#[test]
fn the_fixture_has_everything() {
    assert_eq!(String::from_utf8(full().encode()).unwrap(), FULL.trim_end());
}

/// Other values for a place in the encoding; those that the place does not take are passed over.
fn others(value: &Value) -> Vec<Value> {
    let texts = [
        "h2c",
        "optional",
        "http1",
        "7s",
        "9MiB",
        "another",
        "/another",
        "30%",
        "SYS_ADMIN",
        "FOWNER",
        "NET_BIND_SERVICE",
        "192.0.2.8:5432",
        "www.example.org",
        "s-11111111111111111111",
    ];
    let digest = Sha256::of(b"another");
    let words = [digest.hex(), format!("sha256:{}", digest.hex())];
    match value {
        Value::Bool(it) => vec![(!it).into()],
        Value::Number(it) => vec![(it.as_u64().unwrap() + 1).into()],
        Value::String(_) => texts.iter().map(|t| Value::from(*t)).chain(words.map(Value::from)).collect(),
        Value::Null | Value::Array(_) | Value::Object(_) => Vec::new(),
    }
}

/// Every leaf of `value`, as the way to it.
fn leaves(value: &Value, way: String, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields
                .iter()
                .for_each(|(key, value)| leaves(value, format!("{way}/{}", key.replace('/', "~1")), found));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, value)| leaves(value, format!("{way}/{n}"), found));
        }
        _ => found.push(way),
    }
}

fn told(release: &Release) -> String {
    let parts = release.parts_of_services().into_values().chain([Parts::of_release(release)]);
    parts.flat_map(|p| p.iter().map(|part| format!("{part:?}\n")).collect::<Vec<_>>()).collect()
}

#[test]
fn whatever_is_in_the_encoding_is_shown_and_compared() {
    let base = full();
    let document: Value = serde_json::to_value(&base).unwrap();
    let mut places = Vec::new();
    leaves(&document, String::new(), &mut places);
    assert!(places.len() > 60, "{places:?}");
    for place in places {
        // Neither is a release that this Kiln, or any, could have made.
        let another = |value: Value| {
            let mut changed = document.clone();
            *changed.pointer_mut(&place).unwrap() = value;
            serde_json::from_value::<Release>(changed).ok().filter(|r| r.id() != base.id())
        };
        let other = others(document.pointer(&place).unwrap()).into_iter().find_map(another);
        let other = other.unwrap_or_else(|| panic!("no other value was found for {place}"));
        assert_ne!(told(&other), told(&base), "{place} is not shown");
        let found = differences(&base, &other, &|_| None);
        assert!(!found.is_empty() && found.iter().all(|d| d.name != "encoding"), "{place}: {found:?}");
    }
}
