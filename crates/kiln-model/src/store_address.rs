//! Where a store is.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

use crate::host_name::is_host_name;

/// Where a store is, as a spec says it: `10.0.0.5:5432`, `[fd00::5]:5432`, `localhost:5432` or `db.example.com:5432`.
///
/// A release holds it as it is said. Where a name leads is the business of whoever runs the store, and may change while
/// the release serves; it is no part of the release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub enum StoreAddress {
    /// At this address. `localhost` is the host's own.
    At(SocketAddr),
    /// Wherever a host of this name is.
    Named(StoreHost),
}

/// A host by its name, in lower case, and a port. As text `db.example.com:5432`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct StoreHost {
    name: String,
    port: u16,
}

/// Text that is not the address of a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the address of a store")]
pub struct BadStoreAddress(String);

impl StoreAddress {
    /// The port: the same, wherever a name leads.
    pub fn port(&self) -> u16 {
        match self {
            Self::At(address) => address.port(),
            Self::Named(host) => host.port,
        }
    }

    /// The host, if it goes by a name.
    pub fn host(&self) -> Option<&StoreHost> {
        match self {
            Self::At(_) => None,
            Self::Named(host) => Some(host),
        }
    }
}

impl StoreHost {
    /// The name alone.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for StoreHost {
    type Err = BadStoreAddress;
    /// A last label of digits would be half of an IP address, and is no name (as in the URL standard).
    fn from_str(text: &str) -> Result<Self, BadStoreAddress> {
        let bad = || BadStoreAddress(text.to_owned());
        let (name, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?;
        let labels = name.strip_suffix('.').unwrap_or(name);
        let last = labels.rsplit('.').next().unwrap_or_default();
        if is_host_name(labels) && !last.bytes().all(|c| c.is_ascii_digit()) {
            Ok(Self { name: name.to_ascii_lowercase(), port })
        } else {
            Err(bad())
        }
    }
}

impl FromStr for StoreAddress {
    type Err = BadStoreAddress;
    fn from_str(text: &str) -> Result<Self, BadStoreAddress> {
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => Ok(Self::At(address)),
            Ok(_) => Err(BadStoreAddress(text.to_owned())),
            Err(_) => text.parse().map(|host: StoreHost| match host.name.as_str() {
                "localhost" => Self::At((Ipv4Addr::LOCALHOST, host.port).into()),
                _ => Self::Named(host),
            }),
        }
    }
}

impl TryFrom<String> for StoreAddress {
    type Error = BadStoreAddress;
    fn try_from(text: String) -> Result<Self, BadStoreAddress> {
        text.parse()
    }
}

impl TryFrom<String> for StoreHost {
    type Error = BadStoreAddress;
    fn try_from(text: String) -> Result<Self, BadStoreAddress> {
        text.parse()
    }
}

impl fmt::Display for StoreHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}

impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => address.fmt(f),
            Self::Named(host) => host.fmt(f),
        }
    }
}

impl Serialize for StoreHost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for StoreAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_what_is_kept() {
        for text in ["10.0.0.5:5432", "[fd00::5]:5432", "db:5432", "db.example.com:5432", "db.example.com.:1"]
        {
            let address: StoreAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(serde_json::to_string(&address).unwrap(), format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<StoreAddress>(&format!("\"{text}\"")).unwrap(), address);
            assert_eq!(address.host().is_some(), text.starts_with("db"), "{text}");
        }
        let same: StoreAddress = "DB.Example.com:5432".parse().unwrap();
        assert_eq!(same, "db.example.com:5432".parse().unwrap(), "names have no case");
        assert_eq!("localhost:5432".parse(), Ok(StoreAddress::At(([127, 0, 0, 1], 5432).into())));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let bad =
            ["", "db", "db:", "db:0", "10.0.0.5:0", "10.0.0.256:5432", "10.0.5:5432", "-db:1", "d b:1", ":1"];
        for text in bad {
            assert_eq!(text.parse::<StoreAddress>(), Err(BadStoreAddress(text.to_owned())));
        }
        let long = format!("{}:1", ["a"; 200].join("."));
        assert!(long.parse::<StoreAddress>().is_err());
    }
}
