//! A certificate with what proves it: what is in it, and whether it can be shown to anybody.
//!
//! The one place that takes certificates to pieces. Nothing is verified: that is what clients do.

use std::fmt;

use kiln_model::{Timestamp, Validity};
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use x509_parser::certificate::X509CertificateParser;
use x509_parser::nom::Parser as _;
use x509_parser::time::ASN1Time;

/// A certificate with what proves it, as files have them: PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The certificate, and those that lead from it to one that clients know.
    pub chain: String,
    /// Its private key (PKCS #8, PKCS #1 or SEC 1).
    pub key: String,
}

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// The names it is for, in lower case.
    pub names: Vec<String>,
    /// Its number, in hexadecimal digits: what tells it from others for the same names.
    pub serial: String,
    /// When it is good.
    pub validity: Validity,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A key has no place in a log.
        f.debug_struct("Certificate").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Makes sure that it can be shown to clients: it can be read, and the key is the one of the certificate. It may
    /// have expired: whether that matters is for clients to say.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn inspect(&self) -> Result<Details, String> {
        Ok(usable(self)?.1)
    }
}

/// A certificate made ready, and what it says.
pub(crate) fn usable(certificate: &Certificate) -> Result<(CertifiedKey, Details), String> {
    let key = made_ready(certificate)?;
    key.keys_match().map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => format!("the private key is not that of the certificate: {e}"),
        // One of X.509 version 1, for example, which no client takes.
        _ => format!("the certificate is of no use: {e}"),
    })?;
    let leaf = key.end_entity_cert().map_err(|e| format!("the file has no certificate in it: {e}"))?;
    let details = details(leaf)?;
    Ok((key, details))
}

/// A certificate made ready, whatever it says: proofs say what no other certificate does.
pub(crate) fn made_ready(certificate: &Certificate) -> Result<CertifiedKey, String> {
    let chain = chain(&certificate.chain)?;
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes())
        .map_err(|e| format!("the private key cannot be read: {}", words(&e)))?;
    let key =
        ring::sign::any_supported_type(&key).map_err(|e| format!("the private key is of no use: {e}"))?;
    Ok(CertifiedKey::new(chain, key))
}

/// What is wrong with a file. The library shows lines as the numbers of their bytes; and a line may be of a key.
fn words(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            let what = String::from_utf8_lossy(end_marker);
            format!("it ends before its line `-----END {what}-----`: is the file whole?")
        }
        pem::Error::IllegalSectionStart { .. } => {
            "a line that begins with `-----BEGIN` does not end with `-----`".into()
        }
        other => other.to_string(),
    }
}

/// The certificates of a file, one at least.
fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| format!("the certificate cannot be read: {}", words(&e)))?;
    if chain.is_empty() {
        return Err("the file has no certificate in it".into());
    }
    Ok(chain)
}

/// What a certificate (DER) says of itself.
///
/// # Errors
/// If it is none.
pub fn details(certificate: &[u8]) -> Result<Details, String> {
    let malformed = |e: &dyn fmt::Display| format!("the certificate is malformed: {e}");
    let der = CertificateDer::from(certificate);
    let leaf = webpki::EndEntityCert::try_from(&der).map_err(|e| malformed(&e))?;
    let names = leaf.valid_dns_names().map(str::to_ascii_lowercase).collect();
    // Extensions are left as they are: nothing is asked of them here.
    let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
    let (_, parsed) = parser.parse(certificate).map_err(|e| malformed(&e))?;
    let moment = |at: ASN1Time| Timestamp(u64::try_from(at.timestamp()).unwrap_or(0).saturating_mul(1000));
    let (from, until) = (moment(parsed.validity().not_before), moment(parsed.validity().not_after));
    let serial = parsed.tbs_certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Details { names, serial, validity: Validity { from, until } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spoilt::Numbers;

    fn made(names: &[&str], from: i32, until: i32) -> Certificate {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        params.serial_number = Some(vec![1, 0xab].into());
        Certificate { chain: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
    }

    #[test]
    fn what_a_certificate_says_is_read_whether_or_not_its_time_is_over() {
        // Up to 2049 its times are written in another way than later.
        for (from, until) in [(2001, 2002), (2020, 2090), (2060, 2061)] {
            let details = made(&["A.example.com", "*.b.example.com"], from, until).inspect().unwrap();
            assert_eq!(details.names, ["a.example.com", "*.b.example.com"]);
            assert_eq!(details.serial, "01ab");
            let Validity { from: first, until: last } = details.validity;
            assert_eq!(first.to_string(), format!("{from}-01-01T00:00:00.000Z"));
            assert_eq!(last.to_string(), format!("{until}-01-01T00:00:00.000Z"));
        }
    }

    #[test]
    fn a_torn_file_is_told_of_in_words() {
        let whole = made(&["a.example.com"], 2020, 2021);
        let torn = |text: &str| text[..text.find("-----END").unwrap()].to_owned();
        let missing = |what: &str| format!("it ends before its line `-----END {what}-----`");
        for (chain, key, expected) in [
            (torn(&whole.chain), whole.key.clone(), missing("CERTIFICATE")),
            (whole.chain.clone(), torn(&whole.key), missing("PRIVATE KEY")),
            ("-----BEGIN CERT\n".into(), whole.key.clone(), "does not end with `-----`".into()),
        ] {
            let error = Certificate { chain, key }.inspect().unwrap_err();
            assert!(error.contains(&expected) && !error.contains('['), "{error}");
        }
    }

    #[test]
    fn a_damaged_one_is_refused_or_read_and_never_more() {
        let whole = made(&["a.example.com"], 2020, 2021);
        let end = whole.chain.find("-----END").unwrap();
        for end in 0..end {
            let cut = Certificate { chain: whole.chain[..end].to_owned(), key: whole.key.clone() };
            assert!(cut.inspect().is_err(), "{end}");
        }
        let der = chain(&whole.chain).unwrap().remove(0);
        assert!((0..der.len()).all(|end| details(&der[..end]).is_err()));
        let mut numbers = Numbers::from(1);
        let spoilt = (0..20_000).map(|_| numbers.spoil(&der, 3, Numbers::byte));
        let read = spoilt.filter(|bytes| details(bytes).is_ok()).count();
        assert!(read > 100, "some damage is to what is not read: {read}");
    }
}
