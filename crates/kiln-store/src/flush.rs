//! Getting many files to disk at once.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;

use crate::Result;
use crate::error::on;

/// Flushes the files or directories at `paths` together: a journal commits for all that wait, where one after the other
/// each would wait for a commit of its own.
pub(crate) fn flush_together(paths: &BTreeSet<PathBuf>) -> Result<()> {
    let flush = |path: &PathBuf| File::open(path).and_then(|f| f.sync_all()).map_err(on("flush", path));
    if let [one] = paths.iter().collect::<Vec<_>>()[..] {
        return flush(one);
    }
    // More threads than cores: they wait, they do not work.
    std::thread::scope(|scope| {
        let threads: Vec<_> = paths.iter().map(|path| scope.spawn(move || flush(path))).collect();
        threads.into_iter().try_for_each(|t| match t.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}
