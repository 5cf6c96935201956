//! The planner against the checker, and both against hand-made worlds.

mod canary;
mod hooks;
mod world;

use kiln_model::*;
use world::{World, release, tidy_at, words};

#[test]
fn a_first_deploy_then_a_second_then_a_third() {
    let mut world = World::default();
    assert_eq!(words(&world.serve(&release("1"))), ["provision", "await healthy", "switch"]);
    let second = ["provision", "await healthy", "switch", "await drained", "keep warm"];
    assert_eq!(words(&world.serve(&release("2"))), second);
    let third = [&second[..], &["retire"]].concat();
    assert_eq!(words(&world.serve(&release("3"))), third);
    assert!(matches!(world.phases()[..], [(2, FleetPhase::Warm { .. }), (3, FleetPhase::Live)]));
    assert_eq!(world.state.previous, Some(release("2").id()));
    assert_eq!(world.state.kept.len(), 3);
}

#[test]
fn the_live_release_needs_nothing() {
    let mut world = World::default();
    let one = release("1");
    world.serve(&one);
    let again = world.plan(&Desired::Serve { release: &one, kind: OperationKind::Deploy });
    assert_eq!(again, Err(NothingToDo::AlreadyLive(one.id())));
}

#[test]
fn going_back_to_a_warm_fleet_provisions_nothing() {
    let mut world = World::default();
    world.serve(&release("1"));
    world.serve(&release("2"));
    let back = world.plan(&Desired::Serve { release: &release("1"), kind: OperationKind::Rollback }).unwrap();
    assert_eq!(words(&back), ["await healthy", "switch", "await drained", "keep warm"]);
    world.run(&back);
    assert_eq!(world.state.traffic, Traffic::Settled { live: release("1").id() });
    assert_eq!(world.state.previous, Some(release("2").id()));
}

#[test]
fn a_failed_deploy_is_thrown_away_and_the_old_release_still_serves() {
    let mut world = World::default();
    world.serve(&release("1"));
    let plan = world.plan(&Desired::Serve { release: &release("2"), kind: OperationKind::Deploy }).unwrap();
    world.begin(&plan);
    world.step(&plan, 0);
    world.end(&plan, Ending::Failed { step: "wait".into(), cause: "never healthy".into() });
    assert_eq!(world.state.traffic, Traffic::Settled { live: release("1").id() });
    assert_eq!(world.state.to_abandon, Some(plan.generation));

    let clean_up = world.plan(&Desired::Abandoned { failed: plan.generation, drain: Millis(1_000) }).unwrap();
    assert_eq!(words(&clean_up), ["retire"]);
    world.run(&clean_up);
    assert!(matches!(world.phases()[..], [(1, FleetPhase::Live)]));
    assert_eq!(world.state.to_abandon, None);
    assert_eq!(world.state.last_failure.as_deref(), Some("never healthy"));
    world.serve(&release("2"));
    assert_eq!(world.state.last_failure, None);
}

#[test]
fn warm_fleets_go_when_their_time_is_over_and_not_before() {
    let mut world = World::default();
    world.serve(&release("1"));
    world.serve(&release("2"));
    assert!(
        {
            let now = world.now;
            world.plan(&tidy_at(now))
        }
        .is_err()
    );
    let tidy = {
        let later = world.now + 600_000;
        world.plan(&tidy_at(later)).unwrap()
    };
    world.run(&tidy);
    assert!(matches!(world.phases()[..], [(_, FleetPhase::Live)]));
}

#[test]
fn after_down_the_same_release_can_serve_again_and_the_one_before_it_is_still_previous() {
    let mut world = World::default();
    world.serve(&release("1"));
    world.serve(&release("2"));
    let down = world.plan(&Desired::Absent { drain: Millis(1000) }).unwrap();
    assert_eq!(words(&down), ["unroute", "await drained", "retire"]);
    world.run(&down);
    assert_eq!(world.state.traffic, Traffic::Dark);
    assert!(world.state.fleets.is_empty());
    world.serve(&release("2"));
    assert_eq!(world.state.previous, Some(release("1").id()));
}

#[test]
fn replaced_members_get_new_serial_numbers() {
    let mut world = World::default();
    world.serve(&release("1"));
    let fleet = world.state.fleets.keys().next().unwrap().clone();
    let lost = vec![Loss { serial: 2, cause: "killed".into() }];
    let at = world.at();
    world.state.apply(&Record::Replaced { at, fleet: fleet.clone(), lost, new: vec![4] });
    let members: Vec<u32> = world.state.fleets[&fleet].members.iter().copied().collect();
    assert_eq!(members, [1, 3, 4]);
    assert_eq!(world.state.fleets[&fleet].last_serial, 4);
}

#[test]
fn only_a_fleet_healthy_as_a_whole_is_healthy() {
    let mut world = World::default();
    world.serve(&release("1"));
    let fleet = world.state.fleets.values().next().unwrap();
    let mut view = HealthView::default();
    view.0.extend(fleet.instances().take(2).map(|(_, id)| id));
    assert_eq!(Healthy::observe(fleet, &view).unwrap_err().ready, 2);
    view.0.extend(fleet.instances().map(|(_, id)| id));
    assert!(Healthy::observe(fleet, &view).is_ok());
}

/// Every way a plan can be bent that the checker must see.
#[test]
fn the_checker_finds_what_is_wrong_with_bent_plans() {
    let mut world = World::default();
    world.serve(&release("1"));
    let good = world.plan(&Desired::Serve { release: &release("2"), kind: OperationKind::Deploy }).unwrap();
    let bent = |bend: &dyn Fn(&mut Vec<Step>)| {
        let mut plan = good.clone();
        bend(&mut plan.steps);
        check(&plan, &world.state)
    };
    assert!(!bent(&|s| drop(s.remove(1))).is_empty(), "a switch without health");
    assert!(!bent(&|s| drop(s.remove(0))).is_empty(), "a fleet that was never provisioned");
    assert!(!bent(&|s| drop(s.remove(2))).is_empty(), "no switch at all");
    assert!(!bent(&|s| s.swap(2, 3)).is_empty(), "the live fleet drained before the switch");
    let live = world.state.fleets.keys().next().unwrap().clone();
    let retire = Step { action: Action::Retire { fleets: vec![live] }, why: String::new() };
    assert!(!bent(&|s| s.insert(0, retire.clone())).is_empty(), "the live fleet removed");
    assert!(!bent(&|s| s.insert(3, retire.clone())).is_empty(), "the old fleet removed before it is drained");
    assert!(!bent(&|s| s.clear()).is_empty(), "a plan that leads nowhere");
}

#[test]
fn the_table_routes_to_the_live_fleet_and_keeps_the_draining_one() {
    let mut world = World::default();
    let (one, two) = (release("1"), release("2"));
    world.serve(&one);
    let plan = world.plan(&Desired::Serve { release: &two, kind: OperationKind::Deploy }).unwrap();
    world.begin(&plan);
    for step in 0..3 {
        world.step(&plan, step);
    }
    let releases = [(one.id(), one), (two.id(), two)].into();
    let apps = [("hello".parse().unwrap(), world.state.clone())].into();
    let table = route_table(7, &apps, &releases, &HealthView::default(), |_| true);
    assert_eq!(table.version, 7);
    assert_eq!(table.fleets.len(), 2);
    let targets: Vec<u64> = table.routes[0].targets.iter().map(|t| t.fleet.generation.0).collect();
    assert_eq!(targets, [plan.generation.0]);
}

/// Its instances ask each other and their stores for as long as they run, and nobody else asks them any more.
#[test]
fn a_warm_fleet_whose_release_has_needs_is_parted_and_one_that_drains_is_not() {
    let mut world = World::default();
    let needing = |marker: &str| {
        let mut release = release(marker);
        let web = release.services.values_mut().next().unwrap();
        web.needs.insert("db".parse().unwrap(), Need::Store { address: "10.0.0.5:5432".parse().unwrap() });
        release
    };
    let (one, two) = (needing("1"), needing("2"));
    let releases = [(one.id(), one.clone()), (two.id(), two.clone())].into();
    let parted = |world: &World| -> Vec<(u64, bool)> {
        let apps = [("hello".parse().unwrap(), world.state.clone())].into();
        let table = route_table(7, &apps, &releases, &HealthView::default(), |_| true);
        table.fleets.iter().map(|f| (f.id.generation.0, f.parted)).collect()
    };
    world.serve(&one);
    let plan = world.plan(&Desired::Serve { release: &two, kind: OperationKind::Deploy }).unwrap();
    world.begin(&plan);
    (0..3).for_each(|step| world.step(&plan, step));
    assert_eq!(parted(&world), [(1, false), (2, false)], "it drains");
    (3..plan.steps.len()).for_each(|step| world.step(&plan, step));
    assert_eq!(parted(&world), [(1, true), (2, false)]);
}

#[test]
fn a_release_id_depends_on_every_part_and_on_nothing_else() {
    let base = release("1");
    assert_eq!(base.id(), release("1").id());
    let mut other = base.clone();
    other.services.values_mut().next().unwrap().env.insert("A".into(), "1".into());
    assert_ne!(other.id(), base.id());
    let mut other = base.clone();
    other.routes.values_mut().next().unwrap().path = "/x".into();
    assert_ne!(other.id(), base.id());
    assert_eq!(base.id().as_str().len(), 34);
}

#[test]
fn a_deploy_during_the_drain_of_another_leaves_one_warm_release() {
    let mut world = World::default();
    world.supersede_the_drain(&release("1"), &release("2"));
    assert!(matches!(world.phases()[..], [(1, FleetPhase::Draining), (2, FleetPhase::Live)]));

    world.serve(&release("3"));
    assert!(matches!(world.phases()[..], [(2, FleetPhase::Warm { .. }), (3, FleetPhase::Live)]));
}

#[test]
fn going_back_during_the_drain_uses_the_draining_fleet() {
    let mut world = World::default();
    world.supersede_the_drain(&release("1"), &release("2"));
    let back = world.plan(&Desired::Serve { release: &release("1"), kind: OperationKind::Rollback }).unwrap();
    assert_eq!(words(&back), ["await healthy", "switch", "await drained", "keep warm"]);
    world.run(&back);
    assert!(matches!(world.phases()[..], [(1, FleetPhase::Live), (2, FleetPhase::Warm { .. })]));
}

#[test]
fn services_come_up_in_the_order_of_what_they_need() {
    let mut release = release("one");
    let (web, api): (ServiceName, ServiceName) = ("web".parse().unwrap(), "api".parse().unwrap());
    release.services.insert(api, release.services[&web].clone());
    let need = Need::Service { port: 8080 };
    release.services.get_mut(&web).unwrap().needs.insert("api".parse().unwrap(), need);
    let mut world = World::default();
    let plan = world.plan(&Desired::Serve { release: &release, kind: OperationKind::Deploy }).unwrap();
    let steps: Vec<String> = plan.steps.iter().map(|s| format!("{}: {}", s.action, s.why)).collect();
    let begins = |at: usize, words: &str| assert!(steps[at].starts_with(words), "{steps:#?}");
    begins(0, "provision 3 × api");
    assert!(steps[0].ends_with("needed by web"), "{steps:#?}");
    begins(1, "wait until api is healthy");
    begins(2, "provision 3 × web");
    begins(3, "wait until api, web are healthy");
    begins(4, "switch all traffic");
    world.run(&plan);
    assert_eq!(world.state.traffic.live(), Some(&release.id()));
}

#[test]
fn a_release_that_does_not_know_the_schema_of_the_data_cannot_serve() {
    let with = |marker: &str, oldest, newest| Release {
        schema: Some(SchemaRange { oldest, newest }),
        ..release(marker)
    };
    let (one, two, any) = (with("one", 1, 2), with("two", 2, 3), release("any"));
    let mut world = World::default();
    assert_eq!(one.works_with(world.state.schema), Ok(()), "nothing is known of the data yet");
    world.serve(&one);
    assert_eq!(two.works_with(world.state.schema), Ok(()));
    world.serve(&two);
    // Who does not care leaves the data as it is.
    world.serve(&any);
    assert_eq!(world.state.schema, Some(3));
    let refused = one.works_with(world.state.schema).unwrap_err();
    assert!(refused.to_string().ends_with("works with data of schema 1 to 2, and the data is of schema 3"));
    assert!(refused.hint().contains("kiln rollback RELEASE --schema 2"), "{}", refused.hint());
    assert_eq!(one.works_with(Some(2)), Ok(()), "the data was brought back");
    assert!(with("new", 7, 8).works_with(Some(3)).unwrap_err().hint().contains("schema 7 or newer"));
}

#[test]
fn what_was_imported_and_never_served_is_not_what_served_before() {
    let mut world = World::default();
    let (one, two) = (release("1"), release("2"));
    world.serve(&one);
    let (at, app) = (Timestamp(7), one.app.clone());
    world.state.apply(&Record::Imported { at, by: "bob".into(), app, release: two.id() });
    let came = Occasion { at, by: "bob".into() };
    assert_eq!(world.state.kept[1], KeptRelease { release: two.id(), came: came.clone(), first: None });
    let down = world.plan(&Desired::Absent { drain: Millis(0) }).unwrap();
    world.run(&down);
    world.serve(&one);
    assert_eq!(world.state.previous, None, "nothing but this one ever served");
    world.serve(&two);
    let two = &world.state.kept[1];
    assert_eq!(two.came, came);
    assert_eq!(two.first.as_ref().map(|first| first.by.as_str()), Some("test"));
    assert_eq!(world.state.previous, Some(one.id()));
    assert_eq!(world.state.kept.len(), 2);
}
