//! What holds for every tar archive from elsewhere, whether a package or an OCI layer is in it.

use std::io::Read;

/// This many paths and no more; the largest package of Debian has a tenth of it.
pub(crate) const MOST_ENTRIES: usize = 1_000_000;
/// The longest target of a symbolic link, in bytes.
const LONGEST_LINK: usize = 4095;

/// Where a link at `path` leads.
pub(crate) fn link<R: Read>(entry: &tar::Entry<'_, R>, path: &[u8]) -> Result<Vec<u8>, String> {
    let target = entry.link_name_bytes().map(|t| t.into_owned()).unwrap_or_default();
    if target.is_empty() || target.len() > LONGEST_LINK {
        return Err(format!("{} is a link to nothing", String::from_utf8_lossy(path)));
    }
    Ok(target)
}

/// `./usr/bin/` as `/usr/bin`.
pub(crate) fn normal(path: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(path.len() + 1);
    for part in path.split(|c| *c == b'/').filter(|p| !matches!(*p, b"" | b".")) {
        if part == b".." {
            return Err(format!("it holds {}, outside of any tree", String::from_utf8_lossy(path)));
        }
        out.push(b'/');
        out.extend_from_slice(part);
    }
    if out.is_empty() {
        out.push(b'/');
    }
    Ok(out)
}
