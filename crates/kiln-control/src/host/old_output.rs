//! The output of instances that are no more: each service keeps the newest of it, up to a bound. One that dies every few
//! seconds, and says much about it, would fill the disk.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kiln_model::InstanceId;
use kiln_store::{Store, StoredOutput};

use super::driver::Driver;
use super::processes::complain;
use crate::sync::lock;

/// What a service keeps, in bytes.
const MOST: u64 = 256 << 20;
const ROUND: Duration = Duration::from_secs(10);

/// Lets go of what is too much, until the threads are told to end.
pub(super) fn run(store: &Store, driver: &Driver) {
    while !driver.is_stopped() {
        // The core, and not the engine: that may be slow to answer, and whoever ends the threads would wait for it.
        let there = lock(&driver.core).known();
        // What cannot be done now is done in the next round.
        for (service, gone) in let_go(store, &there, MOST).unwrap_or_default() {
            let words = format!(
                "the output of {gone} instances of {service} that are no more was let go: a service keeps the newest {} MiB",
                MOST >> 20
            );
            complain(&store.run_dir().join("keeper.log"), &words);
        }
        driver.pause_for(ROUND);
    }
}

/// Removes the oldest that is more than `most` of a service, of instances that are not `there`; of how many.
fn let_go(
    store: &Store,
    there: &BTreeSet<InstanceId>,
    most: u64,
) -> kiln_store::Result<BTreeMap<String, usize>> {
    let mut of_services: BTreeMap<String, Vec<StoredOutput>> = BTreeMap::new();
    for id in store.outputs()?.iter().filter(|id| !there.contains(id)) {
        of_services.entry(service_of(id).to_owned()).or_default().extend(store.stored_output(id)?);
    }
    let mut gone = BTreeMap::new();
    for (service, outputs) in of_services {
        for output in too_much(outputs, most) {
            store.remove_output(&output.instance)?;
            *gone.entry(service.clone()).or_default() += 1;
        }
    }
    Ok(gone)
}

/// Those that do not fit any more, where the newest come first.
fn too_much(mut outputs: Vec<StoredOutput>, most: u64) -> Vec<StoredOutput> {
    outputs.sort_by_key(|output| Reverse(output.written));
    let mut bytes = 0;
    outputs.retain(|output| {
        bytes += output.bytes;
        bytes > most
    });
    outputs
}

/// App and service, of `<app>-<service>-<generation>-<serial>`.
fn service_of(id: &InstanceId) -> &str {
    id.as_str().rsplitn(3, '-').nth(2).unwrap_or(id.as_str())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_service_keeps_the_newest_of_its_dead() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let begun = SystemTime::now();
        let wrote = |id: &str, bytes: u64, seconds: u64| {
            for (part, bytes) in [(".log", bytes / 2), (".log.1", bytes - bytes / 2)] {
                let file = File::create(store.output_dir().join(format!("{id}{part}"))).unwrap();
                file.set_len(bytes).unwrap();
                file.set_modified(begun + Duration::from_secs(seconds)).unwrap();
            }
        };
        wrote("a-web-1-1", 60, 1);
        wrote("a-web-1-2", 60, 2);
        wrote("a-web-2-before1", 30, 3);
        wrote("a-web-2-1", 1000, 0);
        wrote("a-api-1-1", 100, 0);
        let there = ["a-web-2-1".parse().unwrap()].into();
        let left = || store.outputs().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(let_go(&store, &there, 150).unwrap(), BTreeMap::new());
        assert_eq!(let_go(&store, &there, 100).unwrap(), [("a-web".to_owned(), 1)].into());
        assert_eq!(left(), ["a-api-1-1", "a-web-1-2", "a-web-2-1", "a-web-2-before1"]);
        assert_eq!(std::fs::read_dir(store.output_dir()).unwrap().count(), 8, "nothing is left of it");
    }
}
