//! The head: the key of the file, sealed for each recipient, and a MAC over all of it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use ring::{aead, hmac};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::{AgeError, Identity, Recipient, derive};

const VERSION: &str = "age-encryption.org/v1";
const INFO: &[u8] = b"age-encryption.org/v1/X25519";
/// The longest a head may be, and the most recipients.
const LONGEST: usize = 64 << 10;
const MOST: usize = 64;

/// The key of a file.
pub(super) type FileKey = Zeroizing<[u8; 16]>;

/// A head as it was read.
pub(super) struct Header<'a> {
    /// All of it up to the MAC.
    text: &'a [u8],
    mac: Vec<u8>,
    stanzas: Vec<Stanza>,
    /// How many recipients are of a kind that is not known here.
    others: usize,
}

/// The key of the file, sealed for somebody.
struct Stanza {
    share: [u8; 32],
    sealed: [u8; 32],
}

pub(super) fn write(key: &FileKey, recipients: &[Recipient]) -> crate::Result<Result<Vec<u8>, AgeError>> {
    let mut text = format!("{VERSION}\n");
    for recipient in recipients {
        let ephemeral = StaticSecret::from(*Zeroizing::new(crate::random::random::<32>()?));
        let share = PublicKey::from(&ephemeral).to_bytes();
        let Some(wrap) = wrap_key(&ephemeral, &PublicKey::from(recipient.0), &share, &recipient.0) else {
            return Ok(Err(AgeError::NotARecipient(recipient.to_string())));
        };
        let mut sealed = key.to_vec();
        let done =
            wrap.seal_in_place_append_tag(super::payload::nonce([0; 12]), aead::Aad::empty(), &mut sealed);
        done.expect("a key is short");
        text.push_str(&format!("-> X25519 {}\n{}\n", BASE64.encode(share), BASE64.encode(sealed)));
    }
    text.push_str("---");
    let mac = hmac::sign(&mac_key(key), text.as_bytes());
    text.push_str(&format!(" {}\n", BASE64.encode(mac)));
    Ok(Ok(text.into_bytes()))
}

/// What the key of the file is sealed with; none if the recipient's key is no real one.
fn wrap_key(
    secret: &StaticSecret,
    other: &PublicKey,
    share: &[u8; 32],
    recipient: &[u8; 32],
) -> Option<aead::LessSafeKey> {
    let shared = secret.diffie_hellman(other);
    if !shared.was_contributory() {
        return None;
    }
    let key = derive(shared.as_bytes(), &[&share[..], &recipient[..]].concat(), INFO);
    let key = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, &*key).expect("the length of a key");
    Some(aead::LessSafeKey::new(key))
}

fn mac_key(key: &FileKey) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &*derive(&**key, &[], b"header"))
}

impl<'a> Header<'a> {
    /// Reads a head; what comes after it is the rest.
    pub(super) fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), AgeError> {
        let mut lines = Lines { bytes, at: 0 };
        if lines.next().is_none_or(|line| line != VERSION) {
            return Err(AgeError::NotAge);
        }
        let (mut stanzas, mut others) = (Vec::new(), 0);
        loop {
            let start = lines.at;
            let line = lines.next().ok_or(AgeError::Damaged("the head does not end"))?;
            if let Some(mac) = line.strip_prefix("--- ") {
                let mac = BASE64.decode(mac).map_err(|_| AgeError::Damaged("the head's MAC is none"))?;
                let header = Self { text: &bytes[..start + 3], mac, stanzas, others };
                return Ok((header, &bytes[lines.at..]));
            }
            let words =
                line.strip_prefix("-> ").ok_or(AgeError::Damaged("the head has a line of no kind"))?;
            let body = lines.body()?;
            match Stanza::read(words, &body) {
                Some(stanza) => stanzas.push(stanza?),
                None => others += 1,
            }
            if stanzas.len() + others > MOST {
                return Err(AgeError::Damaged("the head has too many recipients"));
            }
        }
    }

    /// The key of the file, by the first identity that fits.
    pub(super) fn open(&self, identities: &[Identity]) -> Result<FileKey, AgeError> {
        let pairs = self.stanzas.iter().flat_map(|s| identities.iter().map(move |i| (s, i)));
        let key = pairs.filter_map(|(stanza, identity)| stanza.open(identity)).next();
        let key = key.ok_or_else(|| AgeError::NotForUs(self.recipients()))?;
        hmac::verify(&mac_key(&key), self.text, &self.mac)
            .map_err(|_| AgeError::Damaged("the head is not what was written"))?;
        Ok(key)
    }

    fn recipients(&self) -> String {
        match self.stanzas.len() + self.others {
            1 => "1 recipient".into(),
            n => format!("{n} recipients"),
        }
    }
}

impl Stanza {
    /// One for an X25519 recipient, which must be right; nothing for another kind.
    fn read(words: &str, body: &[u8]) -> Option<Result<Self, AgeError>> {
        let share = words.strip_prefix("X25519 ")?;
        let wrong = AgeError::Damaged("the head has a recipient that is none");
        let share = BASE64.decode(share).ok().and_then(|share| <[u8; 32]>::try_from(share).ok());
        let sealed = <[u8; 32]>::try_from(body).ok();
        Some(share.zip(sealed).map(|(share, sealed)| Self { share, sealed }).ok_or(wrong))
    }

    fn open(&self, identity: &Identity) -> Option<FileKey> {
        let ours = identity.recipient().0;
        let wrap = wrap_key(&identity.0, &PublicKey::from(self.share), &self.share, &ours)?;
        let mut sealed = Zeroizing::new(self.sealed);
        let opened =
            wrap.open_in_place(super::payload::nonce([0; 12]), aead::Aad::empty(), &mut *sealed).ok()?;
        <[u8; 16]>::try_from(&*opened).ok().map(Zeroizing::new)
    }
}

/// Lines of ASCII, within bounds.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().take(LONGEST.saturating_sub(self.at)).position(|b| *b == b'\n')?;
        let line = std::str::from_utf8(&rest[..end]).ok().filter(|line| line.is_ascii())?;
        self.at += end + 1;
        Some(line)
    }

    /// The body of a stanza: lines of 64 characters and a shorter last one.
    fn body(&mut self) -> Result<Vec<u8>, AgeError> {
        let mut text = String::new();
        loop {
            let line = self.next().ok_or(AgeError::Damaged("the head does not end"))?;
            text.push_str(line);
            if line.len() > 64 {
                return Err(AgeError::Damaged("the head has a line that is too long"));
            }
            if line.len() < 64 {
                return BASE64.decode(text).map_err(|_| AgeError::Damaged("the head is not base64"));
            }
        }
    }
}
