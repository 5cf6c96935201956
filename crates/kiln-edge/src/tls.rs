//! TLS to clients: certificates by the name asked for, replaced while connections stand.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::SignatureScheme;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use crate::certificate::{Certificate, Details, usable};
use crate::proofs::{ALPN, Proofs};

/// The certificates in force, on all threads.
#[derive(Clone, Default)]
pub(crate) struct Certificates {
    by_name: Arc<RwLock<Arc<ByName>>>,
    /// Shown to those who ask for nothing else.
    pub(crate) proofs: Proofs,
}

/// Certificates by the names they are for.
#[derive(Debug, Default)]
struct ByName {
    names: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// All of them, for those who ask for a name that nobody has, or for none.
    all: Vec<Arc<CertifiedKey>>,
}

impl ByName {
    /// The first for `name` itself that can be checked by one of `schemes`, else the first for all names beside it. A
    /// client that can check none of them is shown the first, and says what it thinks of that.
    fn find(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let name = name.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        let beside =
            name.as_deref().and_then(|name| name.split_once('.')).map(|(_, rest)| format!("*.{rest}"));
        let of = |name: Option<String>| name.and_then(|name| self.names.get(&name)).into_iter().flatten();
        let named = of(name).chain(of(beside));
        let among = if named.clone().next().is_some() { [].iter() } else { self.all.iter() };
        let mut shown = named.chain(among);
        let is_of_use = |shown: &&Arc<CertifiedKey>| shown.key.choose_scheme(schemes).is_some();
        let first = shown.clone().next();
        shown.find(is_of_use).or(first).cloned()
    }
}

impl Certificates {
    /// Puts these in force, all of them or none, and says what they are. Of several for the same name the first is shown
    /// whose kind of key the client knows.
    pub(crate) fn replace(&self, certificates: &[Certificate]) -> Result<Vec<Details>, String> {
        let (mut by_name, mut all) = (ByName::default(), Vec::new());
        for certificate in certificates {
            let (key, details) = usable(certificate)?;
            let key = Arc::new(key);
            for name in &details.names {
                by_name.names.entry(name.clone()).or_default().push(key.clone());
            }
            by_name.all.push(key);
            all.push(details);
        }
        *self.by_name.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(by_name);
        Ok(all)
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificates")
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if hello.alpn().is_some_and(|mut asked| asked.any(|protocol| protocol == ALPN)) {
            return self.proofs.certificate(hello.server_name());
        }
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner).clone();
        by_name.find(hello.server_name(), hello.signature_schemes())
    }
}

/// What greets clients of HTTPS with `certificates`.
pub(crate) fn acceptor(certificates: &Certificates) -> io::Result<TlsAcceptor> {
    let provider = Arc::new(ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(io::Error::other)?.with_no_client_auth();
    let mut config = builder.with_cert_resolver(Arc::new(certificates.clone()));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), ALPN.to_vec()];
    config.ticketer = ring::Ticketer::new().map_err(io::Error::other)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
