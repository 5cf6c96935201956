//! Whether the disk of the state directory is about to be full: said before it is, with what helps.

use kiln_model::ByteSize;
use kiln_store::Store;

/// Less than this is little on any disk; a deploy writes a new image's files and the log.
const LEAST: u64 = 512 << 20;
/// Of a large disk less than a twentieth is little, but never more than this.
const MOST: u64 = 10 << 30;

/// Why whoever looks after the host should make room, if so. What cannot be found out warns of nothing.
pub(super) fn warning(store: &Store) -> Option<String> {
    let disk = rustix::fs::statvfs(store.root()).ok()?;
    let (size, free) = (disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize);
    judge(size, free, &store.root().display().to_string())
}

fn judge(size: u64, free: u64, root: &str) -> Option<String> {
    let little = (size / 20).clamp(LEAST, MOST);
    let (left, all) = (ByteSize(free).about(), ByteSize(size).about());
    (free < little).then(|| {
        format!(
            "the disk of {root} has {left} of {all} left; `kiln gc --dry-run` says what may go, `kiln gc` lets it go"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn little_is_said_to_be_little_before_it_is_nothing() {
        assert_eq!(judge(100 << 30, 6 << 30, "/s"), None);
        let said = judge(100 << 30, 4 << 30, "/s").unwrap();
        assert!(said.contains("4GiB of 100GiB left") && said.contains("`kiln gc --dry-run`"), "{said}");
        assert!(judge(4000 << 30, 9 << 30, "/s").is_some());
        assert_eq!(judge(4000 << 30, 11 << 30, "/s"), None, "of a very large disk a little part is enough");
        assert!(judge(1 << 30, (512 << 20) - 1, "/s").is_some());
        assert_eq!(judge(1 << 30, 512 << 20, "/s"), None);
    }
}
