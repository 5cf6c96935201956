//! TLS to clients: certificates by the name asked for, replaced while connections stand.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use tokio_rustls::TlsAcceptor;

use crate::proofs::{ALPN, Proofs};

/// A certificate with what proves it, as files have them: PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The certificate, and those that lead from it to one that clients know.
    pub chain: String,
    /// Its private key (PKCS #8, PKCS #1 or SEC 1).
    pub key: String,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A key has no place in a log.
        f.debug_struct("Certificate").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Makes sure that it can be shown to clients: it can be read, and the key is the one of the certificate.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn inspect(&self) -> Result<Vec<String>, String> {
        Ok(usable(self)?.1)
    }
}

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
    names: HashMap<String, Arc<CertifiedKey>>,
    /// For those who ask for a name that nobody has, or for none.
    first: Option<Arc<CertifiedKey>>,
}

impl ByName {
    /// The one for `name` itself, else the one for all names beside it.
    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let named = name.and_then(|name| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let wildcard = || name.split_once('.').and_then(|(_, rest)| self.names.get(&format!("*.{rest}")));
            self.names.get(&name).or_else(wildcard).cloned()
        });
        named.or_else(|| self.first.clone())
    }
}

impl Certificates {
    /// Puts these in force, all of them or none. Of two for the same name the first is shown.
    pub(crate) fn replace(&self, certificates: &[Certificate]) -> Result<(), String> {
        let mut by_name = ByName::default();
        for certificate in certificates {
            let (key, names) = usable(certificate)?;
            by_name.first.get_or_insert_with(|| key.clone());
            for name in names {
                by_name.names.entry(name).or_insert_with(|| key.clone());
            }
        }
        *self.by_name.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(by_name);
        Ok(())
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
        by_name.find(hello.server_name())
    }
}

/// A certificate made ready, and the names it is for, in lower case.
fn usable(certificate: &Certificate) -> Result<(Arc<CertifiedKey>, Vec<String>), String> {
    let key = made_ready(certificate)?;
    key.keys_match().map_err(|e| format!("the private key is not that of the certificate: {e}"))?;
    let leaf = key.end_entity_cert().map_err(|e| format!("the file has no certificate in it: {e}"))?;
    let leaf =
        webpki::EndEntityCert::try_from(leaf).map_err(|e| format!("the certificate is malformed: {e}"))?;
    let names = leaf.valid_dns_names().map(str::to_ascii_lowercase).collect();
    Ok((Arc::new(key), names))
}

/// A certificate made ready, whatever it says: proofs say what no other certificate does.
pub(crate) fn made_ready(certificate: &Certificate) -> Result<CertifiedKey, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate.chain.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| format!("the certificate cannot be read: {e}"))?;
    if chain.is_empty() {
        return Err("the file has no certificate in it".into());
    }
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes())
        .map_err(|e| format!("the private key cannot be read: {e}"))?;
    let key =
        ring::sign::any_supported_type(&key).map_err(|e| format!("the private key is of no use: {e}"))?;
    Ok(CertifiedKey::new(chain, key))
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
