//! Files that hold the moment they were made inside their format: made the same for every run.
//!
//! | file | what differs | becomes |
//! |---|---|---|
//! | Java key store (`/etc/ssl/certs/java/cacerts`) | a time for each certificate, and their order | the epoch; sorted by alias; its checksum made again |
//! | Berkeley DB (`/etc/aliases.db`, …) | the id of the file (inode, time, process); left-over memory; the date of the aliases | a digest of the content; zeroes; the epoch |

use sha1::{Digest as _, Sha1};

use kiln_model::Sha256;

const JAVA_MAGIC: [u8; 4] = [0xfe, 0xed, 0xfe, 0xed];
const JAVA_VERSION: u32 = 2;
/// The kind of entry that is a certificate and no key.
const CERTIFICATE: u32 = 2;
/// The password of Java's own store of certificates, which everyone knows: it guards nothing, it is part of a checksum.
const PASSWORD: &str = "changeit";
/// What the inventors of the format mix into that checksum.
const SALT: &[u8] = b"Mighty Aphrodite";

const DB_MAGICS: [u32; 3] = [0x0006_1561, 0x0005_3162, 0x0004_2253];
const DB_MAGIC_AT: usize = 12;
const DB_PAGE_SIZE_AT: usize = 20;
/// Hash pages and leaves of trees.
const DB_PAGES_OF_ITEMS: [u8; 4] = [2, 13, 3, 5];
const DB_DATE: &[u8] = b"\x01YP_LAST_MODIFIED";
const DB_ID: std::ops::Range<usize> = 52..72;

/// The same content without the moment, if it is of one of these formats.
pub(super) fn settled(bytes: &[u8], epoch: i64) -> Option<Vec<u8>> {
    java_key_store(bytes, epoch).or_else(|| berkeley_db(bytes, epoch))
}

fn berkeley_db(bytes: &[u8], epoch: i64) -> Option<Vec<u8>> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    if !DB_MAGICS.contains(&word(DB_MAGIC_AT)?) || bytes.len() < DB_ID.end {
        return None;
    }
    let page = usize::try_from(word(DB_PAGE_SIZE_AT)?).ok().filter(|n| (512..=65_536).contains(n))?;
    let mut out = bytes.to_vec();
    out[DB_ID].fill(0);
    out.chunks_exact_mut(page).skip(1).for_each(|page| {
        clear_gap(page);
        date_of_aliases(page, epoch);
    });
    // Not zeroes: programs that open several tell them apart by it.
    let id = Sha256::of(&out);
    out[DB_ID].copy_from_slice(&id.0[..DB_ID.len()]);
    Some(out)
}

/// Between the places of a page's items, at its front, and the items, at its end, is what the memory held before.
fn clear_gap(page: &mut [u8]) {
    let short = |at: usize| usize::from(u16::from_le_bytes([page[at], page[at + 1]]));
    let (places_end, items) = (26 + 2 * short(20), short(22));
    if DB_PAGES_OF_ITEMS.contains(&page[25]) && places_end <= items && items <= page.len() {
        page[places_end..items].fill(0);
    }
}

/// `newaliases` writes down when it ran: ten digits before the name of that record.
fn date_of_aliases(page: &mut [u8], epoch: i64) {
    let Some(at) = memchr::memmem::find(page, DB_DATE) else { return };
    let Some(digits) = at.checked_sub(10).map(|start| &mut page[start..at]) else { return };
    if digits.iter().all(u8::is_ascii_digit) {
        digits.copy_from_slice(&format!("{:010}", epoch.clamp(0, 9_999_999_999)).as_bytes()[..10]);
    }
}

/// Nothing if it holds keys, or its checksum is not right: then somebody else made it.
fn java_key_store(bytes: &[u8], epoch: i64) -> Option<Vec<u8>> {
    let (content, checksum) = bytes.split_at_checked(bytes.len().checked_sub(20)?)?;
    let mut rest = content.strip_prefix(&JAVA_MAGIC)?;
    if number(&mut rest)? != JAVA_VERSION || checksum != java_checksum(content) {
        return None;
    }
    let count = number(&mut rest)?;
    let mut entries = (0..count).map(|_| certificate(&mut rest)).collect::<Option<Vec<_>>>()?;
    if !rest.is_empty() {
        return None;
    }
    entries.sort();
    let millis = u64::try_from(epoch).unwrap_or(0).saturating_mul(1000);
    let mut out = content[..12].to_vec();
    for (alias, certificate) in entries {
        out.extend_from_slice(&CERTIFICATE.to_be_bytes());
        out.extend_from_slice(alias);
        out.extend_from_slice(&millis.to_be_bytes());
        out.extend_from_slice(certificate);
    }
    let checksum = java_checksum(&out);
    out.extend_from_slice(&checksum);
    Some(out)
}

fn java_checksum(content: &[u8]) -> [u8; 20] {
    let password: Vec<u8> = PASSWORD.encode_utf16().flat_map(u16::to_be_bytes).collect();
    Sha1::new().chain_update(password).chain_update(SALT).chain_update(content).finalize().into()
}

/// The alias and the certificate of the next entry, each with its length before it.
fn certificate<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    if number(rest)? != CERTIFICATE {
        return None;
    }
    let alias = text(rest)?;
    take(rest, 8)?;
    let start = *rest;
    text(rest)?;
    let length = number(rest)?;
    take(rest, usize::try_from(length).ok()?)?;
    Some((alias, &start[..start.len() - rest.len()]))
}

/// A text with its length in two bytes before it, these included.
fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u16::from_be_bytes(rest.get(..2)?.try_into().ok()?);
    take(rest, usize::from(length) + 2)
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(take(rest, 4)?.try_into().ok()?))
}

fn take<'a>(rest: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(n)?;
    *rest = after;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_store(entries: &[(&str, u64)]) -> Vec<u8> {
        let mut out = JAVA_MAGIC.to_vec();
        out.extend_from_slice(&JAVA_VERSION.to_be_bytes());
        out.extend_from_slice(&(entries.len() as u32).to_be_bytes());
        for (alias, time) in entries {
            out.extend_from_slice(&CERTIFICATE.to_be_bytes());
            out.extend_from_slice(&(alias.len() as u16).to_be_bytes());
            out.extend_from_slice(alias.as_bytes());
            out.extend_from_slice(&time.to_be_bytes());
            out.extend_from_slice(b"\x00\x05X.509\x00\x00\x00\x03abc");
        }
        let checksum = java_checksum(&out);
        out.extend_from_slice(&checksum);
        out
    }

    #[test]
    fn key_stores_of_two_runs_are_the_same() {
        let one = settled(&key_store(&[("b", 1), ("a", 2)]), 7).unwrap();
        assert_eq!(one, settled(&key_store(&[("a", 3), ("b", 4)]), 7).unwrap());
        assert_eq!(one, key_store(&[("a", 7000), ("b", 7000)]));
        assert_ne!(Some(one), settled(&key_store(&[("a", 1)]), 7));
    }

    #[test]
    fn what_is_damaged_or_of_another_kind_stays() {
        let mut damaged = key_store(&[("a", 1)]);
        damaged[20] ^= 1;
        assert_eq!(settled(&damaged, 0), None);
        for cut in 0..damaged.len() {
            assert_eq!(settled(&damaged[..cut], 0), None);
        }
        assert_eq!(settled(b"", 0), None);
        assert_eq!(settled(&[0; 100], 0), None);
    }

    #[test]
    fn databases_get_an_id_of_their_content() {
        let database = |run: u8, content: u8| {
            let mut bytes = vec![content; 8192];
            bytes[DB_MAGIC_AT..DB_MAGIC_AT + 4].copy_from_slice(&DB_MAGICS[0].to_le_bytes());
            bytes[DB_PAGE_SIZE_AT..DB_PAGE_SIZE_AT + 4].copy_from_slice(&4096_u32.to_le_bytes());
            bytes[DB_ID].fill(run);
            // A page with two items in its last 96 bytes, and memory of this run before them.
            bytes[4096 + 20..4096 + 26].copy_from_slice(&[2, 0, 0xa0, 0x0f, 0, 13]);
            bytes[4096 + 30..4096 + 0xfa0].fill(run);
            let date = format!("123456789{run}\u{1}YP_LAST_MODIFIED");
            bytes[8192 - date.len()..].copy_from_slice(date.as_bytes());
            settled(&bytes, 7).unwrap()
        };
        assert!(database(1, 5).ends_with(b"0000000007\x01YP_LAST_MODIFIED"));
        assert_eq!(database(1, 5), database(2, 5));
        assert_ne!(database(1, 5)[DB_ID], database(1, 6)[DB_ID]);
    }
}
