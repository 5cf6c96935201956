//! Where Debian packages come from: the spec's mirror, or what the host's own apt is configured with.

use std::fs;
use std::path::{Path, PathBuf};

use super::apt_conf;
use crate::order::{BakeOrder, Base, Sources};

/// The keyring that Debian installs, for sources that name none.
const DEFAULT_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The only component that is used: what is in it may be used and passed on freely.
pub(crate) const COMPONENT: &str = "main";

/// One suite of one archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// The archive's root, without a slash at its end.
    pub(crate) root: String,
    pub(crate) suite: String,
    pub(crate) keyring: Keyring,
    pub(crate) check_valid_until: bool,
    /// Whether the archive need not have it.
    pub(crate) optional: bool,
    /// The suite it belongs to: `bookworm` for `bookworm-security`.
    pub(crate) of: String,
    /// How much packages from it are preferred.
    pub(crate) priority: u16,
}

/// Whose signatures count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Keyring {
    File(PathBuf),
    Text(String),
}

/// No sources.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    /// Neither the spec nor the host says where packages of this suite come from.
    #[error(
        "no source of Debian packages for `{suite}` is known: neither kiln.toml nor the host's apt names one"
    )]
    None {
        /// The suite.
        suite: String,
    },
    /// The spec's mirror is not an address that can be used.
    #[error("the mirror `{0}` is not an http:// or https:// address")]
    Mirror(String),
    /// A configuration file could not be read.
    #[error("could not read {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The priority of the suite of the base, as apt has it.
const OF_THE_BASE: u16 = 500;

/// All sources of `order`: those of the suite of its base, then those of its further suites.
pub(crate) fn of_order(order: &BakeOrder, host: &Path) -> Result<Vec<Source>, SourcesError> {
    let Base::Debian { suite } = &order.from else { return Ok(Vec::new()) };
    let further = order.suites.iter().map(|s| (&s.name, s.priority));
    let mut all: Vec<Source> = Vec::new();
    for (suite, priority) in std::iter::once((suite, OF_THE_BASE)).chain(further) {
        for found in sources(suite, &order.sources, host)? {
            all.push(Source { of: suite.clone(), priority, ..found });
        }
    }
    Ok(all)
}

/// The sources of `suite` with its updates and security updates, as the spec says, else as the host whose root
/// directory is `host` does.
pub(crate) fn sources(suite: &str, spec: &Sources, host: &Path) -> Result<Vec<Source>, SourcesError> {
    let checked = spec.check_valid_until.unwrap_or_else(|| apt_conf::check_valid_until(host));
    let mut found = match &spec.mirror {
        Some(mirror) => of_mirror(suite, mirror)?,
        None => of_host(suite, host)?,
    };
    for source in &mut found {
        source.check_valid_until = spec.check_valid_until.unwrap_or(checked && source.check_valid_until);
    }
    if found.iter().any(|s| s.suite == suite) {
        Ok(found)
    } else {
        Err(SourcesError::None { suite: suite.into() })
    }
}

/// Debian's own layout: the updates in the same archive, the security updates in one beside it. A mirror may be of
/// the main archive only; what it lacks is then absent from the lock's list of indexes as well.
fn of_mirror(suite: &str, mirror: &str) -> Result<Vec<Source>, SourcesError> {
    let root = usable(mirror).ok_or_else(|| SourcesError::Mirror(mirror.into()))?;
    let suite_of = suite;
    let source = |root: String, suite: String, optional| Source {
        root,
        suite,
        keyring: Keyring::File(DEFAULT_KEYRING.into()),
        check_valid_until: true,
        optional,
        of: suite_of.to_owned(),
        priority: OF_THE_BASE,
    };
    Ok(vec![
        source(root.clone(), suite.into(), false),
        source(root.clone(), format!("{suite}-updates"), true),
        source(format!("{root}-security"), format!("{suite}-security"), true),
    ])
}

fn usable(uri: &str) -> Option<String> {
    let known = uri.starts_with("http://") || uri.starts_with("https://");
    known.then(|| uri.trim_end_matches('/').to_owned())
}

fn of_host(suite: &str, host: &Path) -> Result<Vec<Source>, SourcesError> {
    let suites = [suite.to_owned(), format!("{suite}-updates"), format!("{suite}-security")];
    let all: Vec<Source> = host_entries(host)?.iter().flat_map(Entry::sources).collect();
    let mut found: Vec<Source> = Vec::new();
    for source in &all {
        let known = found.iter().any(|s| s.suite == source.suite);
        if suites.contains(&source.suite) && !known {
            found.push(source.clone());
        }
    }
    if found.iter().any(|s| s.suite == suite) { Ok(found) } else { Ok(beside(suite, &all)) }
}

/// A host names the suites of its own release, and its mirrors have the others beside them. Whether what is there is
/// what was asked for, the signature says.
fn beside(suite: &str, all: &[Source]) -> Vec<Source> {
    let at = |end: &str, suite: String, optional| {
        let known = all.iter().find(|s| s.root.ends_with(end))?;
        Some(Source { suite, optional, ..known.clone() })
    };
    let wanted = [
        at("/debian", suite.to_owned(), false),
        at("/debian", format!("{suite}-updates"), true),
        at("/debian-security", format!("{suite}-security"), true),
    ];
    wanted.into_iter().flatten().collect()
}

/// One entry of the host's configuration.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entry {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: Option<String>,
    check_valid_until: bool,
}

impl Entry {
    fn sources(&self) -> Vec<Source> {
        if !self.components.iter().any(|c| c == COMPONENT) {
            return Vec::new();
        }
        let roots = self.uris.iter().filter_map(|u| usable(u));
        let one = |root: &str, suite: &str| Source {
            root: root.into(),
            suite: suite.trim_end_matches('/').replace("/updates", "-security"),
            keyring: self.keyring(),
            check_valid_until: self.check_valid_until,
            optional: false,
            of: suite.to_owned(),
            priority: OF_THE_BASE,
        };
        roots.flat_map(|root| self.suites.iter().map(move |s| one(&root, s)).collect::<Vec<_>>()).collect()
    }

    /// A fingerprint instead of a file means a key of the default keyring.
    fn keyring(&self) -> Keyring {
        match self.signed_by.as_deref() {
            Some(text) if text.contains("BEGIN PGP") => Keyring::Text(unfolded(text)),
            Some(path) if path.starts_with('/') => {
                Keyring::File(path.split_ascii_whitespace().next().unwrap_or(path).into())
            }
            _ => Keyring::File(DEFAULT_KEYRING.into()),
        }
    }
}

/// A key inside a field: each line indented by one, an empty line written as a dot.
fn unfolded(text: &str) -> String {
    let line = |l: &str| if l.trim() == "." { "\n".to_owned() } else { format!("{}\n", l.trim()) };
    text.lines().map(line).collect()
}

fn host_entries(host: &Path) -> Result<Vec<Entry>, SourcesError> {
    let mut files = vec![host.join("etc/apt/sources.list")];
    let mut parts: Vec<_> = fs::read_dir(host.join("etc/apt/sources.list.d"))
        .map(|dir| dir.flatten().map(|e| e.path()).collect())
        .unwrap_or_default();
    parts.sort();
    files.extend(parts);
    let mut entries = Vec::new();
    for path in files {
        let parse: fn(&str) -> Vec<Entry> = match path.extension().and_then(|e| e.to_str()) {
            Some("list") => one_line_entries,
            Some("sources") => stanza_entries,
            _ => continue,
        };
        match fs::read_to_string(&path) {
            Ok(text) => entries.extend(parse(&text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(SourcesError::Unreadable { path, source }),
        }
    }
    Ok(entries)
}

/// `deb [signed-by=/path] http://… suite component…`
fn one_line_entries(text: &str) -> Vec<Entry> {
    text.lines().filter_map(one_line_entry).collect()
}

fn one_line_entry(line: &str) -> Option<Entry> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(after) => after.split_once(']')?,
        None => ("", rest),
    };
    let option =
        |name: &str| options.split_ascii_whitespace().find_map(|o| o.strip_prefix(name)?.strip_prefix('='));
    let mut words = rest.split_ascii_whitespace().map(str::to_owned);
    Some(Entry {
        uris: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by: option("signed-by").map(str::to_owned),
        check_valid_until: !option("check-valid-until").is_some_and(apt_conf::is_no),
    })
}

/// The stanzas of a `.sources` file.
fn stanza_entries(text: &str) -> Vec<Entry> {
    let uncommented: Vec<_> = text.lines().filter(|l| !l.starts_with('#')).collect();
    uncommented.split(|l| l.trim().is_empty()).filter_map(stanza_entry).collect()
}

fn stanza_entry(lines: &[&str]) -> Option<Entry> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in lines {
        match (line.starts_with([' ', '\t']), fields.last_mut(), line.split_once(':')) {
            (true, Some((_, value)), _) => value.push_str(&format!("\n{line}")),
            (false, _, Some((name, value))) => fields.push((name.to_ascii_lowercase(), value.trim().into())),
            _ => {}
        }
    }
    let field = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let words = |name: &str| -> Vec<String> {
        field(name).unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect()
    };
    if !words("types").contains(&"deb".into()) || field("enabled").is_some_and(apt_conf::is_no) {
        return None;
    }
    Some(Entry {
        uris: words("uris"),
        suites: words("suites"),
        components: words("components"),
        signed_by: field("signed-by").map(str::to_owned),
        check_valid_until: !field("check-valid-until").is_some_and(apt_conf::is_no),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join("etc/apt").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn both_forms_are_read_and_other_vendors_left_aside() {
        let root = host(&[
            (
                "sources.list",
                "# deb http://a.invalid/x bookworm main\ndeb [arch=amd64 signed-by=/k.gpg] http://a.invalid/debian/ bookworm main contrib\n",
            ),
            (
                "sources.list.d/s.sources",
                "Types: deb deb-src\n# c\nURIs: http://b.invalid/sec\nSuites: bookworm-security\nComponents: main\nCheck-Valid-Until: no\n\nTypes: deb\nEnabled: no\nURIs: http://c.invalid\nSuites: bookworm-updates\nComponents: main\n",
            ),
            ("sources.list.d/v.list", "deb http://vendor.invalid/apt tool-bookworm main\n"),
            ("sources.list.d/w.list.off", "deb http://w.invalid/apt bookworm-updates main\n"),
        ]);
        let found = sources("bookworm", &Sources::default(), root.path()).unwrap();
        let short: Vec<_> =
            found.iter().map(|s| (s.root.as_str(), s.suite.as_str(), s.check_valid_until)).collect();
        assert_eq!(
            short,
            [
                ("http://a.invalid/debian", "bookworm", true),
                ("http://b.invalid/sec", "bookworm-security", false)
            ]
        );
        assert_eq!(found[0].keyring, Keyring::File("/k.gpg".into()));
        assert_eq!(found[1].keyring, Keyring::File(DEFAULT_KEYRING.into()));
    }

    #[test]
    fn a_host_without_sources_is_an_error() {
        let root = host(&[("sources.list.d/v.list", "deb http://vendor.invalid/apt trixie main\n")]);
        let error = sources("bookworm", &Sources::default(), root.path()).unwrap_err();
        assert!(error.to_string().contains("`bookworm`"));
    }

    #[test]
    fn other_suites_are_beside_those_of_the_host() {
        let root = host(&[(
            "sources.list",
            "deb http://a.invalid/debian bookworm main\ndeb http://b.invalid/debian-security bookworm-security main\n",
        )]);
        let found = sources("trixie", &Sources::default(), root.path()).unwrap();
        let short: Vec<_> = found.iter().map(|s| (s.root.as_str(), s.suite.as_str(), s.optional)).collect();
        assert_eq!(
            short,
            [
                ("http://a.invalid/debian", "trixie", false),
                ("http://a.invalid/debian", "trixie-updates", true),
                ("http://b.invalid/debian-security", "trixie-security", true)
            ]
        );
    }

    #[test]
    fn the_spec_goes_before_the_host() {
        let root = host(&[("apt.conf.d/90x", "Acquire::Check-Valid-Until \"false\";\n")]);
        let spec = Sources { mirror: Some("http://m.invalid/debian/".into()), check_valid_until: None };
        let found = sources("bookworm", &spec, root.path()).unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!(found[2].root, "http://m.invalid/debian-security");
        assert!(found.iter().all(|s| !s.check_valid_until));
        let strict = Sources { check_valid_until: Some(true), ..spec };
        assert!(sources("bookworm", &strict, root.path()).unwrap().iter().all(|s| s.check_valid_until));
        let bad = Sources { mirror: Some("ftp://m".into()), check_valid_until: None };
        assert!(matches!(sources("bookworm", &bad, root.path()), Err(SourcesError::Mirror(_))));
    }

    #[test]
    fn a_key_inside_a_field() {
        let text = "Types: deb\nURIs: http://a.invalid\nSuites: s\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----\n";
        let entry = stanza_entries(text).remove(0);
        let Keyring::Text(key) = entry.keyring() else { panic!("a key was expected") };
        assert!(key.contains("BLOCK-----\n\nabc\n-----END"), "{key}");
    }
}
