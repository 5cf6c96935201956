//! Certificates from an authority that speaks ACME (RFC 8555), proved over HTTP-01 or TLS-ALPN-01 (RFC 8737).
//!
//! A client of its own, over the HTTP client that is there anyway: an order is nine requests in a row. What it proves
//! is answered by the edge; what it is given is kept by whoever asked.

mod account;
mod authority;
mod csr;
mod order;

pub(crate) use account::AccountKey;
pub(crate) use authority::Authority;
pub(crate) use csr::alpn_proof;
pub(crate) use order::{Challenge, Proofs, obtain};

/// How control of a name is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofKind {
    /// A file under the name, over HTTP on port 80.
    Http01,
    /// A certificate shown to those who ask for `acme-tls/1`, on port 443.
    TlsAlpn01,
}

impl ProofKind {
    /// As the protocol calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        }
    }
}

impl std::str::FromStr for ProofKind {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        [Self::Http01, Self::TlsAlpn01]
            .into_iter()
            .find(|kind| kind.as_str() == s)
            .ok_or_else(|| format!("`{s}` is not `http-01` or `tls-alpn-01`"))
    }
}
