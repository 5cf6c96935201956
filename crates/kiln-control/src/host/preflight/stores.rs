//! Stores that a release needs: each must take a connection now, or no instance will become healthy for want of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use kiln_model::{ExitCode, Failure, Need, Release, StoreAddress, StoreHost};

use crate::host::places;

/// How long a store may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many of the addresses of a name are tried.
const TRIED_AT_MOST: usize = 4;

/// A store: its name and address.
type StoreAt = (String, StoreAddress);

/// Refuses a release one of whose stores takes no connection. `settle` is told where those did that go by a name.
///
/// # Errors
/// Every store that does not, who needs it, and what the system says.
pub(in crate::host) fn check(
    release: &Release,
    settle: impl Fn(&StoreHost, SocketAddr),
) -> Result<(), Failure> {
    let needed = needed(release);
    let mut silent: Vec<(&StoreAt, io::Error)> = Vec::new();
    for (store, answer) in places::ask_all(needed.keys(), |(_, address)| reach(address)) {
        match (answer, store.1.host()) {
            (Ok(address), Some(host)) => settle(host, address),
            (Ok(_), None) => {}
            (Err(why), _) => silent.push((store, why)),
        }
    }
    let Some(((name, address), _)) = silent.first() else { return Ok(()) };
    let message = match silent.len() {
        1 => format!("store `{name}` at {address} takes no connection, so nothing was made"),
        n => format!("{n} stores take no connection, so nothing was made"),
    };
    let hint = format!("start it, or correct the `address` of [store.{name}] in kiln.toml");
    let failure = silent.iter().fold(Failure::new(ExitCode::Host, message), |failure, ((name, at), why)| {
        let by: Vec<String> = needed[&(name.clone(), at.clone())].iter().map(|s| format!("`{s}`")).collect();
        failure.because(format!("{name} at {at}, which {} needs: {why}", by.join(", ")))
    });
    Err(failure.hint(hint))
}

/// All stores of a release, each with the services that need it.
fn needed(release: &Release) -> BTreeMap<StoreAt, BTreeSet<&str>> {
    let mut stores: BTreeMap<StoreAt, BTreeSet<&str>> = BTreeMap::new();
    for (service, settings) in &release.services {
        for (name, need) in &settings.needs {
            if let Need::Store { address } = need {
                stores.entry((name.to_string(), address.clone())).or_default().insert(service.as_str());
            }
        }
    }
    stores
}

/// The first of its addresses that takes a connection.
fn reach(store: &StoreAddress) -> io::Result<SocketAddr> {
    let connect = |address: &SocketAddr| TcpStream::connect_timeout(address, PATIENCE).map(drop);
    match store {
        StoreAddress::At(address) => connect(address).map(|()| *address),
        StoreAddress::Named(host) => {
            let mut refusals = Vec::new();
            for address in places::addresses(host)?.into_iter().take(TRIED_AT_MOST) {
                match connect(&address) {
                    Ok(()) => return Ok(address),
                    Err(e) => refusals.push(format!("{address}: {e}")),
                }
            }
            Err(io::Error::other(refusals.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::tests::release;
    use super::*;

    fn with_store(address: StoreAddress) -> Release {
        let mut release = release();
        let web = release.services.values_mut().next().unwrap();
        web.needs.insert("db".parse().unwrap(), Need::Store { address });
        release
    }

    fn nothing_settled(host: &StoreHost, address: SocketAddr) {
        panic!("{host} was found at {address}");
    }

    #[test]
    fn a_store_that_takes_no_connection_is_named_with_who_needs_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(check(&with_store(StoreAddress::At(address)), nothing_settled), Ok(()));
        assert_eq!(check(&release(), nothing_settled), Ok(()), "who needs none is refused nothing");
        drop(listener);
        let failure = check(&with_store(StoreAddress::At(address)), nothing_settled).unwrap_err();
        assert_eq!(failure.code, ExitCode::Host);
        assert_eq!(
            failure.message,
            format!("store `db` at {address} takes no connection, so nothing was made")
        );
        let cause = failure.causes.join("\n");
        assert!(cause.contains("which `web` needs") && cause.contains("refused"), "{cause}");
        assert!(failure.hint.unwrap().contains("[store.db]"));
    }

    #[test]
    fn a_store_whose_name_nobody_has_is_named_by_it() {
        // Reserved for this: RFC 6761, 6.4.
        let address = "db.kiln-test.invalid:5432";
        let failure = check(&with_store(address.parse().unwrap()), nothing_settled).unwrap_err();
        assert_eq!(
            failure.message,
            format!("store `db` at {address} takes no connection, so nothing was made")
        );
    }
}
