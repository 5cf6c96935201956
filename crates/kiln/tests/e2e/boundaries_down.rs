//! The control plane is killed on its way through `kiln down`. Wherever that is, what it has written, what it has done and
//! what it has said agree: nothing is done that is not written down, and nothing is written down or said that is not done.

use kiln_model::{Action, OperationKind, Plan, Record};
use rustix::process::{Pid, test_kill_process};

use crate::boundaries::{is_at_rest, passed};
use crate::host::{TestHost, said};
use crate::project::Project;

/// How far a step has come, as the log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Written {
    Nothing,
    Intent,
    Outcome,
}

/// What the log has of a `kiln down` that is under way, or was the last that happened.
#[derive(Debug)]
struct Told {
    plan: Option<Plan>,
    steps: Vec<Written>,
    has_ended: bool,
}

impl Told {
    /// The control plane is dead, so it is read where it lies.
    fn by_log_of(host: &TestHost) -> Self {
        let text = std::fs::read_to_string(host.root.path().join("log/operations.jsonl")).expect("a log");
        let mut told = Self { plan: None, steps: Vec::new(), has_ended: false };
        for line in text.lines() {
            let mut line: serde_json::Value = serde_json::from_str(line).expect("a line of the log");
            told.learn(serde_json::from_value(line["entry"].take()).expect("an entry"));
        }
        told
    }

    fn learn(&mut self, record: Record) {
        match record {
            Record::Begun { plan, .. } => {
                self.steps = vec![Written::Nothing; plan.steps.len()];
                self.has_ended = false;
                self.plan = (plan.kind == OperationKind::Down).then_some(plan);
            }
            Record::Intent { step, .. } => self.steps[step] = Written::Intent,
            Record::Outcome { step, .. } => self.steps[step] = Written::Outcome,
            Record::Ended { .. } => self.has_ended = true,
            _ => {}
        }
    }

    fn of(&self, is_meant: impl Fn(&Action) -> bool) -> Written {
        let Some(plan) = &self.plan else { return Written::Nothing };
        let at = plan.steps.iter().position(|step| is_meant(&step.action)).expect("down has such a step");
        self.steps[at]
    }

    fn unrouted(&self) -> Written {
        self.of(|action| matches!(action, Action::Unroute))
    }

    fn retired(&self) -> Written {
        self.of(|action| matches!(action, Action::Retire { .. }))
    }
}

/// What somebody gets who asks for the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Page,
    NoRoute,
    Nobody,
}

/// What there is.
#[derive(Debug)]
struct Found {
    answer: Answer,
    alive: usize,
    edge: bool,
    keeper: bool,
}

impl Found {
    fn at(host: &TestHost, before: &[Pid]) -> Self {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let answer = match agent.get(&host.address).call() {
            Ok(answer) if answer.status() == 200 => Answer::Page,
            Ok(answer) => {
                let refusal = answer.into_body().read_to_string().expect("a refusal");
                assert!(refusal.contains("no route"), "{refusal}");
                Answer::NoRoute
            }
            Err(ureq::Error::Io(_) | ureq::Error::ConnectionFailed) => Answer::Nobody,
            Err(other) => panic!("neither a page nor a refusal: {other}"),
        };
        let alive = before.iter().filter(|pid| test_kill_process(**pid).is_ok()).count();
        let runs = |name| host.find_process(name).is_some();
        Self { answer, alive, edge: runs("edge"), keeper: runs("keeper") }
    }

    /// What is written down is done, and what is done is written down.
    fn agrees_with(&self, told: &Told, of: usize, at: &str) {
        let all = format!("at {at}: {self:?} of {of}, and the log has {told:?}");
        match told.unrouted() {
            Written::Nothing => assert_eq!(self.answer, Answer::Page, "the page was to be served {all}"),
            Written::Intent => {}
            Written::Outcome => assert_ne!(self.answer, Answer::Page, "there was to be no route {all}"),
        }
        match told.retired() {
            Written::Nothing => assert_eq!(self.alive, of, "nobody was to be ended {all}"),
            Written::Intent => {}
            Written::Outcome => assert_eq!(self.alive, 0, "nobody was to be left {all}"),
        }
        assert!(self.alive == of || self.answer != Answer::Page, "requests go to the dead {all}");
        assert!(told.has_ended || self.edge && self.keeper, "what is needed yet is gone {all}");
    }
}

/// The main processes of all instances.
fn processes(host: &TestHost) -> Vec<Pid> {
    let instances = host.json(&["instances"]);
    let pid = |i: &serde_json::Value| Pid::from_raw(i32::try_from(i["pid"].as_i64()?).ok()?);
    instances.as_array().expect("instances").iter().map(|i| pid(i).expect("it runs")).collect()
}

/// Whether nothing of the app is left, and nothing waits.
fn is_gone(host: &TestHost) -> bool {
    let status = host.json(&["status"]);
    let rests = status["waiting"].as_array().is_some_and(Vec::is_empty);
    rests && status["live"].is_null() && host.json(&["instances"]) == serde_json::json!([])
}

/// Takes the app down while control meets its end; then another one brings everything to rest: what was begun is finished,
/// what was not never happened, and nobody who was refused is let in again.
fn down_through(host: &mut TestHost, project: &Project, at: &str) {
    let live = host.deploy(project);
    host.wait_until("everything is at rest", || is_at_rest(host));
    let before = processes(host);
    host.kill_control();
    host.restart_control_until(at);
    let down = host.kiln(&["down"]);
    host.kill_control();
    let (told, found) = (Told::by_log_of(host), Found::at(host, &before));
    found.agrees_with(&told, before.len(), at);
    match down.status.code() {
        Some(0) => {
            assert!(told.has_ended && !found.edge && !found.keeper, "at {at}: {found:?}: {}", said(&down))
        }
        code => assert_eq!(code, Some(9), "at {at}: {}", said(&down)),
    }
    let load = (found.answer == Answer::NoRoute).then(|| host.load());
    if found.edge {
        host.restart_control()
    } else {
        host.restart_elsewhere()
    }
    match told.plan {
        Some(_) => host.wait_until("what was begun is finished", || is_gone(host)),
        None => {
            host.wait_until("everything is at rest", || is_at_rest(host));
            assert_eq!(host.live(), live, "at {at}");
        }
    }
    let let_in = load.map_or(0, |load| load.stop().succeeded);
    assert_eq!(let_in, 0, "at {at}: requests were answered that had no route any more");
    if told.plan.is_none() {
        assert!(host.page().contains("hello"));
    }
}

#[test]
fn control_is_killed_at_boundaries_of_down() {
    let (mut host, project) = (TestHost::start(), Project::example("hello"));
    host.deploy(&project);
    let all = passed(&mut host, |host| assert!(host.kiln(&["down"]).status.success()));
    host.kill_control();
    host.restart_elsewhere();
    let acts = ["table", "stop", "forget", "end"];
    let of_acts = |line: &&str| acts.iter().any(|act| line.ends_with(act));
    let passed: Vec<&str> = if std::env::var_os("KILN_LONG").is_some() {
        all.lines().collect()
    } else {
        all.lines().filter(of_acts).collect()
    };
    assert!(acts.iter().all(|act| passed.iter().any(|line| line.ends_with(act))), "{all}");
    for line in passed {
        let (n, _) = line.split_once(' ').expect("a number and what is done there");
        down_through(&mut host, &project, &format!("die:{n}"));
    }
    host.deploy(&project);
    assert!(host.page().contains("hello"));
}
