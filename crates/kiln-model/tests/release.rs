//! The canonical encoding of releases, held to golden vectors that `docs/design/release.md` shows, and what differs
//! between two.

use std::collections::BTreeMap;

use kiln_model::*;

/// What version 1 wrote: kept by stores that are older than secrets.
const FIRST: &str = include_str!("fixtures/release-1.json");
/// Everything version 2 knows.
const SECOND: &str = include_str!("fixtures/release-2.json");

const PAGE: &str = include_str!("../../../docs/design/release.md");

fn release(text: &str) -> Release {
    Release::decode(text.trim_end().as_bytes()).unwrap()
}

#[test]
fn golden_releases_keep_their_bytes_and_ids() {
    for (text, id) in
        [(FIRST, "r-01b5051b5b11fb5a410d3f3f0ecb004f"), (SECOND, "r-ea34f1e8bfa0079bd57d089a3532332b")]
    {
        let release = release(text);
        assert_eq!(String::from_utf8(release.encode()).unwrap(), text.trim_end());
        assert_eq!(release.id().as_str(), id);
        assert!(PAGE.contains(id), "{id} is not in docs/design/release.md");
    }
}

#[test]
fn an_encoding_that_is_not_canonical_is_refused() {
    let refused = |text: String| Release::decode(text.as_bytes()).unwrap_err().to_string();
    let second = SECOND.trim_end();
    assert_eq!(refused(format!("{second} ")), "it is not in the canonical encoding");
    assert_eq!(
        refused(
            second.replace(
                "\"drain\":\"30s\",\"keep_warm\":\"10m\"",
                "\"keep_warm\":\"10m\",\"drain\":\"30s\""
            )
        ),
        "it is not in the canonical encoding"
    );
    assert!(refused(second.replacen("\"format\":2", "\"format\":3", 1)).contains("run a newer Kiln"));
    let unknown = second.replacen("\"drain\"", "\"extra\":1,\"drain\"", 1);
    assert_eq!(refused(unknown), "it does not read as a release");
    for end in [0, 1, second.len() / 2, second.len() - 1] {
        assert_eq!(refused(second[..end].into()), "it does not read as a release");
    }
}

#[test]
fn every_byte_of_the_encoding_makes_another_release() {
    let base = release(SECOND);
    let web = |change: &dyn Fn(&mut ReleaseService)| {
        let mut other = base.clone();
        change(other.services.values_mut().next().unwrap());
        assert_ne!(other.id(), base.id());
        let found = differences(&base, &other, &|_| None);
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].to_string()
    };
    let secret = |s: &mut ReleaseService| {
        s.secrets.get_mut(&"API_KEY".parse().unwrap()).unwrap().version =
            "s-11111111111111111111".parse().unwrap();
    };
    assert_eq!(
        web(&secret),
        "service web: secret API_KEY s-0123456789abcdef0123 (also $API_KEY) → s-11111111111111111111 (also $API_KEY)"
    );
    assert_eq!(web(&|s| s.checks.clear()), "service web: check http / removed");
    assert_eq!(web(&|s| s.instances = 5), "service web: instances 4 → 5");
    assert_eq!(web(&|s| s.limits.memory = ByteSize(1 << 27)), "service web: limit memory 64MiB → 128MiB");
    let io = |s: &mut ReleaseService| s.limits.io = Some(IoLimits { read: None, reads: Some(100) });
    assert_eq!(web(&io), "service web: limit io.reads 100/s added");
    let may = |s: &mut ReleaseService| s.capabilities = [Capability::Kill].into();
    assert_eq!(web(&may), "service web: capability KILL added");
    assert_eq!(web(&|s| s.volatile[0].exec = true), "service web: volatile /run 4MiB → 4MiB, executable");
    assert_eq!(web(&|s| s.env.clear()), "service web: env GREETING removed");
    assert_eq!(web(&|s| s.run.stop_signal = 3), "service web: run stop_signal 15 → 3");
    assert_eq!(web(&|s| s.healthy_after = 3), "service web: health healthy_after 2 → 3");
    let mut other = base.clone();
    other.policy.clear();
    let found = differences(&base, &other, &|_| None);
    assert_eq!(found[0].to_string(), "policy forbid package telnetd removed");
    let older = Release { format: 1, ..base.clone() };
    assert_eq!(differences(&base, &older, &|_| None)[0].to_string(), "release format 2 → 1");
    let apart = web(&|s| s.run.argv = ["/usr/sbin/nginx", "-g", "daemon", "off;"].map(Into::into).into());
    assert_eq!(
        apart,
        "service web: run argv /usr/sbin/nginx -g 'daemon off;' → /usr/sbin/nginx -g daemon 'off;'"
    );
    assert_eq!(differences(&base, &base, &|_| None), []);
}

#[test]
fn whoever_is_told_discreetly_learns_what_becomes_of_a_variable_and_not_its_value() {
    let base = release(SECOND);
    let web = |change: &dyn Fn(&mut BTreeMap<String, String>)| {
        let mut other = base.clone();
        other.services.values_mut().for_each(|s| change(&mut s.env));
        differences(&base, &other, &|_| None)[0].discreetly()
    };
    let set =
        |name: &'static str| move |env: &mut BTreeMap<_, _>| drop(env.insert(name.into(), "token".into()));
    assert_eq!(web(&set("MODE")), "service web: env MODE added");
    assert_eq!(web(&set("GREETING")), "service web: env GREETING changed");
    assert_eq!(web(&BTreeMap::clear), "service web: env GREETING removed");
}

#[test]
fn images_are_compared_by_packages_and_files() {
    let old = release(FIRST);
    let mut new = old.clone();
    let web = new.services.values_mut().next().unwrap();
    web.image = ImageDigest(Sha256::of(b"another"));
    web.env.insert("GREETING".into(), "good day".into());
    let package = |name: &str, version: &str| PackageRef {
        name: name.into(),
        version: version.into(),
        architecture: "amd64".into(),
    };
    let of_new = web.image;
    let contents = |image: &ImageDigest| {
        let (version, file) = if *image == of_new { ("1.1", "b") } else { ("1.0", "a") };
        let files =
            BTreeMap::from([("/srv/index.html".to_owned(), file.to_owned()), ("/etc".into(), "d".into())]);
        Some(Contents { packages: vec![package("nginx", version), package("libc6", "2.36")], files })
    };
    let lines: Vec<String> = differences(&old, &new, &contents).iter().map(Difference::discreetly).collect();
    let images =
        format!("service web: image {} → {}", ImageDigest(Sha256::of(b"abc")).short(), of_new.short());
    assert_eq!(
        lines,
        [
            images.as_str(),
            "service web: package nginx 1.0 → 1.1",
            "service web: file /srv/index.html a → b",
            "service web: env GREETING changed",
        ]
    );
}
