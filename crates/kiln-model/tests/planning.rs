//! The planner against the checker, and both against hand-made worlds.

use std::collections::BTreeMap;

use kiln_model::*;

fn release(marker: &str) -> Release {
    let run = RunSettings {
        argv: vec!["/bin/app".into()],
        user: "root".into(),
        uid: 0,
        gid: 0,
        groups: vec![],
        env: BTreeMap::new(),
        workdir: "/".into(),
        stop_signal: 15,
        stop_grace: Millis(1000),
    };
    let service = ReleaseService {
        image: ImageDigest(Sha256::of(marker.as_bytes())),
        run,
        env: BTreeMap::new(),
        volatile: vec![],
        port: 8080,
        protocol: Protocol::Http1,
        instances: 3,
        limits: Limits { memory: ByteSize(1 << 26), cpu_millis: 500, pids: 64 },
        probe: Probe::Tcp,
        probe_interval: Millis(100),
        probe_timeout: Millis(1000),
        healthy_after: 2,
        unhealthy_after: 3,
        start_timeout: Millis(30_000),
        needs: BTreeMap::new(),
        secrets: BTreeMap::new(),
        checks: Default::default(),
        hooks: Default::default(),
    };
    Release {
        format: Release::FORMAT,
        app: "hello".parse().unwrap(),
        services: [("web".parse().unwrap(), service)].into(),
        routes: [(
            "web".parse().unwrap(),
            ReleaseRoute {
                host: None,
                path: "/".into(),
                service: "web".parse().unwrap(),
                https: HttpsRule::Optional,
            },
        )]
        .into(),
        tcp: BTreeMap::new(),
        certificates: vec![],
        drain: Millis(30_000),
        keep_warm: Millis(600_000),
        schema: None,
        policy: Default::default(),
    }
}

/// A host with one app whose every step succeeds at once.
#[derive(Default)]
struct World {
    state: AppState,
    generation: Generation,
    now: u64,
}

impl World {
    fn at(&mut self) -> Timestamp {
        self.now += 1;
        Timestamp(self.now)
    }

    fn plan(&mut self, desired: &Desired<'_>) -> Result<Plan, NothingToDo> {
        self.generation = self.generation.next();
        let plan = plan(&"hello".parse().unwrap(), &self.state, desired, self.generation)?;
        assert_eq!(check(&plan, &self.state), [], "{plan:#?}");
        Ok(plan)
    }

    fn begin(&mut self, plan: &Plan) {
        let at = self.at();
        self.state.apply(&Record::Begun { at, by: "test".into(), plan: plan.clone() });
    }

    fn step(&mut self, plan: &Plan, step: usize) {
        let (app, generation) = (plan.app.clone(), plan.generation);
        let at = self.at();
        self.state.apply(&Record::Intent { at, app: app.clone(), generation, step, memory: None });
        self.state.apply(&Record::Outcome { at, app, generation, step, note: None });
    }

    fn end(&mut self, plan: &Plan, ending: Ending) {
        let at = self.at();
        let (app, generation) = (plan.app.clone(), plan.generation);
        self.state.apply(&Record::Ended { at, app, generation, ending });
    }

    fn run(&mut self, plan: &Plan) {
        self.begin(plan);
        for step in 0..plan.steps.len() {
            self.step(plan, step);
        }
        self.end(plan, Ending::Done);
    }

    fn serve(&mut self, release: &Release) -> Plan {
        let plan = self.plan(&Desired::Serve { release, kind: OperationKind::Deploy }).unwrap();
        self.run(&plan);
        plan
    }

    fn phases(&self) -> Vec<(u64, &FleetPhase)> {
        self.state.fleets.values().map(|f| (f.id.generation.0, &f.phase)).collect()
    }
}

fn tidy_at(at: u64) -> Desired<'static> {
    Desired::Tidy { at: Timestamp(at), drain: Millis(1000), keep_warm: Millis(1000) }
}

fn words(plan: &Plan) -> Vec<&'static str> {
    let word = |s: &Step| match s.action {
        Action::Provision { .. } => "provision",
        Action::RunHook { .. } => "run hook",
        Action::AwaitHealthy { .. } => "await healthy",
        Action::Switch { .. } => "switch",
        Action::AwaitDrained { .. } => "await drained",
        Action::KeepWarm { .. } => "keep warm",
        Action::Unroute => "unroute",
        Action::Retire { .. } => "retire",
    };
    plan.steps.iter().map(word).collect()
}

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
    assert_eq!(world.state.served.len(), 3);
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
    world.serve(&release("1"));
    let second = world.plan(&Desired::Serve { release: &release("2"), kind: OperationKind::Deploy }).unwrap();
    world.begin(&second);
    for step in 0..3 {
        world.step(&second, step);
    }
    let by = second.generation.next();
    world.end(&second, Ending::Superseded { by });
    assert!(matches!(world.phases()[..], [(1, FleetPhase::Draining), (2, FleetPhase::Live)]));

    world.serve(&release("3"));
    assert!(matches!(world.phases()[..], [(2, FleetPhase::Warm { .. }), (3, FleetPhase::Live)]));
}

#[test]
fn going_back_during_the_drain_uses_the_draining_fleet() {
    let mut world = World::default();
    world.serve(&release("1"));
    let second = world.plan(&Desired::Serve { release: &release("2"), kind: OperationKind::Deploy }).unwrap();
    world.begin(&second);
    for step in 0..3 {
        world.step(&second, step);
    }
    let by = second.generation.next();
    world.end(&second, Ending::Superseded { by });
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
    begins(3, "wait until api, web is healthy");
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
    assert!(refused.hint().contains("--schema 2"), "{}", refused.hint());
    assert_eq!(one.works_with(Some(2)), Ok(()), "the data was brought back");
    assert!(with("new", 7, 8).works_with(Some(3)).unwrap_err().hint().contains("schema 7 or newer"));
}

fn hook(program: &str) -> Hook {
    Hook { run: vec![program.into()], timeout: Millis(60_000) }
}

/// Two services, `web` needs `api`, each with a hook before and one after.
fn hooked(marker: &str) -> Release {
    let mut release = release(marker);
    let (web, api): (ServiceName, ServiceName) = ("web".parse().unwrap(), "api".parse().unwrap());
    release.services.insert(api, release.services[&web].clone());
    let need = Need::Service { port: 8080 };
    release.services.get_mut(&web).unwrap().needs.insert("api".parse().unwrap(), need);
    for (name, service) in &mut release.services {
        service.hooks.before.push(hook(&format!("/bin/migrate-{name}")));
        service.hooks.after.push(hook(&format!("/bin/warm-{name}")));
    }
    release
}

#[test]
fn hooks_run_where_their_services_come_up_and_after_the_switch_and_never_on_the_way_back() {
    let mut world = World::default();
    world.serve(&release("1"));
    let two = hooked("2");
    let plan = world.plan(&Desired::Serve { release: &two, kind: OperationKind::Deploy }).unwrap();
    let steps: Vec<String> = plan.steps.iter().map(|s| s.action.to_string()).collect();
    let begins = |at: usize, words: &str| assert!(steps[at].starts_with(words), "{at}: {steps:#?}");
    begins(0, "run `/bin/migrate-api` of api before the switch");
    begins(1, "provision 3 × api");
    begins(2, "wait until api is healthy");
    begins(3, "run `/bin/migrate-web` of web before the switch");
    begins(4, "provision 3 × web");
    begins(6, "switch all traffic");
    begins(7, "run `/bin/warm-api` of api after the switch");
    begins(8, "run `/bin/warm-web` of web after the switch");
    begins(9, "drain");
    // Members are made when their turn comes, not before.
    world.begin(&plan);
    let planned = |state: &AppState| state.fleets.values().filter(|f| f.phase == FleetPhase::Planned).count();
    assert_eq!(planned(&world.state), 2);
    (0..2).for_each(|step| world.step(&plan, step));
    assert_eq!(planned(&world.state), 1);
    (2..plan.steps.len()).for_each(|step| world.step(&plan, step));
    world.end(&plan, Ending::Done);
    assert_eq!(world.state.traffic.live(), Some(&two.id()));
    world.serve(&release("3"));
    let back = world.plan(&Desired::Serve { release: &two, kind: OperationKind::Rollback }).unwrap();
    assert!(!words(&back).contains(&"run hook"), "{:?}", words(&back));
}

#[test]
fn what_a_migration_may_have_done_counts_even_if_the_deploy_fails_later() {
    let with = |marker: &str, oldest, newest| Release {
        schema: Some(SchemaRange { oldest, newest }),
        ..hooked(marker)
    };
    let mut world = World::default();
    world.serve(&with("1", 1, 1));
    assert_eq!(world.state.schema, Some(1));
    let two = with("2", 1, 2);
    let plan = world.plan(&Desired::Serve { release: &two, kind: OperationKind::Deploy }).unwrap();
    world.begin(&plan);
    world.step(&plan, 0);
    world.end(&plan, Ending::Failed { step: "wait".into(), cause: "never healthy".into() });
    assert_eq!(world.state.schema, Some(2));
}

#[test]
fn the_checker_finds_hooks_out_of_place() {
    let mut world = World::default();
    world.serve(&release("1"));
    let two = hooked("2");
    let good = world.plan(&Desired::Serve { release: &two, kind: OperationKind::Deploy }).unwrap();
    let bent = |bend: &dyn Fn(&mut Plan)| {
        let mut plan = good.clone();
        bend(&mut plan);
        let found: Vec<String> = check(&plan, &world.state).iter().map(ToString::to_string).collect();
        found.join("; ")
    };
    assert_eq!(bent(&|_| ()), "");
    assert!(bent(&|p| p.steps.swap(0, 1)).contains("would come up before hello-api-2-before1 has run"));
    assert!(bent(&|p| p.steps.swap(6, 7)).contains("hello-api-2-after1 would come too early"));
    assert!(
        bent(&|p| p.steps.insert(9, p.steps[3].clone())).contains("hello-web-2-before1 would come too late")
    );
    assert!(
        bent(&|p| p.steps.insert(8, p.steps[7].clone())).contains("hello-api-2-after1 would be run twice")
    );
    assert!(bent(&|p| p.kind = OperationKind::Rollback).contains("is no hook of this plan"));
    let of_another = |p: &mut Plan| {
        if let Action::RunHook { hook, .. } = &mut p.steps[0].action {
            hook.generation = Generation(1);
        }
    };
    assert!(bent(&of_another).contains("hello-api-1-before1 is no hook of this plan"));
    let empty = |p: &mut Plan| {
        if let Action::RunHook { run, .. } = &mut p.steps[0].action {
            run.clear();
        }
    };
    assert!(bent(&empty).contains("would run nothing"));
}

#[test]
fn what_a_superseded_plan_has_left_goes_first_and_by_itself_if_nothing_follows() {
    let mut world = World::default();
    world.serve(&release("1"));
    let older = world.plan(&Desired::Serve { release: &release("2"), kind: OperationKind::Deploy }).unwrap();
    world.begin(&older);
    world.step(&older, 0);
    let by = older.generation.next();
    world.end(&older, Ending::Superseded { by });
    assert!(matches!(world.phases()[..], [(1, FleetPhase::Live), (2, FleetPhase::Green)]));
    let newer = world.plan(&Desired::Serve { release: &release("3"), kind: OperationKind::Deploy }).unwrap();
    assert_eq!(words(&newer)[..3], ["retire", "provision", "await healthy"]);
    assert_eq!(words(&newer).iter().filter(|w| **w == "retire").count(), 1);
    // The newer one was never begun: its control plane died.
    let now = world.now;
    let tidy = world.plan(&tidy_at(now)).unwrap();
    assert_eq!(words(&tidy), ["retire"]);
    world.run(&tidy);
    assert!(matches!(world.phases()[..], [(1, FleetPhase::Live)]));
}
