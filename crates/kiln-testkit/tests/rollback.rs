//! Going back brings back everything a release is, to any depth, and its whole fleet before any traffic.

use std::collections::BTreeSet;

use kiln_control::{Precedence, Request};
use kiln_model::{
    ByteSize, InstanceId, Millis, OperationKind, PinnedSecret, Release, ReleaseId, Target, Traffic,
};
use kiln_testkit::sim::{Sim, release};

/// The n-th release: everything about it is another than before.
fn nth(n: u32) -> Release {
    let mut release = Release { keep_warm: Millis(0), ..release(&format!("r{n}"), 1 + n % 4) };
    let web = release.services.values_mut().next().unwrap();
    web.run.argv.push(format!("--release={n}"));
    web.env.insert("RELEASE".into(), n.to_string());
    web.limits.memory = ByteSize((64 + u64::from(n)) << 20);
    web.limits.cpu_millis = 100 + n;
    let version = format!("s-{n:020}").parse().unwrap();
    web.secrets.insert("KEY".parse().unwrap(), PinnedSecret { version, env: Some("KEY".into()) });
    release.routes.values_mut().for_each(|route| {
        route.host = Some(format!("r{n}.example.com").parse().unwrap());
        route.path = format!("/{n}");
    });
    release
}

fn serve(sim: &mut Sim, release: &Release, kind: OperationKind) {
    let release = Box::new(release.clone());
    sim.request(Request::Serve { release, kind, schema: None, precedence: Precedence::Yields });
}

/// Everything that runs and is routed is that release's, and nothing else is there.
fn is_wholly(sim: &Sim, release: &Release) {
    let state = &sim.core().apps()[&Sim::app()];
    assert_eq!(state.traffic, Traffic::Settled { live: release.id() });
    let (fleet, service) = (state.fleets.values().next().unwrap(), release.services.values().next().unwrap());
    assert_eq!((state.fleets.len(), fleet.size()), (1, service.instances));
    for (_, id) in fleet.instances() {
        let order = sim.engine.order(&id).unwrap();
        assert_eq!((&order.run, &order.env, order.limits), (&service.run, &service.env, service.limits));
        assert_eq!(order.image.digest, service.image);
        let secret = &order.secrets[0];
        let version = service.secrets.values().next().unwrap().version.as_str();
        assert_eq!((secret.value.reveal(), secret.env.as_deref()), (version.as_bytes(), Some("KEY")));
    }
    let table = sim.edge.table();
    let (route, wanted) = (&table.routes[0], release.routes.values().next().unwrap());
    assert_eq!((table.routes.len(), &route.host, &route.path), (1, &wanted.host, &wanted.path));
    assert_eq!(route.targets, [Target { fleet: fleet.id.clone(), weight: 1 }]);
}

/// In no table is traffic sent to a fleet that is smaller than its release says.
fn never_to_a_part_of_a_fleet(sim: &Sim, since: usize, release: &Release) {
    let size = release.services.values().next().unwrap().instances as usize;
    let tables = sim.edge.tables();
    let mut switched = 0;
    for table in &tables[since..] {
        for target in table.routes.iter().flat_map(|r| &r.targets) {
            let fleet = table.fleets.iter().find(|f| f.id == target.fleet).unwrap();
            if fleet.release == Some(release.id()) {
                switched += 1;
                assert_eq!(fleet.instances.len(), size, "table {} sends traffic to {fleet:?}", table.version);
            }
        }
    }
    assert!(switched > 0, "traffic never went to {}", release.id());
}

#[test]
fn to_any_depth_all_of_it_and_the_whole_fleet_before_any_traffic() {
    let mut sim = Sim::default();
    let releases: Vec<Release> = (0..12).map(nth).collect();
    for release in &releases {
        serve(&mut sim, release, OperationKind::Deploy);
        is_wholly(&sim, release);
    }
    let ids: BTreeSet<ReleaseId> = releases.iter().map(Release::id).collect();
    assert_eq!(ids.len(), releases.len());
    for n in [0, 11, 5, 4, 10, 1, 7, 2, 0] {
        let since = sim.edge.tables().len();
        serve(&mut sim, &releases[n], OperationKind::Rollback);
        is_wholly(&sim, &releases[n]);
        never_to_a_part_of_a_fleet(&sim, since, &releases[n]);
    }
}

/// One member is late: traffic stays where it is until that one answers, too.
#[test]
fn one_member_that_is_late_holds_up_the_traffic() {
    let mut sim = Sim::default();
    let (old, new) = (nth(2), nth(5));
    serve(&mut sim, &old, OperationKind::Deploy);
    serve(&mut sim, &new, OperationKind::Deploy);
    sim.health.make_sick("hello-web-3-2");
    serve(&mut sim, &old, OperationKind::Rollback);
    let runs = |sim: &Sim, serial: u32| {
        let id: InstanceId = format!("hello-web-3-{serial}").parse().unwrap();
        sim.engine.order(&id).is_some()
    };
    assert!((1..=3).all(|serial| runs(&sim, serial)), "all of it is brought up");
    assert_eq!(sim.core().apps()[&Sim::app()].traffic.live(), Some(&new.id()));
    let since = sim.edge.tables().len();
    sim.health.make_well("hello-web-3-2");
    sim.settle();
    is_wholly(&sim, &old);
    never_to_a_part_of_a_fleet(&sim, since, &old);
}
