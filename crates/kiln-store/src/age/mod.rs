//! Bytes for somebody: the file format of [age](https://age-encryption.org/v1), with X25519 recipients.
//!
//! ```text
//! age-encryption.org/v1
//! -> X25519 <ephemeral share>          one for each recipient
//! <file key, sealed for them>
//! --- <MAC of all above>
//! <16 bytes of nonce><chunks of 64 KiB, each sealed; the last says so>
//! ```
//! What is written here `age --decrypt` opens, and the other way round; keys are those of `age-keygen`. The crate of that
//! name brings 47 others (most of them for messages in many languages); the format is small and fixed.

mod bech32;
mod header;
mod payload;

use std::fmt;
use std::str::FromStr;

use ring::hkdf;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

const RECIPIENT: &str = "age";
const IDENTITY: &str = "age-secret-key-";

/// Whom something is encrypted to: `age1…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipient([u8; 32]);

/// Who can decrypt: `AGE-SECRET-KEY-1…`. Overwritten when dropped.
pub struct Identity(StaticSecret);

/// Why something could not be encrypted or decrypted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgeError {
    /// A text that is no recipient.
    #[error("`{0}` is no recipient: `age-keygen` prints one as `Public key: age1…`")]
    NotARecipient(String),
    /// The key itself in place of whom it belongs to. It is not said again: messages are kept.
    #[error(
        "what was given is an identity, which is secret: `age-keygen -y FILE` prints the recipient it belongs to"
    )]
    AnIdentity,
    /// A file without an identity.
    #[error("there is no identity in it: `age-keygen -o FILE` writes one, as a line AGE-SECRET-KEY-1…")]
    NoIdentity,
    /// A line of it that is none.
    #[error("line {0} of it is no identity of age (AGE-SECRET-KEY-1…)")]
    NotAnIdentity(usize),
    /// The identity itself is encrypted.
    #[error("the identity is encrypted itself: decrypt it first, with `age --decrypt`")]
    Encrypted,
    /// Bytes that are not of this format.
    #[error("they are not encrypted as age does it")]
    NotAge,
    /// None of the identities is one they are encrypted to.
    #[error("they are encrypted to {0}, and none of these is the identity given")]
    NotForUs(String),
    /// They have been changed, or are not all there.
    #[error("they are damaged: {0}")]
    Damaged(&'static str),
}

impl FromStr for Recipient {
    type Err = AgeError;

    fn from_str(text: &str) -> Result<Self, AgeError> {
        let text = text.trim();
        if text.get(..IDENTITY.len()).is_some_and(|start| start.eq_ignore_ascii_case(IDENTITY)) {
            return Err(AgeError::AnIdentity);
        }
        let decoded = bech32::decode(text, RECIPIENT);
        let bytes = decoded.and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok());
        bytes.map(Self).ok_or_else(|| AgeError::NotARecipient(text.chars().take(80).collect()))
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bech32::encode(RECIPIENT, &self.0))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the identity of {}", self.recipient())
    }
}

impl Identity {
    /// All identities of a file as `age-keygen` writes it: one a line, comments after `#`.
    ///
    /// # Errors
    /// If a line is none, or there is none.
    pub fn read(text: &str) -> Result<Vec<Self>, AgeError> {
        if text.starts_with("-----BEGIN AGE ENCRYPTED FILE-----") || text.starts_with("age-encryption.org/") {
            return Err(AgeError::Encrypted);
        }
        let lines = text.lines().enumerate().map(|(n, line)| (n + 1, line.trim()));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let identities: Vec<Self> = lines
            .map(|(n, line)| Self::parse(line).ok_or(AgeError::NotAnIdentity(n)))
            .collect::<Result<_, _>>()?;
        if identities.is_empty() { Err(AgeError::NoIdentity) } else { Ok(identities) }
    }

    fn parse(line: &str) -> Option<Self> {
        let bytes = Zeroizing::new(bech32::decode(line, IDENTITY)?);
        let key = Zeroizing::new(<[u8; 32]>::try_from(bytes.as_slice()).ok()?);
        Some(Self(StaticSecret::from(*key)))
    }

    /// Whom to encrypt to so that this identity decrypts.
    pub fn recipient(&self) -> Recipient {
        Recipient(PublicKey::from(&self.0).to_bytes())
    }
}

/// Encrypts `plain` to all of `recipients`, of which there must be one at least.
///
/// # Errors
/// What the system's source of random numbers has to say; [`AgeError::NotARecipient`] for one that would make the key
/// known to everybody.
pub fn encrypt(plain: &[u8], recipients: &[Recipient]) -> crate::Result<Result<Vec<u8>, AgeError>> {
    let key = Zeroizing::new(crate::random::random::<16>()?);
    let head = match header::write(&key, recipients)? {
        Ok(head) => head,
        Err(error) => return Ok(Err(error)),
    };
    Ok(Ok([head, payload::seal(plain, &key)?].concat()))
}

/// Decrypts with whichever of `identities` it was encrypted to.
///
/// # Errors
/// Why it cannot be done.
pub fn decrypt(bytes: &[u8], identities: &[Identity]) -> Result<Zeroizing<Vec<u8>>, AgeError> {
    let (head, rest) = header::Header::read(bytes)?;
    let key = head.open(identities)?;
    payload::open(rest, &key)
}

/// Derives a key of 32 bytes.
fn derive(secret: &[u8], salt: &[u8], info: &[u8]) -> Zeroizing<[u8; 32]> {
    struct Length;
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            32
        }
    }
    let mut key = Zeroizing::new([0; 32]);
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
    let filled = extracted.expand(&[info], Length).and_then(|okm| okm.fill(&mut *key));
    filled.expect("the length of a key");
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `age-keygen`.
    const KEYS: &str = "# public key: age1ymc5u8d8d43zapyfmfvyv4yn5wjxj9xk0lu5ll7puzkgqq4rygwsd0vprw\nAGE-SECRET-KEY-1WT04CY0EU7XCG93SXFVX7TPEADRLP6L73QZ9Y52HZS6U8HAXLN7S4J3TSZ\n";

    fn identity(byte: u8) -> Identity {
        Identity(StaticSecret::from([byte; 32]))
    }

    #[test]
    fn keys_are_those_of_age() {
        let [ours] = &Identity::read(KEYS).unwrap()[..] else { panic!("one") };
        assert_eq!(
            ours.recipient().to_string(),
            "age1ymc5u8d8d43zapyfmfvyv4yn5wjxj9xk0lu5ll7puzkgqq4rygwsd0vprw"
        );
        assert_eq!(ours.recipient().to_string().parse(), Ok(ours.recipient()));
        assert!(matches!(Identity::read("# nothing\n"), Err(AgeError::NoIdentity)));
        assert!(matches!(Identity::read("# x\n\nAGE-SECRET-KEY-1AAAA\n"), Err(AgeError::NotAnIdentity(3))));
        assert!(matches!(Identity::read("age-encryption.org/v1\n"), Err(AgeError::Encrypted)));
        for wrong in
            ["", "age1", "age1ymc5u8d8d43zapyfmfvyv4yn5wjxj9xk0lu5ll7puzkgqq4rygwsd0vprx", "ssh-ed25519 AAAA"]
        {
            assert!(matches!(wrong.parse::<Recipient>(), Err(AgeError::NotARecipient(_))), "{wrong}");
        }
        let secret = KEYS.lines().last().unwrap();
        for given in [secret.to_owned(), format!(" {}", secret.to_lowercase()), secret[..30].to_owned()] {
            let refused = given.parse::<Recipient>().unwrap_err();
            assert_eq!(refused, AgeError::AnIdentity);
            assert!(!refused.to_string().contains(&secret[20..30]), "{refused}");
        }
    }

    #[test]
    fn only_those_it_is_for_can_open_it() {
        for length in [0, 1, 100, (64 << 10) - 1, 64 << 10, (64 << 10) + 1, 200_000] {
            let plain: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let to = [identity(1).recipient(), identity(2).recipient()];
            let sealed = encrypt(&plain, &to).unwrap().unwrap();
            for who in [1, 2] {
                assert_eq!(*decrypt(&sealed, &[identity(3), identity(who)]).unwrap(), plain);
            }
            let refused = decrypt(&sealed, &[identity(3)]).unwrap_err();
            assert!(matches!(refused, AgeError::NotForUs(_)) && refused.to_string().contains("2 recipients"));
        }
    }

    /// Every byte counts, and so does the end.
    #[test]
    fn whatever_is_changed_is_noticed() {
        let sealed = encrypt(b"a secret", &[identity(1).recipient()]).unwrap().unwrap();
        for at in 0..sealed.len() {
            for bit in [1, 0x40] {
                let mut damaged = sealed.clone();
                damaged[at] ^= bit;
                assert!(decrypt(&damaged, &[identity(1)]).is_err(), "byte {at}");
            }
            assert!(decrypt(&sealed[..at], &[identity(1)]).is_err(), "cut at {at}");
        }
        assert!(decrypt(&[&sealed[..], b"x"].concat(), &[identity(1)]).is_err());
    }

    #[test]
    fn nobody_is_everybody() {
        let weak = Recipient([0; 32]);
        assert!(matches!(encrypt(b"a secret", &[weak]).unwrap(), Err(AgeError::NotARecipient(_))));
    }
}
