//! Files of a store that somebody has written to.

use std::fs;
use std::time::Duration;

use kiln_model::ObjectDigest;
use kiln_store::Store;

/// Changes an object where it lies, as nobody should, and has that show in its time.
pub(crate) fn overwrite(store: &Store, digest: &ObjectDigest, change: impl Fn(&mut Vec<u8>)) {
    let path = store.objects().path(digest);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.set_modified(modified + Duration::from_secs(1)).unwrap();
}
