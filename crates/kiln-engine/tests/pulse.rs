//! Whether a keeper answers is known without waiting for it.

mod common;

use std::time::{Duration, Instant};

use common::{Bench, PATIENCE, signal};
use kiln_engine::embedded::{Beat, Pulse};
use rustix::process::Signal;

/// Feels until it is so.
fn until(pulse: &mut Pulse, what: &str, is_so: impl Fn(Beat) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let beat = pulse.feel();
        if is_so(beat) {
            return;
        }
        assert!(Instant::now() < deadline, "{what} is waited for, and it is {beat:?}");
    }
}

#[test]
fn a_keeper_that_stands_still_or_is_gone_is_told_from_one_that_answers() {
    let mut bench = Bench::new();
    let mut pulse = Pulse::in_dir(&bench.run_dir());
    let answers = |pulse: &mut Pulse| until(pulse, "an answer", |beat| beat == Beat::Answers);
    (0..3).for_each(|_| answers(&mut pulse));
    let keeper = bench.keeper_pid();
    signal(keeper, Signal::STOP);
    let long = Duration::from_millis(300);
    until(&mut pulse, "silence", |beat| matches!(beat, Beat::Silent(span) if span >= long));
    signal(keeper, Signal::CONT);
    answers(&mut pulse);
    // Another one is nothing to be told of.
    bench.kill_keeper();
    answers(&mut pulse);
    bench.next_keeper(keeper);
    answers(&mut pulse);
    bench.kill_keeper_and_holder();
    until(&mut pulse, "nobody", |beat| beat == Beat::Gone);
    bench.restart();
    answers(&mut pulse);
}
