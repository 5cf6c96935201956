//! Ports of this host that a release wants for itself: nobody else may listen there.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};

use kiln_model::{ExitCode, Failure, Release};

/// Refuses a release whose TCP routes are at ports where somebody else listens. At those `held` the edge does already.
///
/// # Errors
/// The first such port.
pub(in crate::host) fn check(release: &Release, held: &BTreeSet<u16>, at: IpAddr) -> Result<(), Failure> {
    for (name, route) in release.tcp.iter().filter(|(_, route)| !held.contains(&route.port)) {
        let address = SocketAddr::new(at, route.port);
        // Free again as soon as this value is dropped.
        let Err(error) = TcpListener::bind(address) else { continue };
        let message = match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!("port {} is in use, and route `{name}` is to be there", route.port)
            }
            _ => format!("nothing can listen on {address}, where route `{name}` is to be"),
        };
        return Err(Failure::new(ExitCode::Host, message)
            .because(error.to_string())
            .hint("`ss -ltnp` shows who listens there; give the route another `tcp` port in kiln.toml"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use kiln_model::ReleaseTcpRoute;

    use super::super::tests::release;
    use super::*;

    #[test]
    fn a_port_somebody_listens_on_is_refused_unless_it_is_the_edge() {
        let here = IpAddr::from(Ipv4Addr::LOCALHOST);
        let other = TcpListener::bind((here, 0)).unwrap();
        let port = other.local_addr().unwrap().port();
        let mut release = release();
        release.tcp.insert("db".parse().unwrap(), ReleaseTcpRoute { port, service: "web".parse().unwrap() });
        let failure = check(&release, &BTreeSet::new(), here).unwrap_err();
        assert_eq!(failure.message, format!("port {port} is in use, and route `db` is to be there"));
        assert_eq!(failure.code, ExitCode::Host);
        assert_eq!(
            check(&release, &BTreeSet::from([port]), here),
            Ok(()),
            "the edge has it for what serves now"
        );
        drop(other);
        assert_eq!(check(&release, &BTreeSet::new(), here), Ok(()));
    }
}
