//! Requests for certificates, and proofs that look like certificates.

use kiln_edge::Certificate;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};

/// A key for a certificate, and the request (DER) that an authority is sent.
pub(super) fn request(name: &str) -> Result<(KeyPair, Vec<u8>), String> {
    let key = KeyPair::generate().map_err(|e| e.to_string())?;
    let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(|e| e.to_string())?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(|e| e.to_string())?;
    Ok((key, request.der().to_vec()))
}

/// What is shown to a validator that asks for `acme-tls/1`: a certificate of our own making with the hash of what the
/// proof says.
pub(crate) fn alpn_proof(name: &str, says: &str) -> Result<Certificate, String> {
    let key = KeyPair::generate().map_err(|e| e.to_string())?;
    let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(|e| e.to_string())?;
    let hash = ring::digest::digest(&ring::digest::SHA256, says.as_bytes());
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(hash.as_ref())];
    let certificate = params.self_signed(&key).map_err(|e| e.to_string())?;
    Ok(Certificate { chain: certificate.pem(), key: key.serialize_pem() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_for_one_name_and_says_what_was_asked() {
        let proof = alpn_proof("a.example", "token.thumb").unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(proof.chain.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let names = certificate.subject_alternative_name().unwrap().expect("a name").value;
        assert_eq!(names.general_names, [x509_parser::extensions::GeneralName::DNSName("a.example")]);
        let acme = certificate.extensions().iter().find(|e| e.oid.to_id_string() == "1.3.6.1.5.5.7.1.31");
        let hash = ring::digest::digest(&ring::digest::SHA256, b"token.thumb");
        assert!(acme.is_some_and(|e| e.critical && e.value.ends_with(hash.as_ref())));
    }
}
