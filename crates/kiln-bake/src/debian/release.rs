//! The signed index of a suite (`InRelease`): which index of packages it vouches for, and until when.

use jiff::fmt::rfc2822::DateTimeParser;
use kiln_model::Sha256;

/// How far our clock may be off before an index counts as expired, in seconds.
const SKEW: u64 = 24 * 60 * 60;
/// No index of packages is larger than this, in bytes.
const LARGEST: u64 = 1 << 30;

/// Why an index cannot be used although its signature is valid.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// A field is absent or unreadable.
    #[error("its field `{0}` is absent or unreadable")]
    Field(&'static str),
    /// It is for another suite than the one asked for.
    #[error("it is the index of `{found}`, not of `{wanted}`")]
    Suite {
        /// The suite asked for.
        wanted: String,
        /// What the index says of itself.
        found: String,
    },
    /// It lists no packages for this component and architecture.
    #[error("it lists no packages of component `{component}` for architecture `{architecture}`")]
    NoPackages {
        /// The component asked for.
        component: String,
        /// The architecture asked for.
        architecture: String,
    },
    /// It has expired.
    #[error("it was valid until {0}")]
    Expired(String),
    /// It is older than one seen before.
    #[error("its date {found} is before {seen}, the date of the index in the lock")]
    Older {
        /// Its date.
        found: String,
        /// The date in the lock.
        seen: String,
    },
}

/// A file the index vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) path: String,
    pub(crate) sha256: Sha256,
    pub(crate) size: u64,
}

/// The fields of an `InRelease` that matter here. The text is the verified one.
pub(crate) struct Release<'a> {
    text: &'a str,
}

impl<'a> Release<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text }
    }

    fn field(&self, name: &str) -> Option<&'a str> {
        let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':').map(str::trim);
        self.text.lines().find_map(value)
    }

    pub(crate) fn date(&self) -> Result<&'a str, ReleaseError> {
        self.field("Date").ok_or(ReleaseError::Field("Date"))
    }

    pub(crate) fn by_hash(&self) -> bool {
        self.field("Acquire-By-Hash") == Some("yes")
    }

    /// A mirror must not answer the question for one suite with the signed index of another.
    pub(crate) fn check_suite(&self, wanted: &str) -> Result<(), ReleaseError> {
        let names = [self.field("Codename"), self.field("Suite")];
        // `bookworm-security` calls itself so in `Codename`; older archives wrote `bookworm/updates`.
        let matches = |name: &str| name == wanted || name.replace("/updates", "-security") == wanted;
        if names.iter().flatten().any(|n| matches(n)) {
            return Ok(());
        }
        let found = names.iter().flatten().copied().collect::<Vec<_>>().join(", ");
        Err(ReleaseError::Suite { wanted: wanted.into(), found })
    }

    /// Refuses an index that has run out, or is older than `seen`, the date of the one last used.
    pub(crate) fn check_dates(
        &self,
        now: u64,
        enforce_expiry: bool,
        seen: Option<&str>,
    ) -> Result<(), ReleaseError> {
        let date = self.date()?;
        let made = seconds(date).ok_or(ReleaseError::Field("Date"))?;
        if let Some(seen) = seen.filter(|s| seconds(s).is_some_and(|s| made < s)) {
            return Err(ReleaseError::Older { found: date.into(), seen: seen.into() });
        }
        let Some(until) = self.field("Valid-Until").filter(|_| enforce_expiry) else { return Ok(()) };
        let end = seconds(until).ok_or(ReleaseError::Field("Valid-Until"))?;
        if end + SKEW < now { Err(ReleaseError::Expired(until.into())) } else { Ok(()) }
    }

    /// The index of packages of a component, compressed as well as it is offered, and as it is uncompressed.
    pub(crate) fn packages(
        &self,
        component: &str,
        architecture: &str,
    ) -> Result<(Listed, Listed), ReleaseError> {
        let base = format!("{component}/binary-{architecture}/Packages");
        let listed = |suffix: &str| self.listed(&format!("{base}{suffix}"));
        let compressed = listed(".xz").or_else(|| listed(".gz"));
        match (compressed, listed("")) {
            (Some(compressed), Some(plain)) => Ok((compressed, plain)),
            _ => Err(ReleaseError::NoPackages {
                component: component.into(),
                architecture: architecture.into(),
            }),
        }
    }

    fn listed(&self, wanted: &str) -> Option<Listed> {
        let after = self.text.lines().skip_while(|l| l.trim_end() != "SHA256:").skip(1);
        after.take_while(|l| l.starts_with(' ')).find_map(|line| {
            let mut parts = line.split_ascii_whitespace();
            let (sha256, size, path) = (parts.next()?, parts.next()?, parts.next()?);
            let size = size.parse().ok().filter(|s| *s <= LARGEST)?;
            (path == wanted)
                .then(|| Some(Listed { path: path.into(), sha256: sha256.parse().ok()?, size }))
                .flatten()
        })
    }
}

/// `Sat, 21 Nov 2026 00:53:02 UTC` in seconds since the epoch.
fn seconds(date: &str) -> Option<u64> {
    let date = date.replace("UTC", "+0000");
    u64::try_from(DateTimeParser::new().parse_timestamp(&date).ok()?.as_second()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Origin: Debian\nSuite: oldstable-security\nCodename: bookworm-security\n\
        Date: Sat, 21 Nov 2026 00:53:02 UTC\nValid-Until: Sat, 28 Nov 2026 00:53:02 UTC\nAcquire-By-Hash: yes\n\
        MD5Sum:\n 00 5 main/binary-amd64/Packages\nSHA256:\n \
        e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855        0 main/binary-amd64/Packages\n \
        f61f27bd17de546264aa58f40f3aafaac7021e0ef69c17f6b1b4cd7664a037ec       20 main/binary-amd64/Packages.gz\n";
    const MADE: u64 = 1_795_222_382;

    #[test]
    fn dates() {
        assert_eq!(seconds("Sat, 21 Nov 2026 00:53:02 UTC"), Some(MADE));
        assert_eq!(seconds("yesterday"), None);
        let release = Release::new(TEXT);
        let week = 7 * 24 * 3600;
        assert_eq!(release.check_dates(MADE + week, true, None), Ok(()));
        assert_eq!(release.check_dates(MADE + week + SKEW, true, None), Ok(()));
        assert!(matches!(
            release.check_dates(MADE + week + SKEW + 1, true, None),
            Err(ReleaseError::Expired(_))
        ));
        assert_eq!(release.check_dates(MADE + 2 * week, false, None), Ok(()));
        let later = Some("Sat, 21 Nov 2026 00:53:03 UTC");
        assert!(matches!(release.check_dates(MADE, true, later), Err(ReleaseError::Older { .. })));
    }

    #[test]
    fn another_suite_is_refused() {
        let release = Release::new(TEXT);
        assert_eq!(release.check_suite("bookworm-security"), Ok(()));
        assert!(release.check_suite("bookworm").is_err());
    }

    #[test]
    fn packages_come_from_the_sha256_section() {
        let (gz, plain) = Release::new(TEXT).packages("main", "amd64").unwrap();
        assert_eq!((gz.size, gz.path.as_str()), (20, "main/binary-amd64/Packages.gz"));
        assert_eq!(plain.sha256, Sha256::of(b""));
        assert!(Release::new(TEXT).packages("main", "arm64").is_err());
    }
}
