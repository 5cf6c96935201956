//! Plans that shift users step by step.

use std::collections::BTreeMap;

use kiln_model::*;

use crate::world::{World, release, words};

fn canary(name: &str, shares: &[u32]) -> Release {
    let terms =
        Terms { hold: Millis(1_000), within: Millis(10_000), errors: Share(100), slower: Share(5_000) };
    let shares = shares.iter().map(|share| Share(*share)).collect();
    Release { canary: Some(Canary { shares, terms, preview: true }), ..release(name) }
}

#[test]
fn a_canary_is_shifted_and_observed_step_by_step() {
    let mut world = World::default();
    // The first release has nobody to be held against.
    assert_eq!(words(&world.serve(&canary("1", &[500]))), ["provision", "await healthy", "switch"]);
    let plan = world.serve(&canary("2", &[0, 500, 2500]));
    let steps =
        ["provision", "await healthy", "shift", "observe", "shift", "observe", "shift", "observe", "switch"];
    assert_eq!(words(&plan)[..9], steps);
    assert!(matches!(world.phases()[..], [(1, FleetPhase::Warm { .. }), (2, FleetPhase::Live)]));
    // What goes back goes back at once.
    let back = canary("1", &[500]);
    let plan = world.plan(&Desired::Serve { release: &back, kind: OperationKind::Rollback }).unwrap();
    assert_eq!(words(&plan)[..2], ["await healthy", "switch"]);
}

#[test]
fn a_canary_that_fails_is_drained_before_it_goes_and_the_old_release_serves_all() {
    let mut world = World::default();
    let (one, two) = (canary("1", &[500]), canary("2", &[500]));
    world.serve(&one);
    let plan = world.plan(&Desired::Serve { release: &two, kind: OperationKind::Deploy }).unwrap();
    world.begin(&plan);
    (0..3).for_each(|step| world.step(&plan, step));
    let (from, to) = (one.id(), two.id());
    assert_eq!(world.state.traffic, Traffic::Shifting { from: from.clone(), to, share: Share(500) });
    assert_eq!(world.state.traffic.live(), Some(&from));
    let releases = BTreeMap::from([(one.id(), one), (two.id(), two)]);
    let apps = BTreeMap::from([("hello".parse().unwrap(), world.state.clone())]);
    let table = route_table(1, &apps, &releases, &HealthView::default(), |_| true);
    let routes: Vec<_> = table.routes.iter().map(|r| (r.audience, r.targets[0].fleet.generation.0)).collect();
    assert_eq!(routes, [(Audience::NotAt(0), 1), (Audience::At(0), 2)]);
    assert_eq!((table.canaries[0].share, table.canaries[0].preview), (Share(500), true));

    let cause = "it fails more".to_owned();
    world.end(&plan, Ending::Failed { step: "observe".into(), cause });
    assert_eq!(world.state.traffic, Traffic::Settled { live: from });
    assert!(matches!(world.phases()[..], [(1, FleetPhase::Live), (2, FleetPhase::Draining)]));
    let failed = plan.generation;
    let clean = world.plan(&Desired::Abandoned { failed, drain: Millis(1000) }).unwrap();
    assert_eq!(words(&clean), ["await drained", "retire"]);
    world.run(&clean);
    assert!(matches!(world.phases()[..], [(1, FleetPhase::Live)]));
}

#[test]
fn the_checker_knows_what_must_not_be_done_with_a_canary() {
    let mut world = World::default();
    world.serve(&release("1"));
    let good = world
        .plan(&Desired::Serve { release: &canary("2", &[500, 2500]), kind: OperationKind::Deploy })
        .unwrap();
    let finds = |change: &dyn Fn(&mut Vec<Step>)| {
        let mut plan = good.clone();
        change(&mut plan.steps);
        check(&plan, &world.state).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    let at = |word: &str| words(&good).iter().position(|w| *w == word).unwrap();
    let (healthy, shift, observe, switch) = (at("await healthy"), at("shift"), at("observe"), at("switch"));
    assert_eq!(finds(&|_| {}), "");
    assert!(finds(&|s| drop(s.remove(healthy))).contains("would be given users while it is Up"));
    assert!(finds(&|s| drop(s.remove(shift))).contains("5% would be observed while the canary has 0%"));
    assert!(
        finds(&|s| s.swap(shift, shift + 2)).contains("users would be taken from the canary: 5% after 25%")
    );
    assert!(finds(&|s| drop(s.drain(switch..))).contains("a canary would never end"));
    let retire = |s: &mut Vec<Step>| {
        let Action::Shift { fleets, .. } = s[shift].action.clone() else { unreachable!() };
        s[observe].action = Action::Retire { fleets };
    };
    assert!(finds(&retire).contains("would be removed while it is Canary"));
    let whole = |s: &mut Vec<Step>| {
        let Action::Shift { share, .. } = &mut s[shift].action else { unreachable!() };
        *share = Share(10_000);
    };
    assert!(finds(&whole).contains("100% of the users are no canary"));
    let nothing = World::default();
    assert!(check(&good, &nothing.state).iter().any(|f| f.to_string().contains("shifted away from nothing")));
}

#[test]
fn what_takes_the_place_of_a_canary_finds_its_users_back() {
    let mut world = World::default();
    let (one, two, three) = (canary("1", &[500]), canary("2", &[500]), release("3"));
    world.serve(&one);
    let plan = world.plan(&Desired::Serve { release: &two, kind: OperationKind::Deploy }).unwrap();
    world.begin(&plan);
    (0..3).for_each(|step| world.step(&plan, step));
    // As the core plans it: the new plan is made before the old one's end is written down.
    world.state = world.state.when_superseded();
    assert_eq!(world.state.traffic, Traffic::Settled { live: one.id() });
    let next = world.plan(&Desired::Serve { release: &three, kind: OperationKind::Deploy }).unwrap();
    assert_eq!(
        words(&next),
        ["provision", "await healthy", "switch", "await drained", "keep warm", "retire"]
    );
    world.run(&next);
    assert!(matches!(world.phases()[..], [(1, FleetPhase::Warm { .. }), (3, FleetPhase::Live)]));
}
