//! Every parser of bytes from outside, given any bytes at all: for the fuzz targets in `fuzz/` and the test of the
//! same name. Each of these returns or there is a bug; where what was read can be written, it must be read again.

use std::io::{self, Read};

use kiln_model::{Content, Tree};
use kiln_store::Verity;

use crate::debian::deb::{self, Sink};
use crate::debian::{index, relation, release, signature, version};
use crate::{erofs, sbom, tree_file};

/// The most a package of a fuzz target may unpack to: a bomb is to be refused, not watched.
const MOST_DATA: u64 = 16 << 20;

/// Takes contents and keeps their digest alone.
struct Weighed;

impl Sink for Weighed {
    fn keep(&self, content: &mut dyn Read, _: u64) -> io::Result<Content> {
        let mut verity = Verity::new();
        let mut buffer = [0; 16 << 10];
        loop {
            match content.read(&mut buffer)? {
                0 => {
                    let size = verity.size();
                    return Ok(Content::Object { digest: verity.finish(), size });
                }
                n => verity.update(&buffer[..n]),
            }
        }
    }
}

/// A Debian package.
pub fn deb(bytes: &[u8]) {
    if let Ok(deb) = deb::unpack(bytes, MOST_DATA, &Weighed) {
        written_and_read(&deb.data);
    }
}

/// An index of packages, or any other file of fields and values.
pub fn deb822(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    index::stanzas(&text, 0).for_each(drop);
    let fields: usize = index::fields(&text).map(|(name, value)| name.len() + value.len()).sum();
    assert!(fields <= text.len(), "no field is read twice");
}

/// Relations between packages, and versions.
pub fn relation(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for relation in relation::groups(&text).flatten().chain(relation::list(&text)) {
        relation.accepts("1:2.3~rc1-4+deb12u5");
    }
    let (a, b) = text.split_once('\n').unwrap_or((&text, "1"));
    assert_eq!(version::compare(a, b), version::compare(b, a).reverse());
}

/// The signed list of an archive's indexes, as it is once its signature is verified.
pub fn release(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let release = release::Release::new(&text);
    let _ = (
        release.check_suite("bookworm"),
        release.check_dates(0, true, None),
        release.packages("main", "amd64"),
    );
}

/// A signed text, before it is verified; half of the bytes are taken as the keys.
pub fn signature(bytes: &[u8]) {
    let (signed, keys) = bytes.split_at(bytes.len() / 2);
    let _ = signature::verified(&String::from_utf8_lossy(signed), keys, 0);
    let _ = signature::verified(&String::from_utf8_lossy(bytes), &[], 0);
}

/// A machine-readable copyright file.
pub fn copyright(bytes: &[u8]) {
    sbom::licences_of(&String::from_utf8_lossy(bytes));
}

/// The metadata file of an image.
pub fn image(bytes: &[u8]) {
    if let Ok(tree) = erofs::read(bytes) {
        written_and_read(&tree);
    }
}

/// A tree as caches keep it.
pub fn tree(bytes: &[u8]) {
    if let Ok(tree) = tree_file::decode(bytes) {
        assert!(tree_file::decode(&tree_file::encode(&tree)).is_ok_and(|again| again == tree));
        written_and_read(&tree);
    }
}

/// What is no image is refused; what is one is read back, whatever its names and numbers.
fn written_and_read(tree: &Tree) {
    if let Ok(written) = erofs::write(tree) {
        let back = erofs::read(&written.bytes).expect("what was written is read");
        assert_eq!(back.len(), tree.len());
    }
}
