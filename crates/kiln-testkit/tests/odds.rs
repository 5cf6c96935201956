//! What `kiln odds` calculates is what control does: fleets brought up by the real core, of instances with bad luck.

use kiln_control::{Precedence, Request};
use kiln_model::odds::{Chance, loss_budget};
use kiln_model::{Millis, OperationKind, Release};
use kiln_testkit::sim::{Sim, release};

const DEPLOYS: u32 = 3_000;

fn deploy(release: Box<Release>) -> Request {
    Request::Serve { release, kind: OperationKind::Deploy, schema: None, precedence: Precedence::Yields }
}

/// Whether a first deploy of so many instances comes out whole.
fn comes_out_whole(seed: u64, servers: u32, fails_of_million: u64) -> bool {
    let mut sim = Sim::default();
    sim.engine.have_bad_luck(seed, fails_of_million);
    let release = Box::new(release("one", servers));
    let id = release.id();
    sim.request(deploy(release));
    // Longer than all pauses between attempts and the time a fleet has to become healthy.
    sim.wait(Millis(60_000));
    let state = &sim.core().apps()[&Sim::app()];
    assert!(state.under_way.is_none(), "seed {seed}: it has ended");
    let live = state.traffic.live() == Some(&id);
    assert_eq!(live, !state.fleets.is_empty(), "seed {seed}: a fleet that is not whole leaves nothing");
    live
}

#[test]
fn fleets_come_out_whole_as_often_as_calculated() {
    for (servers, percent) in [(1, 50), (4, 40), (10, 35), (20, 30), (7, 1)] {
        let whole = (0..DEPLOYS).filter(|n| {
            comes_out_whole(u64::from(*n) * 7919 + servers, u32::try_from(servers).unwrap(), percent * 10_000)
        });
        let observed = whole.count() as f64 / f64::from(DEPLOYS);
        let p: Chance = format!("{}%", 100 - percent).parse().unwrap();
        let expected = p.replaced(servers, loss_budget(servers) - 1, 12).about();
        // Four standard deviations: the seeds are fixed, so this is decided once and for all.
        let slack = 4.0 * (expected * (1.0 - expected) / f64::from(DEPLOYS)).sqrt() + 1e-3;
        println!("{servers} at {percent} %: {observed} of {DEPLOYS}, calculated {expected}");
        assert!(
            (observed - expected).abs() <= slack,
            "{servers} servers of which {percent} % fail: {observed} came out whole, {expected} was calculated"
        );
    }
}

/// Many lose more of their number than few do; that is no reason to wait longer.
#[test]
fn a_large_fleet_is_not_held_back_by_its_size() {
    let mut sim = Sim::default();
    sim.engine.have_bad_luck(1, 50_000);
    let release = Box::new(release("one", 1000));
    let id = release.id();
    sim.request(deploy(release));
    sim.wait(Millis(3_000));
    let state = &sim.core().apps()[&Sim::app()];
    assert_eq!(state.traffic.live(), Some(&id), "fifty of a thousand failed, and their successors did not");
    let fleet = state.fleets.values().next().unwrap();
    assert!(fleet.losses > 30, "{}", fleet.losses);
}
