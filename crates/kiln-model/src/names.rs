//! Identifiers, each valid by construction.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

/// A name that breaks the rules of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a valid {kind}: expected {expected}")]
pub struct BadName {
    given: String,
    kind: &'static str,
    expected: &'static str,
}

/// What all names that people choose have in common; short enough that an instance id stays a valid hostname
/// label (63 bytes, RFC 1123).
const LABEL: &str = "1 to 20 of a-z, 0-9 and -, starting with a letter and not ending with -";

fn is_label(s: &str) -> bool {
    let b = s.as_bytes();
    (1..=20).contains(&b.len())
        && b[0].is_ascii_lowercase()
        && b[b.len() - 1] != b'-'
        && b.iter().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-')
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $expected:expr, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, JsonSchema)]
        #[serde(try_from = "String")]
        #[schemars(with = "String")]
        pub struct $name(String);

        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(s: &str) -> Result<Self, BadName> {
                s.to_owned().try_into()
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(given: String) -> Result<Self, BadName> {
                let valid: fn(&str) -> bool = $valid;
                if valid(&given) {
                    Ok(Self(given))
                } else {
                    Err(BadName { given, kind: $kind, expected: $expected })
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The name of an app: everything one `kiln.toml` describes.
    AppName, "app name", LABEL, is_label
);
name!(
    /// The name of a service within an app.
    ServiceName, "service name", LABEL, is_label
);
name!(
    /// The name of an image within a spec (its identity is its [`crate::ImageDigest`]).
    ImageName, "image name", LABEL, is_label
);
name!(
    /// The name of a route within an app.
    RouteName, "route name", LABEL, is_label
);
name!(
    /// The name of an external store an app depends on.
    StoreName, "store name", LABEL, is_label
);
name!(
    /// The name under which an instance reaches something its service needs: that of a service or a store.
    NeedName, "name", LABEL, is_label
);
name!(
    /// A release: `r-` and the first 32 hex digits of the sha256 of its canonical encoding.
    ReleaseId, "release id", "`r-` followed by 32 hex digits", |s| {
        s.strip_prefix("r-").is_some_and(|h| {
            h.len() == 32 && h.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
        })
    }
);
name!(
    /// One instance, for ever: `<app>-<service>-<generation>-<serial>`, or `…-before<n>` and `…-after<n>` for hooks.
    /// Never used twice, also a valid hostname.
    InstanceId, "instance id", "1 to 63 of a-z, 0-9 and -, starting with a letter", |s| {
        let b = s.as_bytes();
        (1..=63).contains(&b.len())
            && b[0].is_ascii_lowercase()
            && b.iter().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-')
    }
);

name!(
    /// The name of a secret of an app: that of a file under `/run/secrets`, and of a variable if it is asked for.
    SecretName, "secret name", "1 to 64 of A-Z, a-z, 0-9, _ and -, starting with a letter or _", |s| {
        let b = s.as_bytes();
        (1..=64).contains(&b.len())
            && (b[0].is_ascii_alphabetic() || b[0] == b'_')
            && b.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-'))
    }
);
name!(
    /// A version of a secret: `s-` and 20 hex digits that commit to app, name and value (`docs/design/release.md`
    /// says how), so that it is the same wherever the value is.
    SecretVersion, "secret version", "`s-` followed by 20 hex digits", |s| {
        s.strip_prefix("s-").is_some_and(|h| {
            h.len() == 20 && h.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
        })
    }
);

impl ReleaseId {
    /// What people are shown where space is short; unique in practice, accepted wherever a release is asked for.
    pub fn short(&self) -> &str {
        &self.0[..14]
    }
}

/// The number of a plan, per host, ever growing. It fences a stale executor: nothing carries out a plan of a
/// lower generation once a higher one has begun.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The instances of one release of one service, brought up by the plan of one generation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct FleetId {
    /// The app.
    pub app: AppName,
    /// The service.
    pub service: ServiceName,
    /// The generation of the plan that first provisioned it.
    pub generation: Generation,
}

impl FleetId {
    /// The id of the `serial`-th instance ever made for this fleet, counted from 1.
    pub fn instance(&self, serial: u32) -> InstanceId {
        InstanceId(format!("{}-{}-{}-{serial}", self.app, self.service, self.generation))
    }

    /// The id of the instance in which the plan that provisions this fleet runs a hook of its service.
    pub fn hook(&self, moment: crate::HookMoment, number: u32) -> InstanceId {
        InstanceId(format!("{}-{}-{}-{moment}{number}", self.app, self.service, self.generation))
    }
}

impl fmt::Display for FleetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.app, self.service, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_checked_at_construction() {
        for good in ["a", "web", "web-2", "a-b-c"] {
            assert!(good.parse::<ServiceName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "2a", "Web", "a_b", "a.b", "abcdefghijklmnopqrstu"] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_instance_id_of_the_longest_names_is_a_hostname() {
        let long = "abcdefghijklmnopqrst";
        let fleet = FleetId {
            app: long.parse().unwrap(),
            service: long.parse().unwrap(),
            generation: Generation(9_999_999_999),
        };
        assert!(fleet.instance(999_999).as_str().parse::<InstanceId>().is_ok());
    }

    #[test]
    fn a_name_is_validated_when_read_from_json() {
        assert!(serde_json::from_str::<AppName>("\"Not A Name\"").is_err());
        assert_eq!(serde_json::from_str::<AppName>("\"hello\"").unwrap().as_str(), "hello");
    }
}
