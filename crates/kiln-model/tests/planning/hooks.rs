//! Hooks in plans, and what plans that were superseded have left.

use kiln_model::*;

use crate::world::{World, release, tidy_at, words};

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
