//! Stores that a release needs: each must take a connection now, or no instance will become healthy for want of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use kiln_model::{ExitCode, Failure, Need, Release};

/// How long a store may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(3);

/// A store: its name and address.
type StoreAt = (String, SocketAddr);

/// Refuses a release one of whose stores takes no connection.
///
/// # Errors
/// Every store that does not, who needs it, and what the system says.
pub(in crate::host) fn check(release: &Release) -> Result<(), Failure> {
    let needed = needed(release);
    let silent: Vec<(&StoreAt, io::Error)> = std::thread::scope(|scope| {
        let asked: Vec<_> = needed.keys().map(|store| (store, scope.spawn(|| answers(store.1)))).collect();
        let silent = |(store, asked): (_, std::thread::ScopedJoinHandle<'_, io::Result<()>>)| {
            let answer = asked.join().unwrap_or_else(|_| Err(io::Error::other("it could not be asked")));
            Some((store, answer.err()?))
        };
        asked.into_iter().filter_map(silent).collect()
    });
    let Some(((name, address), _)) = silent.first() else { return Ok(()) };
    let message = match silent.len() {
        1 => format!("store `{name}` at {address} takes no connection, so nothing was made"),
        n => format!("{n} stores take no connection, so nothing was made"),
    };
    let hint = format!("start it, or correct the `address` of [store.{name}] in kiln.toml");
    let failure = silent.iter().fold(Failure::new(ExitCode::Host, message), |failure, ((name, at), why)| {
        let by: Vec<String> = needed[&((*name).clone(), *at)].iter().map(|s| format!("`{s}`")).collect();
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
                stores.entry((name.to_string(), *address)).or_default().insert(service.as_str());
            }
        }
    }
    stores
}

fn answers(address: SocketAddr) -> io::Result<()> {
    TcpStream::connect_timeout(&address, PATIENCE).map(drop)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::tests::release;
    use super::*;

    fn with_store(address: SocketAddr) -> Release {
        let mut release = release();
        let web = release.services.values_mut().next().unwrap();
        web.needs.insert("db".parse().unwrap(), Need::Store { address });
        release
    }

    #[test]
    fn a_store_that_takes_no_connection_is_named_with_who_needs_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(check(&with_store(address)), Ok(()));
        assert_eq!(check(&release()), Ok(()), "who needs none is refused nothing");
        drop(listener);
        let failure = check(&with_store(address)).unwrap_err();
        assert_eq!(failure.code, ExitCode::Host);
        assert_eq!(
            failure.message,
            format!("store `db` at {address} takes no connection, so nothing was made")
        );
        let cause = failure.causes.join("\n");
        assert!(cause.contains("which `web` needs") && cause.contains("refused"), "{cause}");
        assert!(failure.hint.unwrap().contains("[store.db]"));
    }
}
