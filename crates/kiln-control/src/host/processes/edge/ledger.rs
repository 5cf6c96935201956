//! What all processes of the edge have counted, those among them that are gone: figures that people compare do not fall
//! when one of them ends.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::{EdgeCounts, FleetCount, FleetId};

/// What each process has said last of the fleets of the table in force.
#[derive(Debug, Default)]
pub(super) struct Ledger(BTreeMap<u32, BTreeMap<FleetId, FleetCount>>);

impl Ledger {
    /// The sums of what the `living` say now, of which the first knows which fleets there are, and of what the others said
    /// last. None of nobody.
    pub(super) fn sum(&mut self, living: Vec<EdgeCounts>) -> Option<EdgeCounts> {
        let alive: BTreeSet<u32> = living.iter().map(|counts| counts.process).collect();
        for counts in &living {
            let last = counts.fleets.iter().map(|fleet| (fleet.fleet.clone(), fleet.clone()));
            self.0.insert(counts.process, last.collect());
        }
        let mut living = living.into_iter();
        let mut sum = living.next()?;
        for theirs in living {
            add(&mut sum.fleets, theirs.fleets);
            add(&mut sum.gone, theirs.gone);
        }
        let there: BTreeSet<FleetId> = sum.fleets.iter().map(|count| count.fleet.clone()).collect();
        for (_, last) in self.0.iter_mut().filter(|(process, _)| !alive.contains(process)) {
            // What was in flight in them has ended with them.
            last.values_mut().for_each(|count| count.in_flight = 0);
            add(&mut sum.fleets, last.values().cloned().collect());
            // What leaves with this table is told once, now.
            add(&mut sum.gone, last.values().cloned().collect());
            last.retain(|fleet, _| there.contains(fleet));
        }
        self.0.retain(|process, last| alive.contains(process) || !last.is_empty());
        Some(sum)
    }
}

/// Adds what another process counts of the same fleets.
fn add(into: &mut [FleetCount], theirs: Vec<FleetCount>) {
    for count in theirs {
        if let Some(ours) = into.iter_mut().find(|ours| ours.fleet == count.fleet) {
            ours.in_flight += count.in_flight;
            ours.served += count.served;
            ours.failed += count.failed;
            ours.cut += count.cut;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(generation: u64, served: u64, in_flight: u64) -> FleetCount {
        let (app, service) = ("hello".parse().unwrap(), "web".parse().unwrap());
        let fleet = FleetId { app, service, generation: kiln_model::Generation(generation) };
        FleetCount { fleet, in_flight, served, failed: 1, cut: 0 }
    }

    fn said(process: u32, fleets: Vec<FleetCount>, gone: Vec<FleetCount>) -> EdgeCounts {
        EdgeCounts { version: 1, process, fleets, gone }
    }

    fn figures(counts: &[FleetCount]) -> Vec<(u64, u64, u64)> {
        counts.iter().map(|count| (count.served, count.failed, count.in_flight)).collect()
    }

    #[test]
    fn what_a_process_has_counted_stays_when_it_has_ended() {
        let mut ledger = Ledger::default();
        let sum = |ledger: &mut Ledger, living| figures(&ledger.sum(living).unwrap().fleets);
        assert_eq!(ledger.sum(vec![]), None);
        assert_eq!(sum(&mut ledger, vec![said(1, vec![count(1, 10, 3)], vec![])]), [(10, 1, 3)]);
        // Its successor, beside it and without it, however often it is asked.
        let next = || said(2, vec![count(1, 5, 1)], vec![]);
        assert_eq!(sum(&mut ledger, vec![next(), said(1, vec![count(1, 12, 2)], vec![])]), [(17, 2, 3)]);
        for _ in 0..2 {
            assert_eq!(sum(&mut ledger, vec![next()]), [(17, 2, 1)]);
        }
    }

    #[test]
    fn what_leaves_with_a_table_is_told_once() {
        let mut ledger = Ledger::default();
        ledger.sum(vec![said(1, vec![count(1, 10, 0), count(2, 7, 0)], vec![])]);
        let told = ledger.sum(vec![said(2, vec![count(2, 1, 0)], vec![count(1, 5, 0)])]).unwrap();
        assert_eq!((figures(&told.fleets), figures(&told.gone)), (vec![(8, 2, 0)], vec![(15, 2, 0)]));
        let again = ledger.sum(vec![said(2, vec![count(2, 1, 0), count(1, 0, 0)], vec![])]).unwrap();
        assert_eq!(figures(&again.fleets), [(8, 2, 0), (0, 1, 0)]);
    }
}
