//! Somebody sets the clock of the host: nothing is early for it, and nothing is late.

mod common;

use std::time::{Duration, Instant};

use common::Bench;
use kiln_engine::Engine;
use kiln_model::{Exit, InstanceId, Millis, Timestamp};
use kiln_testkit::fixture_image::FixtureImage;
use kiln_testkit::shifted_clock::ShiftedClock;

const DAY: i64 = 24 * 3600;
const GRACE: Duration = Duration::from_millis(1200);

fn since(bench: &Bench, id: &InstanceId) -> Timestamp {
    bench.engine.list().unwrap().into_iter().find(|s| s.id == *id).unwrap().since
}

#[test]
fn a_clock_that_jumps_neither_shortens_nor_lengthens_a_grace_period() {
    let clock = ShiftedClock::new();
    let bench = Bench::prepared(FixtureImage::new(), |command| clock.shift_for(command));
    for (n, [before, jump]) in [[0, 30 * DAY], [30 * DAY, -30 * DAY]].into_iter().enumerate() {
        let script = "trap '' TERM; echo ready; while true; do sleep 0.1; done";
        let mut order = bench.image.shell(&format!("a-{n}"), script);
        order.run.stop_grace = Millis(u64::try_from(GRACE.as_millis()).unwrap());
        bench.run(&order);
        bench.wait_for_output(&order.id, "ready");
        let started = since(&bench, &order.id);
        let begun = Instant::now();
        bench.engine.stop(std::slice::from_ref(&order.id)).unwrap();
        clock.jump(jump);
        assert_eq!(bench.ending(&order.id), Exit::Signal { signal: 9 });
        let took = begun.elapsed();
        assert!(took >= GRACE && took < GRACE * 20, "it was given {took:?}");
        // It did jump, as this keeper sees it.
        let ended = since(&bench, &order.id);
        let seen = ended.0.abs_diff(started.0) / 1000;
        assert!(seen.abs_diff(jump.abs_diff(before)) < 3600, "{seen} s");
    }
}
