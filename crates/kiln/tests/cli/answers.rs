//! Questions and answers, in words and as the documents other programs rely on.

use std::collections::BTreeMap;

use insta::assert_snapshot;
use kiln_model::{
    Action, Answer, Command, Counts, Event, FleetId, Generation, ImageDigest, InstanceEntry, InstancePhase,
    LogEntry, Millis, Origin, OutputStream, PlanAnswer, PlanPhase, PlannedStep, ReleaseEntry, ReleaseId,
    ReleaseState, ServiceStatus, Sha256, Stamped, StatusAnswer, Timestamp, TrafficReport, Waiting,
};

use crate::harness::{Place, SPEC};

const AT: Timestamp = Timestamp(1_790_000_000_042);

fn release(digit: char) -> ReleaseId {
    format!("r-{}", digit.to_string().repeat(32)).parse().unwrap()
}

fn image() -> ImageDigest {
    ImageDigest(Sha256::of(b"abc"))
}

fn status() -> StatusAnswer {
    let service =
        ServiceStatus { release: release('5'), image: image(), instances: Counts { desired: 4, ready: 4 } };
    StatusAnswer {
        app: Some("hello".parse().unwrap()),
        live: Some(release('5')),
        previous: Some(release('9')),
        traffic: TrafficReport::Settled,
        services: BTreeMap::from([("web".parse().unwrap(), service)]),
        address: "http://127.0.0.1:8080".into(),
        waiting: vec![],
        last_failure: None,
        warnings: vec![],
        requests: 1234,
        failed_requests: 0,
        in_flight: 3,
    }
}

#[test]
fn status_when_all_is_well() {
    let place = Place::new();
    let _host = place.host("a", |_, _| Ok(Answer::Status(status())));
    assert_snapshot!(place.kiln(&["status"]), @r"
        status: 0
        --- stdout
        hello serves r-555555555555 at http://127.0.0.1:8080
        `kiln rollback` goes back to r-999999999999
        SERVICE  READY  RELEASE         IMAGE
        web      4/4    r-555555555555  ba7816bf8f01
        1234 requests: 0 that no instance answered to the end, 3 in flight
        ");
    assert_snapshot!(place.kiln(&["status", "--json"]), @r#"
        status: 0
        --- stdout
        {"app":"hello","live":"r-55555555555555555555555555555555","previous":"r-99999999999999999999999999999999","traffic":{"state":"settled"},"services":{"web":{"release":"r-55555555555555555555555555555555","image":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","instances":{"desired":4,"ready":4}}},"address":"http://127.0.0.1:8080","waiting":[],"last_failure":null,"warnings":[],"requests":1234,"failed_requests":0,"in_flight":3}
        "#);
}

#[test]
fn status_when_something_is_under_way_or_went_wrong() {
    let place = Place::new();
    let waiting = || Waiting {
        what: "wait until web is healthy".into(),
        since: AT,
        until: Some(Timestamp(AT.0 + 30_000)),
    };
    let _host = place.host("a", move |_, _| {
        Ok(Answer::Status(StatusAnswer {
            traffic: TrafficReport::Shifting { from: release('5'), to: release('7'), share: 0.25 },
            waiting: vec![waiting()],
            last_failure: Some("2 of 4 instances of hello/web@3 are healthy".into()),
            warnings: vec!["the disk of /srv/kiln has 90MiB of 10GiB left".into()],
            ..status()
        }))
    });
    assert_snapshot!(place.kiln(&["status"]), @r"
        status: 0
        --- stdout
        hello serves r-555555555555 at http://127.0.0.1:8080
        traffic is shifting from r-555555555555 to r-777777777777: 25%
        `kiln rollback` goes back to r-999999999999
        SERVICE  READY  RELEASE         IMAGE
        web      4/4    r-555555555555  ba7816bf8f01
        1234 requests: 0 that no instance answered to the end, 3 in flight
        under way: wait until web is healthy (since 2026-09-21 14:13:20Z, until 2026-09-21 14:13:50Z at most)
        warning: the disk of /srv/kiln has 90MiB of 10GiB left
        the last deploy failed: 2 of 4 instances of hello/web@3 are healthy
        ");
}

#[test]
fn status_before_the_first_deploy() {
    let place = Place::new();
    let _host = place.host("a", |_, _| {
        let (live, previous, services) = (None, None, BTreeMap::new());
        Ok(Answer::Status(StatusAnswer {
            live,
            previous,
            services,
            traffic: TrafficReport::Dark,
            ..status()
        }))
    });
    assert_snapshot!(place.kiln(&["status"]), @r"
        status: 0
        --- stdout
        hello has no release that serves; its address is http://127.0.0.1:8080
        1234 requests: 0 that no instance answered to the end, 3 in flight
        ");
}

#[test]
fn status_of_a_host_with_nothing_on_it() {
    let place = Place::new();
    let _host = place.host("a", |_, _| {
        let (app, live, previous, services) = (None, None, None, BTreeMap::new());
        let traffic = TrafficReport::Dark;
        Ok(Answer::Status(StatusAnswer { app, live, previous, services, traffic, requests: 0, ..status() }))
    });
    let told = place.kiln(&["status"]);
    assert!(
        told.starts_with("status: 0\n--- stdout\nnothing has been deployed; what is will be at http"),
        "{told}"
    );
}

#[test]
fn a_question_is_about_the_app_of_the_directory() {
    let place = Place::new();
    let _host = place.host("a", |command, _| match command {
        Command::Status { app } => {
            Ok(Answer::Status(StatusAnswer { app: app.or_else(|| "nobody".parse().ok()), ..status() }))
        }
        other => panic!("{other:?}"),
    });
    let app_of = |arguments: &[&str]| {
        let told = place.kiln(arguments);
        told.lines().nth(2).unwrap().split(' ').next().unwrap().to_owned()
    };
    assert_eq!(app_of(&["status"]), "nobody");
    assert_eq!(app_of(&["status", "--app", "other"]), "other");
    place.write("kiln.toml", &format!("{SPEC}\nunknown = 1\n"));
    assert_eq!(app_of(&["status"]), "hello");
    assert_eq!(app_of(&["status", "--app", "other"]), "other");
}

#[test]
fn a_watched_status_ends_with_its_host() {
    let place = Place::new();
    let answers = std::sync::Mutex::new(vec![Some(status()), None]);
    let _host = place.host("a", move |_, _| match answers.lock().unwrap().remove(0) {
        Some(status) => Ok(Answer::Status(status)),
        None => Err(kiln_model::Failure::new(kiln_model::ExitCode::Host, "the host is shutting down")),
    });
    assert_snapshot!(place.kiln(&["status", "--watch"]), @r"
        status: 9
        --- stdout
        hello serves r-555555555555 at http://127.0.0.1:8080
        `kiln rollback` goes back to r-999999999999
        SERVICE  READY  RELEASE         IMAGE
        web      4/4    r-555555555555  ba7816bf8f01
        1234 requests: 0 that no instance answered to the end, 3 in flight
        --- stderr
        error: the host is shutting down
        ");
}

#[test]
fn releases_newest_first() {
    let place = Place::new();
    let entry = |digit, state| ReleaseEntry {
        release: release(digit),
        created: AT,
        by: "root".into(),
        images: BTreeMap::from([("web".parse().unwrap(), image())]),
        state,
        damage: None,
        pinned: digit == '1',
    };
    let entries = vec![
        entry('5', ReleaseState::Live),
        entry('9', ReleaseState::Warm),
        entry('1', ReleaseState::Stored),
    ];
    let _host = place.host("a", move |_, _| Ok(Answer::Releases(entries.clone())));
    assert_snapshot!(place.kiln(&["releases"]), @r"
        status: 0
        --- stdout
        RELEASE         STATE           CREATED               BY    IMAGES
        r-555555555555  live            2026-09-21 14:13:20Z  root  web=ba7816bf8f01
        r-999999999999  warm            2026-09-21 14:13:20Z  root  web=ba7816bf8f01
        r-111111111111  stored, pinned  2026-09-21 14:13:20Z  root  web=ba7816bf8f01
        ");
    assert_snapshot!(place.kiln(&["releases", "--json"]), @r#"
        status: 0
        --- stdout
        [{"release":"r-55555555555555555555555555555555","created":"2026-09-21T14:13:20.042Z","by":"root","images":{"web":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},"state":"live","pinned":false},{"release":"r-99999999999999999999999999999999","created":"2026-09-21T14:13:20.042Z","by":"root","images":{"web":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},"state":"warm","pinned":false},{"release":"r-11111111111111111111111111111111","created":"2026-09-21T14:13:20.042Z","by":"root","images":{"web":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},"state":"stored","pinned":true}]
        "#);
}

#[test]
fn instances_and_where_they_are_in_their_lives() {
    let place = Place::new();
    let entry = |serial: u32, state, pid| InstanceEntry {
        id: format!("hello-web-3-{serial}").parse().unwrap(),
        app: "hello".parse().unwrap(),
        service: "web".parse().unwrap(),
        release: release('5'),
        image: image(),
        state,
        since: AT,
        pid,
        reason: None,
    };
    let lost = InstanceEntry {
        reason: Some("it exited with code 1; no space is left on /tmp (4MiB)".into()),
        ..entry(7, InstancePhase::Replaced, None)
    };
    let entries = vec![entry(1, InstancePhase::Ready, Some(4711)), entry(2, InstancePhase::Starting, None)];
    let _host = place.host("a", move |command, _| match command {
        Command::Instances { all: true, .. } => Ok(Answer::Instances(vec![entries[0].clone(), lost.clone()])),
        _ => Ok(Answer::Instances(entries.clone())),
    });
    assert_snapshot!(place.kiln(&["instances", "--all"]), @r"
        status: 0
        --- stdout
        INSTANCE       SERVICE  STATE     SINCE                 RELEASE         PID   WHY
        hello-web-3-1  web      ready     2026-09-21 14:13:20Z  r-555555555555  4711
        hello-web-3-7  web      replaced  2026-09-21 14:13:20Z  r-555555555555  -     it exited with code 1; no space is left on /tmp (4MiB)
        ");
    assert_snapshot!(place.kiln(&["instances"]), @r"
        status: 0
        --- stdout
        INSTANCE       SERVICE  STATE     SINCE                 RELEASE         PID
        hello-web-3-1  web      ready     2026-09-21 14:13:20Z  r-555555555555  4711
        hello-web-3-2  web      starting  2026-09-21 14:13:20Z  r-555555555555  -
        ");
    assert_snapshot!(place.kiln(&["instances", "--json"]), @r#"
        status: 0
        --- stdout
        [{"id":"hello-web-3-1","app":"hello","service":"web","release":"r-55555555555555555555555555555555","image":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","state":"ready","since":"2026-09-21T14:13:20.042Z","pid":4711},{"id":"hello-web-3-2","app":"hello","service":"web","release":"r-55555555555555555555555555555555","image":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","state":"starting","since":"2026-09-21T14:13:20.042Z","pid":null}]
        "#);
}

#[test]
fn the_log_of_operations() {
    let place = Place::new();
    let entry = |operation, what: &str, outcome: &str, reason: Option<&str>| LogEntry {
        operation,
        at: AT,
        ended: Some(AT),
        by: "root".into(),
        origin: (operation == 2).then(|| Origin {
            uid: 0,
            pid: Some(4711),
            program: Some("/usr/bin/kiln".into()),
            says: Some("ssh 192.0.2.7".into()),
        }),
        app: "hello".parse().unwrap(),
        what: what.into(),
        from: (operation > 1).then(|| release('5')),
        to: Some(release('7')),
        outcome: outcome.into(),
        reason: reason.map(str::to_owned),
    };
    let entries = vec![
        entry(2, "deploy", "failed", Some("web never became healthy")),
        entry(1, "deploy", "done", None),
    ];
    let _host = place.host("a", move |command, _| match command {
        Command::Log { limit: Some(9), .. } => Ok(Answer::Log(vec![])),
        _ => Ok(Answer::Log(entries.clone())),
    });
    assert_snapshot!(place.kiln(&["log"]), @r"
        status: 0
        --- stdout
        NO  AT                    BY    FROM WHERE                    APP    WHAT    FROM -> TO                        OUTCOME
        2   2026-09-21 14:13:20Z  root  ssh 192.0.2.7, /usr/bin/kiln  hello  deploy  r-555555555555 -> r-777777777777  failed: web never became healthy
        1   2026-09-21 14:13:20Z  root  -                             hello  deploy  - -> r-777777777777               done
        ");
    assert_snapshot!(place.kiln(&["log", "-n", "1", "--json"]), @r#"
        status: 0
        --- stdout
        [{"operation":2,"at":"2026-09-21T14:13:20.042Z","ended":"2026-09-21T14:13:20.042Z","by":"root","origin":{"uid":0,"pid":4711,"program":"/usr/bin/kiln","says":"ssh 192.0.2.7"},"app":"hello","what":"deploy","from":"r-55555555555555555555555555555555","to":"r-77777777777777777777777777777777","outcome":"failed","reason":"web never became healthy"},{"operation":1,"at":"2026-09-21T14:13:20.042Z","ended":"2026-09-21T14:13:20.042Z","by":"root","app":"hello","what":"deploy","from":null,"to":"r-77777777777777777777777777777777","outcome":"done","reason":null}]
        "#);
    assert_snapshot!(place.kiln(&["log", "-n", "9"]), @r"
        status: 0
        --- stdout
        nothing has been done yet
        ");
    assert!(place.kiln(&["log", "-n", "0"]).starts_with("status: 2\n"), "all is not nothing");
}

#[test]
fn what_instances_wrote() {
    let place = Place::new();
    let _host = place.host("a", |command, events| {
        let Command::Logs { service, follow: false, tail: Some(2), .. } = command else {
            panic!("{command:?}")
        };
        for (stream, line) in [(OutputStream::Stdout, "hello"), (OutputStream::Stderr, "oh dear")] {
            events.event(Stamped {
                at: AT,
                event: Event::Output {
                    app: Some("hello".parse().unwrap()),
                    service: service.clone(),
                    release: Some(release('5')),
                    instance: "hello-web-3-1".parse().unwrap(),
                    stream,
                    written: AT,
                    line: line.into(),
                },
            });
        }
        Ok(Answer::Done)
    });
    assert_snapshot!(place.kiln(&["logs", "-n", "2", "web"]), @r"
        status: 0
        --- stdout
        2026-09-21T14:13:20.042Z r-555555555555 hello-web-3-1 | hello
        2026-09-21T14:13:20.042Z r-555555555555 hello-web-3-1 ! oh dear
        ");
    assert_snapshot!(place.kiln(&["logs", "-n", "2", "web", "--json"]), @r#"
        status: 0
        --- stdout
        {"at":"2026-09-21T14:13:20.042Z","event":"output","app":"hello","service":"web","release":"r-55555555555555555555555555555555","instance":"hello-web-3-1","stream":"stdout","written":"2026-09-21T14:13:20.042Z","line":"hello"}
        {"at":"2026-09-21T14:13:20.042Z","event":"output","app":"hello","service":"web","release":"r-55555555555555555555555555555555","instance":"hello-web-3-1","stream":"stderr","written":"2026-09-21T14:13:20.042Z","line":"oh dear"}
        "#);
}

#[test]
fn a_plan_says_what_and_why() {
    let place = Place::new();
    place.write("kiln.toml", SPEC);
    let dir = place.path();
    let _host = place.host("a", move |command, _| {
        assert_eq!(command, Command::Plan { dir: dir.clone() });
        let fleet = FleetId {
            app: "hello".parse().unwrap(),
            service: "web".parse().unwrap(),
            generation: Generation(9),
        };
        let steps = [
            (
                Action::Provision { fleet: fleet.clone(), release: release('7'), size: 4 },
                "no fleet of it is up",
            ),
            (Action::AwaitHealthy { fleets: vec![fleet.clone()], within: Millis(90_000) }, "only then"),
            (
                Action::Switch { release: release('7'), fleets: vec![fleet] },
                "r-5555 serves until this moment",
            ),
        ];
        let phases = [PlanPhase::Prepare, PlanPhase::Prepare, PlanPhase::Switch];
        let planned = |((action, why), phase): ((Action, &str), PlanPhase)| PlannedStep {
            step: action.to_string(),
            why: why.into(),
            phase,
            service: action.service().cloned(),
            action,
        };
        Ok(Answer::Plan(PlanAnswer {
            app: "hello".parse().unwrap(),
            from: Some(release('5')),
            to: release('7'),
            nothing_to_do: None,
            changes: vec!["image of web: ba7816bf8f01 -> 5feceb66ffc8".into()],
            steps: steps.into_iter().zip(phases).map(planned).collect(),
            warnings: vec![],
        }))
    });
    assert_snapshot!(place.kiln(&["plan"]), @r"
        status: 0
        --- stdout
        hello: r-555555555555 -> r-777777777777
          image of web: ba7816bf8f01 -> 5feceb66ffc8
        prepare: what serves is not touched; if anything fails, what was made is thrown away
        ├─ 1. provision 4 × web of r-777777777777
        │     because no fleet of it is up
        └─ 2. wait until web is healthy, at most 90s
              because only then
        switch: from one moment to the next
        └─ 3. switch all traffic to r-777777777777
              because r-5555 serves until this moment
        ");
    assert_snapshot!(place.kiln(&["plan", "--json"]), @r#"
        status: 0
        --- stdout
        {"app":"hello","from":"r-55555555555555555555555555555555","to":"r-77777777777777777777777777777777","nothing_to_do":null,"changes":["image of web: ba7816bf8f01 -> 5feceb66ffc8"],"steps":[{"step":"provision 4 × web of r-777777777777","why":"no fleet of it is up","phase":"prepare","service":"web","action":{"do":"provision","fleet":{"app":"hello","service":"web","generation":9},"release":"r-77777777777777777777777777777777","size":4}},{"step":"wait until web is healthy, at most 90s","why":"only then","phase":"prepare","action":{"do":"await_healthy","fleets":[{"app":"hello","service":"web","generation":9}],"within":"90s"}},{"step":"switch all traffic to r-777777777777","why":"r-5555 serves until this moment","phase":"switch","action":{"do":"switch","release":"r-77777777777777777777777777777777","fleets":[{"app":"hello","service":"web","generation":9}]}}]}
        "#);
}

#[test]
fn down_says_that_it_is_done() {
    let place = Place::new();
    let _host = place.host("a", |command, _| {
        assert_eq!(command, Command::Down);
        Ok(Answer::Done)
    });
    assert_snapshot!(place.kiln(&["down"]), @r"
        status: 0
        --- stdout
        everything is stopped
        ");
}
