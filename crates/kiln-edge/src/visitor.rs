//! Who asks, as far as it matters for a canary: the same user is always at the same release.
//!
//! A user is a number in a cookie, drawn at the first request that meets a canary. Number and release together are
//! hashed to a point between 0 and the whole; the canary has those below its share. So who is at it stays when the
//! share grows, everybody changes once at most, and the next canary meets other users first. All threads, and the
//! edge that comes after this one, come to the same result without knowing of each other. The number means nothing
//! elsewhere; who makes one up only chooses on which side he is.

use hyper::header::HeaderValue;
use kiln_model::{EdgeCanary, ReleaseId, Share};

use crate::origin::Scheme;
use crate::random::Random;

/// Asks for the release that does not serve everybody yet.
pub(crate) const PREVIEW: &str = "x-kiln-preview";
/// The same, before the name of a host.
const PREVIEW_HOST: &str = "preview.";
const NAME: &str = "kiln-user";
/// A week, in seconds: longer than canaries last.
const MAX_AGE: u32 = 604_800;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Visitor {
    number: u64,
    is_known: bool,
    wants_preview: bool,
}

impl Visitor {
    /// As the head of a request says: what stands at [`PREVIEW`], and its cookies.
    pub(crate) fn of<'a>(
        preview: Option<&[u8]>,
        cookies: impl Iterator<Item = &'a [u8]>,
        random: &Random,
    ) -> Self {
        let wants_preview = preview == Some(b"1");
        match known(cookies) {
            Some(number) => Self { number, is_known: true, wants_preview },
            None => Self { number: random.next(), is_known: false, wants_preview },
        }
    }

    /// Whether a canary's release serves him.
    pub(crate) fn is_at(self, canary: &Canary) -> bool {
        self.is_forced(canary) || point(self.number, canary.salt) < canary.share.0
    }

    /// Whether he is there because he asked for it and not by chance.
    pub(crate) fn is_forced(self, canary: &Canary) -> bool {
        canary.preview && self.wants_preview
    }

    /// He asks for a preview by the name of the host.
    pub(crate) fn previewing(self) -> Self {
        Self { wants_preview: true, ..self }
    }

    /// What he is told so that he can be known again, unless he is.
    pub(crate) fn introduction(self, scheme: Scheme) -> Option<HeaderValue> {
        if self.is_known {
            return None;
        }
        let secure = if scheme == Scheme::Https { "; Secure" } else { "" };
        let cookie =
            format!("{NAME}={:016x}; Path=/; Max-Age={MAX_AGE}; HttpOnly; SameSite=Lax{secure}", self.number);
        HeaderValue::try_from(cookie).ok()
    }
}

/// The host without the word before it that asks for a preview.
pub(crate) fn previewed(host: &str) -> Option<&str> {
    let (word, rest) = host.split_at_checked(PREVIEW_HOST.len())?;
    word.eq_ignore_ascii_case(PREVIEW_HOST).then_some(rest)
}

/// A canary as it is decided by.
#[derive(Debug, Clone)]
pub(crate) struct Canary {
    salt: u64,
    share: Share,
    pub(crate) preview: bool,
}

impl Canary {
    pub(crate) fn new(canary: &EdgeCanary) -> Self {
        Self { salt: salt(&canary.release), share: canary.share, preview: canary.preview }
    }
}

fn salt(release: &ReleaseId) -> u64 {
    release.as_str().bytes().fold(0, |hash, byte| mix(hash ^ u64::from(byte)))
}

/// Spreads every bit over all of them (the finaliser of SplitMix64).
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Where a user stands, in hundredths of a per cent.
fn point(number: u64, salt: u64) -> u32 {
    let spread = u128::from(mix(number ^ salt)) * u128::from(Share::WHOLE.0);
    (spread >> 64) as u32
}

/// The number of who asks, if its cookies say one. Others may hold any bytes, and one of the same name that is no number may
/// be of another path.
pub fn known<'a>(cookies: impl Iterator<Item = &'a [u8]>) -> Option<u64> {
    cookies.flat_map(|line| line.split(|byte| *byte == b';')).find_map(number)
}

fn number(pair: &[u8]) -> Option<u64> {
    let value = pair.trim_ascii().strip_prefix(NAME.as_bytes())?.strip_prefix(b"=")?;
    let is_one = value.len() == 16 && value.iter().all(u8::is_ascii_hexdigit);
    let digits = std::str::from_utf8(value).ok().filter(|_| is_one)?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canary(digit: char, share: u32, preview: bool) -> Canary {
        let release = format!("r-{}", digit.to_string().repeat(32)).parse().unwrap();
        Canary::new(&EdgeCanary { release, share: Share(share), preview })
    }

    fn visitor(number: u64) -> Visitor {
        Visitor { number, is_known: true, wants_preview: false }
    }

    #[test]
    fn shares_are_kept_and_nobody_goes_back() {
        let at = |share| -> Vec<u64> {
            (0..20_000).filter(|n| visitor(mix(*n)).is_at(&canary('a', share, false))).collect()
        };
        let (few, more) = (at(500), at(2500));
        assert!(
            (900..1100).contains(&few.len()) && (4800..5200).contains(&more.len()),
            "{} {}",
            few.len(),
            more.len()
        );
        assert!(few.iter().all(|n| more.contains(n)));
        assert!(at(0).is_empty());
        // Another canary begins with others.
        let other = (0..20_000).filter(|n| visitor(mix(*n)).is_at(&canary('b', 500, false)));
        let both = other.filter(|n| few.contains(n)).count();
        assert!(both < 100, "{both}");
    }

    #[test]
    fn a_cookie_is_found_among_others_and_nonsense_is_none() {
        for (line, number) in [
            ("a=b; kiln-user=00000000000000ff; c=d", Some(255)),
            ("kiln-user=00000000000000ff", Some(255)),
            ("kiln-user=ff", None),
            ("kiln-user=+0000000000000ff", None),
            ("xkiln-user=00000000000000ff", None),
            ("kiln-user", None),
        ] {
            assert_eq!(known(std::iter::once(line.as_bytes())), number, "{line}");
        }
        let line = b"n=J\xfcrgen; kiln-user=zz; kiln-user=00000000000000ff";
        assert_eq!(known(std::iter::once(&line[..])), Some(255));
    }

    #[test]
    fn who_asks_for_a_preview_gets_it_where_there_are_any() {
        let asks = Visitor { wants_preview: true, ..visitor(1) };
        assert!(asks.is_at(&canary('a', 0, true)) && asks.is_forced(&canary('a', 0, true)));
        assert!(!asks.is_at(&canary('a', 0, false)));
        assert_eq!(previewed("Preview.example.com"), Some("example.com"));
        assert_eq!(previewed("preview."), Some(""));
        assert_eq!(previewed("previews.example.com"), None);
        assert_eq!(previewed("prév"), None);
    }
}
