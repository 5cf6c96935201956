//! The key of an account, and what is signed with it (JWS, ES256).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

/// The key, and its encoding for the disk.
pub(crate) struct AccountKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    pkcs8: Vec<u8>,
}

/// Who a request is from.
pub(crate) enum Signer<'a> {
    /// An account that is not known yet: its key itself.
    Key,
    /// An account, by its address.
    Account(&'a str),
}

impl AccountKey {
    /// A new one.
    pub(crate) fn make() -> Result<Self, String> {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .map_err(|_| "no key could be made")?;
        Self::decode(pkcs8.as_ref())
    }

    /// One that was kept.
    pub(crate) fn decode(pkcs8: &[u8]) -> Result<Self, String> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random)
            .map_err(|e| format!("the account's key is damaged: {e}"))?;
        Ok(Self { pair, random, pkcs8: pkcs8.to_vec() })
    }

    /// What is kept of it.
    pub(crate) fn encode(&self) -> &[u8] {
        &self.pkcs8
    }

    fn jwk(&self) -> Value {
        // An uncompressed point: 4, x, y.
        let point = self.pair.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        json!({"crv": "P-256", "kty": "EC", "x": BASE64.encode(x), "y": BASE64.encode(y)})
    }

    /// What a proof says beside its token (RFC 7638: the members of the key in alphabetical order, no white space).
    pub(crate) fn thumbprint(&self) -> String {
        // Objects of serde_json are sorted.
        BASE64.encode(ring::digest::digest(&ring::digest::SHA256, self.jwk().to_string().as_bytes()))
    }

    /// A signed request to `url`; no payload asks for what is there.
    pub(crate) fn sign(
        &self,
        signer: &Signer<'_>,
        nonce: &str,
        url: &str,
        payload: Option<&Value>,
    ) -> Result<Vec<u8>, String> {
        let mut head = json!({"alg": "ES256", "nonce": nonce, "url": url});
        match signer {
            Signer::Key => head["jwk"] = self.jwk(),
            Signer::Account(address) => head["kid"] = json!(address),
        }
        let protected = BASE64.encode(head.to_string());
        let payload = payload.map_or_else(String::new, |payload| BASE64.encode(payload.to_string()));
        let signed = format!("{protected}.{payload}");
        let signature =
            self.pair.sign(&self.random, signed.as_bytes()).map_err(|_| "nothing could be signed")?;
        let whole =
            json!({"protected": protected, "payload": payload, "signature": BASE64.encode(signature)});
        Ok(whole.to_string().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;

    #[test]
    fn what_is_signed_can_be_verified_and_the_key_survives_the_disk() {
        let key = AccountKey::make().unwrap();
        let again = AccountKey::decode(key.encode()).unwrap();
        assert_eq!(key.thumbprint(), again.thumbprint());
        let bytes = again.sign(&Signer::Key, "n", "https://a/b", Some(&json!({"x": 1}))).unwrap();
        let whole: Value = serde_json::from_slice(&bytes).unwrap();
        let text = |name: &str| whole[name].as_str().unwrap();
        let signed = format!("{}.{}", text("protected"), text("payload"));
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.pair.public_key().as_ref());
        public.verify(signed.as_bytes(), &BASE64.decode(text("signature")).unwrap()).unwrap();
        let head: Value = serde_json::from_slice(&BASE64.decode(text("protected")).unwrap()).unwrap();
        assert_eq!((head["alg"].as_str(), head["url"].as_str()), (Some("ES256"), Some("https://a/b")));
        assert!(head["kid"].is_null() && head["jwk"]["kty"] == "EC");
        assert!(AccountKey::decode(&key.encode()[1..]).is_err());
    }
}
