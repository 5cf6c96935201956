//! What `cargo xtask bench deploy` has done in one process: planning at size, and the log of a host with a long past.
//!
//! ```text
//!   deploys plan                 seconds a plan and its check take for 100, 1,000 and 2,000 services of 100 instances
//!   deploys history FILE COUNT   writes the operation log of a host on which COUNT releases have served, and went
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::Instant;

use kiln_model::{
    AppName, AppState, Desired, Ending, Generation, Millis, Need, OperationKind, Plan, Record, Release,
    ServiceName, Sha256, Timestamp, check, plan,
};
use kiln_testkit::sim::release;
use serde::Serialize;

const INSTANCES: u32 = 100;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["plan"] => println!("{}", planning()),
        ["history", file, count] => history(file, count.parse().expect("a number")),
        _ => panic!("usage: deploys plan | deploys history FILE COUNT"),
    }
}

fn planning() -> serde_json::Value {
    [100, 1_000, 2_000]
        .into_iter()
        .map(|services| (services.to_string(), planning_for(services).into()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// The median of what a plan and its check take where one release of so many services serves and another is to.
fn planning_for(services: usize) -> f64 {
    let (one, two) = (wide("one", services), wide("two", services));
    let mut past = Past::of(&one.app);
    past.deploy(&one);
    let mut runs: Vec<f64> = (0..5)
        .map(|_| {
            let begun = Instant::now();
            let desired = Desired::Serve { release: &two, kind: OperationKind::Deploy };
            let planned =
                plan(&two.app, &past.state, &desired, past.generation.next()).expect("something to do");
            assert_eq!(check(&planned, &past.state), []);
            begun.elapsed().as_secs_f64()
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}

/// A release of so many services, in layers of ten: each needs the one ten before it.
fn wide(name: &str, services: usize) -> Release {
    let mut release = release(name, INSTANCES);
    let one = release.services.values().next().expect("one").clone();
    let named = |n: usize| -> ServiceName { format!("s{n}").parse().expect("a name") };
    release.services = (0..services)
        .map(|n| {
            let mut service = one.clone();
            if let Some(needed) = (n % 100).checked_sub(10) {
                let needed = format!("s{}", n / 100 * 100 + needed).parse().expect("a name");
                service.needs = BTreeMap::from([(needed, Need::Service { port: 8080 })]);
            }
            (named(n), service)
        })
        .collect();
    release.routes.values_mut().for_each(|route| route.service = named(0));
    release
}

/// An app as its log has it.
struct Past {
    app: AppName,
    state: AppState,
    generation: Generation,
    now: u64,
    records: Vec<Record>,
}

impl Past {
    fn of(app: &AppName) -> Self {
        let (state, generation) = Default::default();
        Self { app: app.clone(), state, generation, now: 1_700_000_000_000, records: Vec::new() }
    }

    fn deploy(&mut self, release: &Release) {
        self.carry_out(&Desired::Serve { release, kind: OperationKind::Deploy });
    }

    fn carry_out(&mut self, desired: &Desired<'_>) {
        self.generation = self.generation.next();
        let plan = plan(&self.app, &self.state, desired, self.generation).expect("something to do");
        let Plan { generation, .. } = plan;
        let (app, steps) = (self.app.clone(), plan.steps.len());
        let at = self.at();
        self.note(Record::Begun { at, by: "ann".into(), plan });
        for step in 0..steps {
            let at = self.at();
            self.note(Record::Intent { at, app: app.clone(), generation, step, memory: None });
            self.note(Record::Outcome { at, app: app.clone(), generation, step, note: None });
        }
        self.note(Record::Ended { at, app, generation, ending: Ending::Done });
    }

    fn at(&mut self) -> Timestamp {
        self.now += 1_000;
        Timestamp(self.now)
    }

    fn note(&mut self, record: Record) {
        self.state.apply(&record);
        self.records.push(record);
    }
}

/// A line of the log, in the order in which a host writes it.
#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    prev: Sha256,
    entry: &'a Record,
}

fn history(file: &str, count: u32) {
    let mut log = BufWriter::new(File::create(file).expect("a file"));
    let (mut seq, mut prev) = (0_u64, Sha256([0; 32]));
    let base = Release { keep_warm: Millis(0), ..release("one", 4) };
    let mut past = Past::of(&base.app);
    for n in 0..count {
        let mut release = base.clone();
        let web = release.services.values_mut().next().expect("one");
        web.env.insert("N".into(), n.to_string());
        past.deploy(&release);
    }
    past.carry_out(&Desired::Absent { drain: Millis(0) });
    for record in &past.records {
        seq += 1;
        let line = serde_json::to_string(&Line { seq, prev, entry: record }).expect("JSON");
        prev = Sha256::of(line.as_bytes());
        writeln!(log, "{line}").expect("room");
    }
    log.flush().expect("room");
}
