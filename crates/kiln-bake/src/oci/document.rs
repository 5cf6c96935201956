//! The documents of an OCI image: index, manifest and configuration, also in the forms Docker gave them first.
//!
//! They come from outside. Sizes, counts and nesting are limited; digests are sha256; what is no image of programs
//! (a chart, an attestation, an encrypted layer) is told apart and refused by name.

use std::collections::BTreeMap;

use kiln_model::{Sha256, signal};
use serde::Deserialize;

use crate::settings::Settings;
use crate::users::LoneGroup;

/// The largest manifest or index that is read: what registries accept.
pub(crate) const LARGEST_MANIFEST: u64 = 4 << 20;
/// The largest configuration.
pub(crate) const LARGEST_CONFIG: u64 = 8 << 20;
/// More layers than this no runtime stacks.
const MOST_LAYERS: usize = 500;
/// Platforms, signatures and attestations of one image.
const MOST_MANIFESTS: usize = 2000;

const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
const LAYERS: [&str; 2] = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."];

/// A document that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadDocument(pub(crate) String);

fn bad<T>(problem: impl Into<String>) -> Result<T, BadDocument> {
    Err(BadDocument(problem.into()))
}

/// Something named by its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Sha256,
    pub(crate) size: u64,
    pub(crate) platform: Option<Platform>,
    /// `org.opencontainers.image.ref.name`: the tag it has in a layout.
    pub(crate) name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) variant: String,
}

/// What is found under a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Top {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

/// An image for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// What an image says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) platform: Platform,
    /// Digests of the layers, uncompressed.
    pub(crate) diff_ids: Vec<Sha256>,
    pub(crate) settings: Settings,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTop {
    schema_version: u64,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(flatten)]
    platform: Platform,
    config: Option<RawRun>,
    rootfs: RawRootfs,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawRun {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
}

impl Top {
    /// Reads a manifest or an index.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, BadDocument> {
        if bytes.len() as u64 > LARGEST_MANIFEST {
            return bad(format!("it is larger than the {LARGEST_MANIFEST} bytes of any manifest"));
        }
        let raw: RawTop = json(bytes)?;
        if raw.schema_version != 2 {
            return bad(format!("it is of schema version {}, and 2 is read", raw.schema_version));
        }
        match (raw.manifests, raw.config, raw.layers) {
            (Some(manifests), None, None) if manifests.len() <= MOST_MANIFESTS => {
                let all = manifests.into_iter().map(descriptor);
                Ok(Self::Index(all.collect::<Result<_, _>>()?))
            }
            (Some(_), None, None) => bad(format!("it lists more than {MOST_MANIFESTS} manifests")),
            (None, Some(config), Some(layers)) => Manifest::of(config, layers).map(Self::Manifest),
            _ => bad("it is neither the manifest of an image nor an index"),
        }
    }
}

impl Manifest {
    fn of(config: RawDescriptor, layers: Vec<RawDescriptor>) -> Result<Self, BadDocument> {
        let config = descriptor(config)?;
        if !CONFIGS.contains(&config.media_type.as_str()) {
            return bad(format!("it is no image of programs but of type `{}`", config.media_type));
        }
        if config.size > LARGEST_CONFIG {
            return bad(format!("its configuration of {} bytes is larger than any", config.size));
        }
        if layers.len() > MOST_LAYERS {
            return bad(format!("it has {} layers, and at most {MOST_LAYERS} can be stacked", layers.len()));
        }
        let layers = layers.into_iter().map(descriptor).collect::<Result<Vec<_>, _>>()?;
        for Descriptor { media_type, .. } in &layers {
            let known = LAYERS.iter().any(|prefix| media_type.starts_with(prefix));
            if !known || media_type.ends_with("+encrypted") {
                return bad(format!("it has a layer of type `{media_type}`, which cannot be read"));
            }
        }
        Ok(Self { config, layers })
    }
}

impl Config {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, BadDocument> {
        let raw: RawConfig = json(bytes)?;
        if raw.rootfs.diff_ids.len() > MOST_LAYERS {
            return bad(format!("it has more than {MOST_LAYERS} layers"));
        }
        let diff_ids = raw.rootfs.diff_ids.iter().map(|text| digest(text)).collect::<Result<_, _>>()?;
        Ok(Self { platform: raw.platform, diff_ids, settings: settings(raw.config.unwrap_or_default())? })
    }
}

fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, BadDocument> {
    serde_json::from_slice(bytes).map_err(|e| BadDocument(format!("it does not read as one: {e}")))
}

fn descriptor(raw: RawDescriptor) -> Result<Descriptor, BadDocument> {
    let name = raw.annotations.and_then(|mut all| all.remove("org.opencontainers.image.ref.name"));
    let RawDescriptor { media_type, size, platform, .. } = raw;
    Ok(Descriptor { media_type, digest: digest(&raw.digest)?, size, platform, name })
}

/// A sha256 with its algorithm before it, which other algorithms have as well.
pub(crate) fn digest(text: &str) -> Result<Sha256, BadDocument> {
    let shown: String = text.chars().take(100).collect();
    match text.strip_prefix("sha256:").map(str::parse) {
        Some(Ok(digest)) => Ok(digest),
        _ => bad(format!("`{}` is no digest: `sha256:` and 64 hex digits are read", shown.escape_debug())),
    }
}

fn settings(run: RawRun) -> Result<Settings, BadDocument> {
    let mut argv = run.entrypoint.unwrap_or_default();
    argv.extend(run.cmd.unwrap_or_default());
    let env = run.env.unwrap_or_default();
    if argv.iter().chain(&env).any(|text| text.contains('\0')) {
        return bad("its program or environment has a NUL byte");
    }
    let pair = |text: &String| text.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let workdir = given(run.working_dir);
    if workdir.as_ref().is_some_and(|dir| !dir.starts_with('/') || dir.contains('\0')) {
        return bad("its working directory is no absolute path");
    }
    Ok(Settings {
        argv,
        env: env.iter().filter_map(pair).filter(|(name, _)| !name.is_empty()).collect(),
        user: given(run.user),
        lone_group: LoneGroup::Root,
        workdir,
        stop_signal: given(run.stop_signal).map(|text| stop_signal(&text)).transpose()?,
    })
}

/// `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`, `SIGRTMAX-2`.
fn stop_signal(text: &str) -> Result<i32, BadDocument> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = match name.strip_prefix("RT") {
        Some(name) => real_time(name),
        None => text.parse().ok().or_else(|| signal::number(text)),
    };
    match number {
        Some(number @ 1..=64) => Ok(number),
        _ => bad(format!("`{}` is no signal", text.escape_debug())),
    }
}

/// What is behind `SIGRT`: one end of the signals that have no names, or counted from there.
fn real_time(name: &str) -> Option<i32> {
    const MIN: i32 = 34;
    const MAX: i32 = 64;
    let digits = |text: &str| text.parse::<u8>().ok().filter(|_| !text.starts_with('+')).map(i32::from);
    let number = match name.split_at_checked(3)? {
        (_, "") => Some(if name == "MIN" { MIN } else { MAX }),
        ("MIN", more) => more.strip_prefix('+').and_then(digits).map(|n| MIN + n),
        (_, less) => less.strip_prefix('-').and_then(digits).map(|n| MAX - n),
    };
    number.filter(|n| matches!(&name[..3], "MIN" | "MAX") && (MIN..=MAX).contains(n))
}

/// The one manifest of an index that is for this architecture; of several the one that runs on the most CPUs, whatever
/// this machine's is: the same index gives the same image everywhere.
pub(crate) fn choose<'a>(index: &'a [Descriptor], architecture: &str) -> Result<&'a Descriptor, BadDocument> {
    let fits = |p: &Platform| p.os == "linux" && p.architecture == architecture;
    let fitting = index.iter().filter_map(|d| d.platform.as_ref().filter(|p| fits(p)).map(|p| (needs(p), d)));
    if let Some((_, least)) = fitting.min_by_key(|(needs, _)| *needs) {
        return Ok(least);
    }
    match index {
        // The only one of a layout says nothing; its configuration will.
        [only] if only.platform.is_none() => Ok(only),
        _ => {
            let mut offered: Vec<String> =
                index.iter().filter_map(|d| d.platform.as_ref().map(words)).collect();
            offered.retain(|p| p != "unknown/unknown");
            offered.sort();
            offered.dedup();
            let offered = if offered.is_empty() { "no platform at all".into() } else { offered.join(", ") };
            bad(format!("it is not offered for linux/{architecture}, but for {offered}"))
        }
    }
}

/// What an image asks of a CPU beyond what all of its architecture have, to compare: nothing, or the number of its
/// variant.
fn needs(platform: &Platform) -> Option<u32> {
    match platform.variant.as_str() {
        "" | "v1" | "v8" => None,
        variant => {
            let number = variant.trim_start_matches('v').split('.').map(|n| n.parse::<u16>());
            let mut parts = number.map(|n| n.map_or(u32::from(u16::MAX), u32::from));
            let (major, minor) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
            Some((major << 16) | minor)
        }
    }
}

/// The platform, if not every CPU of its architecture runs what is made for it.
pub(crate) fn demanding(chosen: &Descriptor) -> Option<String> {
    chosen.platform.as_ref().filter(|platform| needs(platform).is_some()).map(words)
}

pub(crate) fn words(platform: &Platform) -> String {
    let Platform { os, architecture, variant } = platform;
    let variant = if variant.is_empty() { String::new() } else { format!("/{variant}") };
    format!("{os}/{architecture}{variant}")
}

/// Reads whatever `bytes` are as each of the documents; for tests that throw anything at it.
#[doc(hidden)]
pub fn parse_any_document(bytes: &[u8]) {
    let _ = Config::parse(bytes);
    if let Ok(Top::Index(index)) = Top::parse(bytes) {
        let _ = choose(&index, "amd64");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn said(text: &str) -> String {
        Top::parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn manifests_and_what_is_none() {
        let manifest = |config: &str, layer: &str| {
            format!(
                r#"{{"schemaVersion":2,"config":{{"mediaType":"{config}","digest":"{A}","size":2}},
                    "layers":[{{"mediaType":"{layer}","digest":"{A}","size":3}}]}}"#
            )
        };
        let good = manifest(CONFIGS[1], "application/vnd.docker.image.rootfs.diff.tar.gzip");
        assert!(matches!(Top::parse(good.as_bytes()), Ok(Top::Manifest(m)) if m.layers[0].size == 3));
        assert!(
            said(&manifest("application/vnd.cncf.helm.config.v1+json", "x")).contains("no image of programs")
        );
        assert!(
            said(&manifest(CONFIGS[0], "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"))
                .contains("encrypted")
        );
        assert!(said(&good.replace("sha256:", "sha512:")).contains("is no digest"));
        assert!(said(r#"{"schemaVersion":1}"#).contains("schema version 1"));
        assert!(said(r#"{"schemaVersion":2}"#).contains("neither"));
        assert!(said(&format!("{}{}", "[".repeat(500), "]".repeat(500))).contains("does not read"));
        assert!(said(&" ".repeat(LARGEST_MANIFEST as usize + 1)).contains("larger"));
    }

    #[test]
    fn the_platform_is_chosen() {
        let index = |platforms: &[&str]| {
            let one = |p: &&str| {
                let mut parts = p.splitn(3, '/');
                let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
                let variant = parts.next().map_or(String::new(), |v| format!(r#","variant":"{v}""#));
                format!(
                    r#"{{"digest":"{A}","size":1,"platform":{{"os":"{os}","architecture":"{architecture}"{variant}}}}}"#
                )
            };
            let all: Vec<_> = platforms.iter().map(one).collect();
            let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, all.join(","));
            match Top::parse(text.as_bytes()) {
                Ok(Top::Index(index)) => index,
                other => panic!("{other:?}"),
            }
        };
        let several = index(&["linux/arm64", "unknown/unknown", "linux/amd64"]);
        assert_eq!(choose(&several, "amd64").unwrap().platform.as_ref().unwrap().architecture, "amd64");
        let chosen = |platforms: &[&str], architecture| {
            let index = index(platforms);
            let chosen = choose(&index, architecture).unwrap();
            (words(chosen.platform.as_ref().unwrap()), demanding(chosen).is_some())
        };
        let levels = ["linux/amd64/v3", "linux/arm64/v8", "linux/amd64/v2", "linux/amd64/v4"];
        assert_eq!(chosen(&levels, "amd64"), ("linux/amd64/v2".into(), true));
        assert_eq!(chosen(&levels, "arm64"), ("linux/arm64/v8".into(), false));
        assert_eq!(chosen(&["linux/amd64/v3", "linux/amd64"], "amd64"), ("linux/amd64".into(), false));
        assert_eq!(
            chosen(&["linux/arm64/v9", "linux/arm64/v8.2"], "arm64"),
            ("linux/arm64/v8.2".into(), true)
        );
        assert_eq!(chosen(&["linux/amd64/odd", "linux/amd64/v9"], "amd64"), ("linux/amd64/v9".into(), true));
        let said = choose(&index(&["windows/amd64", "unknown/unknown"]), "amd64").unwrap_err().to_string();
        assert_eq!(said, "it is not offered for linux/amd64, but for windows/amd64");
    }

    #[test]
    fn run_settings_are_read() {
        let config = format!(
            r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{A}"]}},"config":{{
                "User":"www-data","Env":["PATH=/bin","A=b=c","odd"],"Entrypoint":["/x"],"Cmd":["y"],
                "WorkingDir":"/srv","StopSignal":"SIGRTMIN+3"}}}}"#
        );
        let config = Config::parse(config.as_bytes()).unwrap();
        assert_eq!(config.settings.argv, ["/x", "y"]);
        assert_eq!(config.settings.env["A"], "b=c");
        assert_eq!((config.settings.env.len(), config.settings.stop_signal), (2, Some(37)));
        let null = r#"{"rootfs":{},"config":{"Env":null,"Cmd":null,"User":""}}"#;
        let nothing = Settings { lone_group: LoneGroup::Root, ..Settings::default() };
        assert_eq!(Config::parse(null.as_bytes()).unwrap().settings, nothing);
        assert_eq!([stop_signal("quit"), stop_signal("9")], [Ok(3), Ok(9)]);
        assert_eq!(
            ["SIGRTMIN", "rtmin+30", "SIGRTMAX", "RTMAX-2"].map(stop_signal),
            [Ok(34), Ok(64), Ok(64), Ok(62)]
        );
        for none in [
            "SIGRTMIN+2147483647",
            "RTMIN+31",
            "RTMAX-31",
            "RTMAX+1",
            "RTMIN-1",
            "RTMIN++1",
            "RTMED",
            "RT",
            "RTé",
            "0",
        ] {
            assert!(stop_signal(none).is_err(), "{none}");
        }
    }

    proptest::proptest! {
        #[test]
        fn anything_is_read_or_refused(bytes in proptest::collection::vec(0_u8.., 0..300)) {
            parse_any_document(&bytes);
        }
    }
}
