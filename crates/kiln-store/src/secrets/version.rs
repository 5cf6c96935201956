//! From a value to its version.

use std::num::NonZeroU32;

use kiln_model::{AppName, SecretName, SecretValue, SecretVersion};
use ring::pbkdf2;

/// What a guess costs: about a tenth of a second.
const ROUNDS: NonZeroU32 = NonZeroU32::new(600_000).expect("not 0");

/// The version of `value`: the same everywhere, and of no use for guessing a value that cannot be guessed.
pub fn of(app: &AppName, name: &SecretName, value: &SecretValue) -> SecretVersion {
    let salt = format!("kiln secret\0{app}\0{name}");
    let mut tag = [0; 10];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, salt.as_bytes(), value.reveal(), &mut tag);
    let hex: String = tag.iter().map(|b| format!("{b:02x}")).collect();
    format!("s-{hex}").parse().expect("20 hex digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From another implementation: Python's `hashlib.pbkdf2_hmac`.
    #[test]
    fn a_version_follows_from_app_name_and_value() {
        let value = SecretValue::new(b"sesame".to_vec()).unwrap();
        let version = of(&"hello".parse().unwrap(), &"API_KEY".parse().unwrap(), &value);
        assert_eq!(version.as_str(), "s-92804d9e5a15daaae244");
    }
}
