//! What instances reach beyond themselves: what their release declares, and nothing else.
//!
//! Inside an instance everything its service needs has an address of its own on the loopback interface, and a name
//! in /etc/hosts. The keeper listens there, the edge accepts and forwards.
//!
//! ```text
//!   http://api/ or http://api:8080/    another service of the same release; each request to one of its instances
//!   db:5432                            a store; each connection to where it is
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use serde::{Deserialize, Serialize};

use crate::{NeedName, StoreAddress, Target};

/// Something a service needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// Another service of the same release, over HTTP.
    Service {
        /// The port its instances listen on.
        port: u16,
    },
    /// A store, which lives outside.
    Store {
        /// Where it is.
        address: StoreAddress,
    },
}

/// How an instance finds something it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inside {
    /// By this name.
    pub name: NeedName,
    /// At this address, which is its own.
    pub address: Ipv4Addr,
    /// On these ports.
    pub ports: BTreeSet<u16>,
    /// Where connections lead, if it is a store.
    pub store: Option<StoreAddress>,
}

/// Where a connection from inside an instance leads, as the edge is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EdgeNeed {
    /// Each HTTP request to an instance of one of these fleets.
    Service {
        /// The fleets, of the caller's own release.
        targets: Vec<Target>,
    },
    /// To a store: the keeper knows where.
    Store,
}

impl Inside {
    /// Where it is reached, a place for each of its ports, in their order.
    pub fn places(&self) -> impl Iterator<Item = SocketAddrV4> {
        self.ports.iter().map(|port| SocketAddrV4::new(self.address, *port))
    }
}

impl Need {
    /// The ports it is reached on by instances that listen on `own` themselves. Programs listen on all addresses of
    /// theirs, so that port is taken. Services are also where clients look if no port is said.
    pub fn ports(&self, own: u16) -> BTreeSet<u16> {
        const HTTP: u16 = 80;
        let all = match self {
            Self::Service { port } => BTreeSet::from([*port, HTTP]),
            Self::Store { address } => BTreeSet::from([address.port()]),
        };
        all.into_iter().filter(|port| *port != own).collect()
    }
}

/// The most a service can need; an address and a few descriptors each.
pub const MOST_NEEDS: usize = 16;

/// How instances that listen on `own` find what their service needs.
pub fn inside(needs: &BTreeMap<NeedName, Need>, own: u16) -> Vec<Inside> {
    let addresses = (1..=u8::MAX).map(|last| Ipv4Addr::new(127, 77, 0, last));
    needs
        .iter()
        .zip(addresses)
        .map(|((name, need), address)| {
            let store = match need {
                Need::Service { .. } => None,
                Need::Store { address } => Some(address.clone()),
            };
            Inside { name: name.clone(), address, ports: need.ports(own), store }
        })
        .collect()
}

/// The /etc/hosts of an instance.
pub fn hosts_file(needs: &[Inside]) -> String {
    let own = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    needs.iter().fold(own, |text, need| text + &format!("{}\t{}\n", need.address, need.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_need_has_an_address_and_ports_that_are_not_the_instances_own() {
        let needs = BTreeMap::from([
            ("db".parse().unwrap(), Need::Store { address: "10.0.0.5:5432".parse().unwrap() }),
            ("api".parse().unwrap(), Need::Service { port: 8080 }),
        ]);
        let found = inside(&needs, 8080);
        let told: Vec<_> =
            found.iter().map(|n| (n.name.as_str(), n.address.octets()[3], n.ports.clone())).collect();
        assert_eq!(told, [("api", 1, BTreeSet::from([80])), ("db", 2, BTreeSet::from([5432]))]);
        assert_eq!(inside(&needs, 80)[0].ports, BTreeSet::from([8080]));
        let hosts = hosts_file(&found);
        assert!(
            hosts.starts_with("127.0.0.1\tlocalhost\n") && hosts.ends_with("\n127.77.0.2\tdb\n"),
            "{hosts}"
        );
    }
}
