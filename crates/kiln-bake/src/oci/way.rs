//! How a registry is spoken to, as this machine says: in the files that podman, skopeo and docker read as well.
//!
//! | what | where |
//! |---|---|
//! | registries spoken to without TLS: `insecure = true` | `containers/registries.conf` and `registries.conf.d/*.conf` beside it, below `~/.config` and `/etc`; `CONTAINERS_REGISTRIES_CONF` names another file |
//! | authorities trusted for one registry, PEM | `certs.d/HOST[:PORT]/*.crt`, below `~/.config/containers`, `/etc/containers` and `/etc/docker` |
//! | authorities trusted for all | those that come with Kiln |
//!
//! TLS without a look at the certificate is never spoken: `insecure` means plain HTTP here. Registries on this machine are
//! spoken to plainly unless they have a certificate of their own in `certs.d`.

use std::env;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};

use super::registry::RegistryError;

/// How one registry is spoken to.
#[derive(Debug)]
pub(crate) struct Way {
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// Who is trusted to name it.
    pub(crate) roots: RootCerts,
}

/// Where this machine's settings are.
struct Places {
    /// `registries.conf` and what is beside it.
    settings: Vec<PathBuf>,
    /// The directories that `certs.d` is in.
    certificates: Vec<PathBuf>,
}

impl Places {
    fn of(env: &dyn Fn(&str) -> Option<PathBuf>) -> Self {
        let own = env("XDG_CONFIG_HOME")
            .or_else(|| Some(env("HOME")?.join(".config")))
            .map(|c| c.join("containers"));
        let dirs: Vec<PathBuf> = own.into_iter().chain(["/etc/containers".into()]).collect();
        let settings = match env("CONTAINERS_REGISTRIES_CONF") {
            Some(file) => vec![file],
            None => {
                dirs.iter().flat_map(|d| [d.join("registries.conf"), d.join("registries.conf.d")]).collect()
            }
        };
        Self { settings, certificates: dirs.into_iter().chain(["/etc/docker".into()]).collect() }
    }
}

impl Way {
    /// To `repository` of the registry at `host`.
    pub(crate) fn to(host: &str, repository: &str) -> Result<Self, RegistryError> {
        let places = Places::of(&|name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from));
        let own = authorities(&places.certificates, host)?;
        let plain = is_insecure(&places.settings, host, repository)? || (own.is_empty() && is_here(host));
        let scheme = if plain { "http" } else { "https" };
        let roots = if own.is_empty() { RootCerts::WebPki } else { RootCerts::Specific(Arc::new(own)) };
        Ok(Self { scheme, roots })
    }
}

/// Whether a host is this machine, as its name says.
fn is_here(host: &str) -> bool {
    let name = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).map_or(host, |(name, _)| name);
    match name {
        "localhost" | "[::1]" => true,
        name => name.starts_with("127.") && name.bytes().all(|c| c.is_ascii_digit() || c == b'.'),
    }
}

fn settings(path: &Path, problem: impl ToString) -> RegistryError {
    RegistryError::Settings { path: path.into(), problem: problem.to_string() }
}

/// The files at `path`, if it is there: itself, or those in it whose name ends so, sorted.
fn files(path: &Path, extension: &str) -> Result<Vec<PathBuf>, RegistryError> {
    let absent = |e: &io::Error| matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
    match fs::metadata(path) {
        Ok(meta) if !meta.is_dir() => return Ok(vec![path.into()]),
        Ok(_) => {}
        Err(e) if absent(&e) => return Ok(Vec::new()),
        Err(e) => return Err(settings(path, e)),
    }
    let entries = fs::read_dir(path).and_then(|all| all.collect::<io::Result<Vec<_>>>());
    let mut found: Vec<PathBuf> =
        entries.map_err(|e| settings(path, e))?.into_iter().map(|e| e.path()).collect();
    found.retain(|file| file.extension().is_some_and(|e| e == extension));
    found.sort();
    Ok(found)
}

fn authorities(dirs: &[PathBuf], host: &str) -> Result<Vec<Certificate<'static>>, RegistryError> {
    let mut all = Vec::new();
    for dir in dirs {
        for file in files(&dir.join("certs.d").join(host), "crt")? {
            let before = all.len();
            for item in parse_pem(&fs::read(&file).map_err(|e| settings(&file, e))?) {
                if let PemItem::Certificate(certificate) = item.map_err(|e| settings(&file, e))? {
                    all.push(certificate);
                }
            }
            if all.len() == before {
                return Err(settings(&file, "it holds no certificate in PEM"));
            }
        }
    }
    Ok(all)
}

#[derive(Deserialize)]
struct Settings {
    #[serde(default)]
    registry: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
}

/// What the entry with the longest prefix says.
fn is_insecure(places: &[PathBuf], host: &str, repository: &str) -> Result<bool, RegistryError> {
    let whole = format!("{host}/{repository}/");
    let mut best = (0, false);
    for place in places {
        for file in files(place, "conf")? {
            let text = fs::read_to_string(&file).map_err(|e| settings(&file, e))?;
            let read: Settings = toml::from_str(&text).map_err(|e| settings(&file, e.message()))?;
            for entry in read.registry {
                let prefix = entry.prefix.or(entry.location).unwrap_or_default();
                let fits = whole.starts_with(&format!("{prefix}/")) && !prefix.is_empty();
                if fits && prefix.len() > best.0 {
                    best = (prefix.len(), entry.insecure);
                }
            }
        }
    }
    Ok(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_plainly_without_being_told() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:1", "127.8.9.1", "[::1]", "[::1]:5000"] {
            assert!(is_here(host), "{host}");
        }
        for host in ["127.0.0.1.example.com", "registry.example.com:5000", "10.0.0.1", "[2001::1]:80"] {
            assert!(!is_here(host), "{host}");
        }
    }

    #[test]
    fn the_longest_prefix_decides() {
        let dir = tempfile::tempdir().unwrap();
        let drop_in = dir.path().join("registries.conf.d");
        fs::create_dir(&drop_in).unwrap();
        let first = dir.path().join("registries.conf");
        let text = "unqualified-search-registries = [\"a\"]\n[[registry]]\nlocation = \"lan:5000\"\ninsecure = true\n";
        fs::write(&first, text).unwrap();
        fs::write(drop_in.join("x.conf"), "[[registry]]\nprefix = \"lan:5000/safe\"\nlocation = \"other\"\n")
            .unwrap();
        fs::write(drop_in.join("note"), "not TOML").unwrap();
        let places = [first.clone(), drop_in, dir.path().join("absent")];
        let insecure = |host, repository| is_insecure(&places, host, repository).unwrap();
        assert!(insecure("lan:5000", "team/app") && !insecure("lan:5000", "safe/app"));
        assert!(!insecure("lan:50000", "team/app") && !insecure("lan", "app"));
        fs::write(&first, "[[registry\n").unwrap();
        let failure = is_insecure(&places, "lan", "app").unwrap_err().to_string();
        assert!(failure.contains("registries.conf"), "{failure}");
    }
}
