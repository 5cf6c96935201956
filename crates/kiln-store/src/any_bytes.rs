//! The parsers of bytes from outside that are here, given any bytes at all: for the fuzz targets in `fuzz/` and for tests.
//! Each of these returns or there is a bug.

use std::collections::BTreeSet;
use std::path::Path;

use kiln_model::ObjectDigest;

use crate::age::{self, Identity};
use crate::{SecretsOfImport, Store};

/// Opens what [`encrypted`] is given, and what tests encrypt to it.
pub const IDENTITY: &str = "AGE-SECRET-KEY-1WT04CY0EU7XCG93SXFVX7TPEADRLP6L73QZ9Y52HZS6U8HAXLN7S4J3TSZ";

fn identities() -> Vec<Identity> {
    Identity::read(IDENTITY).expect("it is one")
}

/// What stands for the tree of an image here: lines, and those that are digests are its objects.
pub fn named_in(metadata: &[u8]) -> BTreeSet<ObjectDigest> {
    String::from_utf8_lossy(metadata).lines().filter_map(|line| line.parse().ok()).collect()
}

/// An export of a release, taken into an empty store: it is whole there, or there is no release. Whether it is.
pub fn export(bytes: &[u8], into: &Store) -> bool {
    let identities = identities();
    let wanted = SecretsOfImport::OpenedBy(&identities);
    let imported =
        into.import_release(&mut &*bytes, Path::new("any"), wanted, &|metadata, _| Ok(named_in(metadata)));
    match imported {
        Ok(imported) => {
            let release = into.release(&imported.release).expect("what was imported is there");
            for service in release.services.values() {
                into.handle(&service.image).expect("the images of what was imported are there");
                assert!(into.has_objects_of(&service.image).is_ok_and(|all| all), "and all they need");
            }
            true
        }
        Err(_) => {
            assert_eq!(into.releases().expect("a store that can be read"), [], "half a release is none");
            false
        }
    }
}

/// Something encrypted.
pub fn encrypted(bytes: &[u8]) {
    // Either it is opened or it is said why not.
    let _ = age::decrypt(bytes, &identities());
}

/// A file of identities, or a recipient.
pub fn keys(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = Identity::read(&text);
    if let Ok(recipient) = text.parse::<age::Recipient>() {
        assert_eq!(recipient.to_string().parse(), Ok(recipient), "what is written is read again");
    }
}
