//! What the spec puts where no instance sees it: under a volatile path, which is empty in each of them. A build may have
//! use for it, so it is said and not refused.

use kiln_model::{Tree, Volatile};

use crate::order::BakeOrder;
use crate::tree_edit::resolve;

/// Each such path of the order in words.
pub(crate) fn hidden(order: &BakeOrder, tree: &Tree, volatile: &[Volatile]) -> Vec<String> {
    let files = order.files.iter().map(|f| ("files", f.dst.as_str(), false));
    let links = order.links.iter().map(|l| ("links", l.path.as_str(), false));
    let dirs = order.dirs.iter().map(|d| ("dirs", d.path.as_str(), true));
    let words = |(key, path, last): (&str, &str, bool)| {
        let place = resolve(tree, path.as_bytes(), last).ok()?;
        let over = volatile.iter().find(|v| hides(v, &place, key))?;
        Some(format!(
            "`{key}` has {path}, and no instance sees it: {} is volatile, and empty there",
            over.path
        ))
    };
    files.chain(links).chain(dirs).filter_map(words).collect()
}

/// Whether what is at `place` cannot be seen. A directory that is the volatile path itself gives that its owner and mode.
fn hides(volatile: &Volatile, place: &[u8], key: &str) -> bool {
    match place.strip_prefix(volatile.path.as_bytes()) {
        Some([]) => key != "dirs",
        Some([next, ..]) => *next == b'/',
        None => false,
    }
}
