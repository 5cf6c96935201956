//! Storms: the core in a simulated world in which everything goes wrong, by seeds.
//!
//! `KILN_STORM=SEED` lives through one storm and tells all of it; `KILN_STORM_SEEDS=N` sets how many are tried.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_testkit::storm::{Breach, Figures, Sabotage, weather};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().unwrap_or_else(|_| panic!("{name} is not a number: {n}")))
}

/// Two thousand, or a hundred thousand in the long form.
fn seeds() -> u64 {
    let long = std::env::var_os("KILN_LONG").is_some();
    number("KILN_STORM_SEEDS").unwrap_or(if long { 100_000 } else { 2_000 })
}

fn tell(breach: &Breach) -> String {
    format!(
        "seed {}: {}\n\nto see it again, with all that led to it:\n    KILN_STORM={} cargo test -p kiln-testkit --test storm the_promises_hold_in_every_storm -- --nocapture\n",
        breach.seed, breach.what, breach.seed
    )
}

/// Every seed, on all CPUs; the breach with the lowest seed.
fn live_through(seeds: u64) -> Result<Vec<Figures>, Breach> {
    let next = AtomicU64::new(0);
    let results: Mutex<(Vec<Figures>, Option<Breach>)> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || results.lock().unwrap().1.is_some() {
                        return;
                    }
                    let result = weather(seed, None, false);
                    let mut results = results.lock().unwrap();
                    match result {
                        Ok(figures) => results.0.push(figures),
                        Err(breach) if results.1.as_ref().is_none_or(|b| breach.seed < b.seed) => {
                            results.1 = Some(breach);
                        }
                        Err(_) => {}
                    }
                }
            });
        }
    });
    match results.into_inner().unwrap() {
        (_, Some(breach)) => Err(breach),
        (figures, None) => Ok(figures),
    }
}

#[test]
fn the_promises_hold_in_every_storm() {
    if let Some(seed) = number("KILN_STORM") {
        match weather(seed, None, true) {
            Ok(figures) => println!("seed {seed}: all promises were kept: {figures:?}"),
            Err(breach) => panic!("{}\n\n{}", breach.trace.join("\n"), tell(&breach)),
        }
        return;
    }
    let figures = live_through(seeds()).unwrap_or_else(|breach| panic!("{}", tell(&breach)));
    let sum = |of: fn(&Figures) -> u64| figures.iter().map(of).sum::<u64>();
    let (switches, failures, crashes) = (sum(|f| f.switches), sum(|f| f.failures), sum(|f| f.crashes));
    let (hooks, superseded) = (sum(|f| f.hooks), sum(|f| f.superseded));
    let (shifts, stand_ins, lacks) = (sum(|f| f.shifts), sum(|f| f.stand_ins), sum(|f| f.lacks));
    println!(
        "{} storms: {switches} switches, {shifts} shifts, {failures} failures, {crashes} deaths",
        figures.len()
    );
    println!(
        "{hooks} hooks went well, {superseded} plans were superseded, {stand_ins} stand-ins were made, {lacks} tables were refused"
    );
    // Storms in which nothing happens prove nothing.
    let storms = figures.len() as u64;
    assert!(
        switches > storms && failures > storms / 2 && crashes > storms && shifts > storms / 4,
        "{switches} {failures} {crashes} {shifts}"
    );
    assert!(hooks > storms / 4 && superseded > storms / 4, "{hooks} {superseded}");
    assert!(stand_ins > storms / 4 && lacks > storms / 20, "{stand_ins} {lacks}");
}

/// A world that lies is found out: the judge is not blind.
#[test]
fn every_sabotage_is_noticed() {
    for sabotage in Sabotage::ALL {
        let found = (0..400).find_map(|seed| weather(seed, Some(sabotage), false).err());
        let found = found.unwrap_or_else(|| panic!("nobody noticed {sabotage:?} in 400 storms"));
        println!("{sabotage:?}: seed {}: {}", found.seed, found.what);
    }
}

/// The same seed is the same storm.
#[test]
fn a_storm_can_be_repeated() {
    let lived = |seed| format!("{:?}", weather(seed, None, false).map_err(|b| b.what));
    (0..20).for_each(|seed| assert_eq!(lived(seed), lived(seed), "seed {seed}"));
}
