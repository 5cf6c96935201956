//! Proofs that a name is ours, shown to an authority that looks (RFC 8555, 8.3; RFC 8737).

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, PoisonError, RwLock};

use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

use crate::body::ResponseBody;
use crate::certificate::{Certificate, made_ready};

/// What a validator of TLS-ALPN-01 asks for.
pub(crate) const ALPN: &[u8] = b"acme-tls/1";
/// Where documents are.
pub(crate) const PLACE: &str = "/.well-known/acme-challenge/";

/// One proof.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// A document under any of our names.
    Http {
        /// The end of its path.
        token: String,
        /// What it says.
        says: String,
    },
    /// A certificate for those who ask for nothing else.
    Alpn {
        /// The name it is for.
        name: String,
        /// It.
        certificate: Certificate,
    },
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http { .. } => "Http",
            Self::Alpn { .. } => "Alpn",
        })
    }
}

/// Proofs in force, on all threads.
#[derive(Clone, Default)]
pub(crate) struct Proofs(Arc<Shown>);

#[derive(Default)]
struct Shown {
    /// Hardly ever: nothing is looked up as long as there is nothing.
    are_any: AtomicBool,
    http: RwLock<HashMap<String, String>>,
    alpn: RwLock<HashMap<String, Arc<CertifiedKey>>>,
}

impl Proofs {
    /// Shows these, and no others.
    pub(crate) fn replace(&self, proofs: &[Proof]) -> Result<(), String> {
        let (mut http, mut alpn) = (HashMap::new(), HashMap::new());
        for proof in proofs {
            match proof {
                Proof::Http { token, says } => drop(http.insert(token.clone(), says.clone())),
                Proof::Alpn { name, certificate } => {
                    drop(alpn.insert(name.to_ascii_lowercase(), Arc::new(made_ready(certificate)?)));
                }
            }
        }
        *self.0.http.write().unwrap_or_else(PoisonError::into_inner) = http;
        *self.0.alpn.write().unwrap_or_else(PoisonError::into_inner) = alpn;
        self.0.are_any.store(!proofs.is_empty(), SeqCst);
        Ok(())
    }

    /// The answer to a request for a proof that is shown.
    pub(crate) fn answer<B>(&self, request: &Request<B>) -> Option<Response<ResponseBody>> {
        if !self.0.are_any.load(SeqCst) {
            return None;
        }
        let token = request.uri().path().strip_prefix(PLACE)?;
        let says = self.0.http.read().unwrap_or_else(PoisonError::into_inner).get(token).cloned()?;
        let mut response = Response::new(ResponseBody::Own(Some(Bytes::from(says))));
        let kind = HeaderValue::from_static("application/octet-stream");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        Some(response)
    }

    /// What is shown to one who asks for nothing but proof.
    pub(crate) fn certificate(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let name = name?.to_ascii_lowercase();
        self.0.alpn.read().unwrap_or_else(PoisonError::into_inner).get(&name).cloned()
    }
}
