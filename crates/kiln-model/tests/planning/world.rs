//! A host with one app, and what it is made to go through.

use std::collections::BTreeMap;

use kiln_model::*;

pub(crate) fn release(marker: &str) -> Release {
    let run = RunSettings { stop_grace: Millis(1000), ..RunSettings::as_root(["/bin/app"]) };
    let service = ReleaseService {
        image: ImageDigest(Sha256::of(marker.as_bytes())),
        run,
        env: BTreeMap::new(),
        volatile: vec![],
        port: 8080,
        protocol: Protocol::Http1,
        circuit: None,
        instances: 3,
        limits: Limits { memory: ByteSize(1 << 26), cpu_millis: 500, pids: 64, io: None },
        probe: Probe::Tcp,
        probe_interval: Millis(100),
        probe_timeout: Millis(1000),
        healthy_after: 2,
        unhealthy_after: 3,
        start_timeout: Millis(30_000),
        needs: BTreeMap::new(),
        secrets: BTreeMap::new(),
        checks: Default::default(),
        capabilities: Default::default(),
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
                max_body: None,
                timeout: None,
            },
        )]
        .into(),
        tcp: BTreeMap::new(),
        certificates: vec![],
        drain: Millis(30_000),
        keep_warm: Millis(600_000),
        schema: None,
        canary: None,
        automatic_tls: false,
        policy: Default::default(),
    }
}

/// A host with one app whose every step succeeds at once.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) state: AppState,
    pub(crate) generation: Generation,
    pub(crate) now: u64,
}

impl World {
    pub(crate) fn at(&mut self) -> Timestamp {
        self.now += 1;
        Timestamp(self.now)
    }

    pub(crate) fn plan(&mut self, desired: &Desired<'_>) -> Result<Plan, NothingToDo> {
        self.generation = self.generation.next();
        let plan = plan(&"hello".parse().unwrap(), &self.state, desired, self.generation)?;
        assert_eq!(check(&plan, &self.state), [], "{plan:#?}");
        Ok(plan)
    }

    pub(crate) fn begin(&mut self, plan: &Plan) {
        let at = self.at();
        self.state.apply(&Record::Begun { at, by: "test".into(), plan: plan.clone() });
    }

    pub(crate) fn step(&mut self, plan: &Plan, step: usize) {
        let (app, generation) = (plan.app.clone(), plan.generation);
        let at = self.at();
        self.state.apply(&Record::Intent { at, app: app.clone(), generation, step, memory: None });
        self.state.apply(&Record::Outcome { at, app, generation, step, note: None });
    }

    pub(crate) fn end(&mut self, plan: &Plan, ending: Ending) {
        let at = self.at();
        let (app, generation) = (plan.app.clone(), plan.generation);
        self.state.apply(&Record::Ended { at, app, generation, ending });
    }

    pub(crate) fn run(&mut self, plan: &Plan) {
        self.begin(plan);
        for step in 0..plan.steps.len() {
            self.step(plan, step);
        }
        self.end(plan, Ending::Done);
    }

    pub(crate) fn serve(&mut self, release: &Release) -> Plan {
        let plan = self.plan(&Desired::Serve { release, kind: OperationKind::Deploy }).unwrap();
        self.run(&plan);
        plan
    }

    /// Serves `first`, and switches to `second`, whose operation something else supersedes while `first` drains.
    pub(crate) fn supersede_the_drain(&mut self, first: &Release, second: &Release) {
        self.serve(first);
        let plan = self.plan(&Desired::Serve { release: second, kind: OperationKind::Deploy }).unwrap();
        self.begin(&plan);
        for step in 0..3 {
            self.step(&plan, step);
        }
        self.end(&plan, Ending::Superseded { by: plan.generation.next() });
    }

    pub(crate) fn phases(&self) -> Vec<(u64, &FleetPhase)> {
        self.state.fleets.values().map(|f| (f.id.generation.0, &f.phase)).collect()
    }
}

pub(crate) fn tidy_at(at: u64) -> Desired<'static> {
    Desired::Tidy { at: Timestamp(at), drain: Millis(1000), keep_warm: Millis(1000) }
}

pub(crate) fn words(plan: &Plan) -> Vec<&'static str> {
    let word = |s: &Step| match s.action {
        Action::Provision { .. } => "provision",
        Action::RunHook { .. } => "run hook",
        Action::AwaitHealthy { .. } => "await healthy",
        Action::Shift { .. } => "shift",
        Action::Observe { .. } => "observe",
        Action::Switch { .. } => "switch",
        Action::AwaitDrained { .. } => "await drained",
        Action::KeepWarm { .. } => "keep warm",
        Action::Unroute => "unroute",
        Action::Retire { .. } => "retire",
    };
    plan.steps.iter().map(word).collect()
}
