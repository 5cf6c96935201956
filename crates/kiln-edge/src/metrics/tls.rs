//! What is told of HTTPS: how long each certificate is good, and which handshakes come to nothing.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};

use kiln_model::{Timestamp, Validity};
use rustls::AlertDescription as Alert;

use super::{ByCause, Cause, escaped, family, line};
use crate::certificate::Details;

/// Why a handshake came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// The client does not take the certificate: because it has expired, is for other names, or of an unknown authority.
    CertificateRefused,
    /// What the client says is no TLS, or none that the edge speaks.
    NotAgreed,
    /// The client left, or did not go on in time.
    Abandoned,
}

impl Failure {
    fn of(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(
                Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA,
            )) => Self::CertificateRefused,
            Some(rustls::Error::AlertReceived(Alert::CloseNotify | Alert::UserCanceled)) | None => {
                Self::Abandoned
            }
            Some(_) => Self::NotAgreed,
        }
    }
}

impl Cause for Failure {
    const ALL: &'static [Self] = &[Self::CertificateRefused, Self::NotAgreed, Self::Abandoned];

    fn as_str(self) -> &'static str {
        match self {
            Self::CertificateRefused => "certificate_refused",
            Self::NotAgreed => "not_agreed",
            Self::Abandoned => "abandoned",
        }
    }
}

/// The figures of HTTPS.
#[derive(Debug, Default)]
pub(crate) struct TlsFigures {
    failed: ByCause<Failure>,
    certificates: Mutex<Vec<Details>>,
}

/// A handshake under way. One that is dropped before it has ended was given up.
pub(crate) struct Handshake<'a>(&'a TlsFigures, Option<Failure>);

impl Handshake<'_> {
    pub(crate) fn ends<T>(mut self, result: &io::Result<T>) {
        self.1 = result.as_ref().err().map(Failure::of);
    }
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        if let Some(failure) = self.1 {
            self.0.failed.count(failure);
        }
    }
}

impl TlsFigures {
    pub(crate) fn begin(&self) -> Handshake<'_> {
        Handshake(self, Some(Failure::Abandoned))
    }

    /// These are the certificates that are shown from now on.
    pub(crate) fn show(&self, certificates: Vec<Details>) {
        *self.certificates.lock().unwrap_or_else(PoisonError::into_inner) = certificates;
    }

    pub(super) fn text(&self, text: &mut String) {
        const FAILED: &str = "kiln_edge_failed_handshakes_total";
        self.failed.text(text, FAILED, "TLS handshakes that came to nothing, by cause.");
        self.validities(text);
    }

    fn validities(&self, text: &mut String) {
        /// One of its two moments.
        type Moment = fn(Validity) -> Timestamp;
        let moments: [(&str, &str, Moment); 2] = [
            (
                "kiln_edge_certificate_not_before_timestamp_seconds",
                "From when a certificate is good, in Unix time.",
                |validity| validity.from,
            ),
            (
                "kiln_edge_certificate_not_after_timestamp_seconds",
                "Until when a certificate is good, in Unix time.",
                |validity| validity.until,
            ),
        ];
        let certificates = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        // The same one may be named twice; a series must not be.
        let series: BTreeMap<String, Validity> =
            certificates.iter().map(|details| (labels(details), details.validity)).collect();
        for (name, help, of) in moments {
            family(text, name, "gauge", help);
            for (labels, validity) in &series {
                line(text, name, labels, of(*validity).0 / 1000);
            }
        }
    }
}

/// The first of its names, and what tells it from others that have the same.
fn labels(details: &Details) -> String {
    let name = details.names.first().map_or("", String::as_str);
    format!("name=\"{}\",serial=\"{}\"", escaped(name), details.serial)
}
