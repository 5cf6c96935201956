//! Many small things done by several threads.

use std::sync::LazyLock;
use std::thread::available_parallelism;

/// More only stand in each other's way.
const MOST_THREADS: usize = 4;

/// How many threads do something together.
pub(crate) fn threads() -> usize {
    // The answer is looked for in files of the system.
    static THREADS: LazyLock<usize> =
        LazyLock::new(|| available_parallelism().map_or(1, usize::from).min(MOST_THREADS));
    *THREADS
}

/// `one` of all with their numbers, several at a time where there are more than `few`, for which a thread is not worth its
/// start. The caller's thread does its part.
pub(crate) fn each<T: Sync, R: Send, E: Send>(
    all: &[T],
    few: usize,
    one: impl Fn(usize, &T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let work = |first: usize, part: &[T]| -> Result<Vec<R>, E> {
        part.iter().enumerate().map(|(n, item)| one(first + n, item)).collect()
    };
    if all.len() <= few {
        return work(0, all);
    }
    let size = all.len().div_ceil(threads()).max(few);
    let (own, others) = all.split_at(size.min(all.len()));
    let work = &work;
    std::thread::scope(|scope| {
        let parts = others.chunks(size).enumerate();
        let threads: Vec<_> =
            parts.map(|(n, part)| scope.spawn(move || work((n + 1) * size, part))).collect();
        let mut found = work(0, own)?;
        for thread in threads {
            match thread.join() {
                Ok(part) => found.extend(part?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(found)
    })
}
