//! Deploys and rollbacks: progress, the truth at the end, and the exit code that goes with it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

use insta::assert_snapshot;
use kiln_control::contract::EventSink;
use kiln_model::{
    Answer, BakedImage, Command, DeployedAnswer, Event, ExitCode, Failure, ImageDigest, Progress, ReleaseId,
    Sha256, Stamped, Timestamp,
};

use crate::harness::{Place, SPEC};

fn release(digit: char) -> ReleaseId {
    format!("r-{}", digit.to_string().repeat(32)).parse().unwrap()
}

fn place() -> Place {
    let place = Place::new();
    place.write("kiln.toml", SPEC);
    place
}

fn tell(events: &dyn EventSink, event: Event) {
    events.event(Stamped { at: Timestamp(1_790_000_000_042), event });
}

/// What a deploy tells until the moment that decides.
fn first_half(events: &dyn EventSink) {
    let progress = |done, finished| {
        let task = "fetching packages".to_owned();
        Event::Progress(Progress { task, done, total: Some(113), unit: "packages".into(), finished })
    };
    tell(events, progress(7, false));
    tell(events, progress(113, true));
    let digest = ImageDigest(Sha256::of(b"abc"));
    let image = BakedImage {
        digest,
        bytes: 220 << 20,
        reused: false,
        packages: 113,
        millis: 4250,
        left_out: Vec::new(),
    };
    tell(events, Event::Baked { name: "web".into(), image });
    let (image, check) = ("web".to_owned(), "run /usr/sbin/nginx -t".to_owned());
    tell(events, Event::Checked { image, check, cached: false, millis: 312 });
    let step = "provision 4 × web of r-777777777777".to_owned();
    tell(events, Event::StepBegun { step: step.clone() });
    tell(events, Event::StepDone { step, millis: 41 });
}

fn succeed(events: &dyn EventSink) -> Result<Answer, Failure> {
    first_half(events);
    tell(events, Event::Switched { release: release('7') });
    let (release, address, unchanged) = (release('7'), "http://127.0.0.1:8080".to_owned(), false);
    tell(
        events,
        Event::Deployed {
            release: release.clone(),
            address: address.clone(),
            unchanged,
            switched_micros: 5_100_000,
            warnings: vec![],
        },
    );
    Ok(Answer::Deployed(DeployedAnswer {
        release,
        address,
        unchanged,
        switched_millis: 5100,
        warnings: vec![],
    }))
}

fn fail(events: &dyn EventSink) -> Result<Answer, Failure> {
    first_half(events);
    let failure =
        Failure::new(ExitCode::Deploy, "release r-777777777777 was not deployed; its fleet was thrown away")
            .because("0 of 4 instances of hello/web@4 are healthy")
            .hint("`kiln logs` shows what its instances wrote; r-555555555555 still serves");
    tell(
        events,
        Event::Failed {
            release: Some(release('7')),
            serving: Some(release('5')),
            step: "wait until web is healthy".into(),
            cause: "0 of 4 instances of hello/web@4 are healthy".into(),
            failure: failure.clone(),
        },
    );
    Err(failure)
}

#[test]
fn a_deploy_that_goes_well() {
    let place = place();
    let dir = place.path();
    let _host = place.host("a", move |command, events| {
        assert_eq!(command, Command::Deploy { dir: dir.clone(), locked: false, supersede: false });
        succeed(events)
    });
    assert_snapshot!(place.kiln(&["deploy"]), @r"
        status: 0
        --- stdout
        r-777777777777 serves at http://127.0.0.1:8080, switched after 5.1s
        --- stderr
        fetching packages: 113 packages
        image web is baked: ba7816bf8f01, 113 packages, 220.0 MiB (4.2s)
        check of web: run /usr/sbin/nginx -t: passed (312ms)
        provision 4 × web of r-777777777777 (41ms)
        all new requests go to r-777777777777
        ");
    assert_snapshot!(place.kiln(&["deploy", "--quiet"]), @r"
        status: 0
        --- stdout
        r-777777777777 serves at http://127.0.0.1:8080, switched after 5.1s
        ");
    assert_snapshot!(place.kiln(&["deploy", "--json", "--quiet"]), @r#"
        status: 0
        --- stdout
        {"at":"2026-09-21T14:13:20.042Z","event":"progress","task":"fetching packages","done":7,"total":113,"unit":"packages","finished":false}
        {"at":"2026-09-21T14:13:20.042Z","event":"progress","task":"fetching packages","done":113,"total":113,"unit":"packages","finished":true}
        {"at":"2026-09-21T14:13:20.042Z","event":"baked","name":"web","image":{"digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","bytes":230686720,"reused":false,"packages":113,"millis":4250}}
        {"at":"2026-09-21T14:13:20.042Z","event":"checked","image":"web","check":"run /usr/sbin/nginx -t","cached":false,"millis":312}
        {"at":"2026-09-21T14:13:20.042Z","event":"step_begun","step":"provision 4 × web of r-777777777777"}
        {"at":"2026-09-21T14:13:20.042Z","event":"step_done","step":"provision 4 × web of r-777777777777","millis":41}
        {"at":"2026-09-21T14:13:20.042Z","event":"switched","release":"r-77777777777777777777777777777777"}
        {"at":"2026-09-21T14:13:20.042Z","event":"deployed","release":"r-77777777777777777777777777777777","address":"http://127.0.0.1:8080","unchanged":false,"switched_micros":5100000}
        "#);
}

#[test]
fn a_deploy_that_fails_says_what_still_serves() {
    let place = place();
    let _host = place.host("a", |_, events| fail(events));
    assert_snapshot!(place.kiln(&["deploy", "--quiet"]), @r"
        status: 6
        --- stderr
        error: release r-777777777777 was not deployed; its fleet was thrown away
          because: 0 of 4 instances of hello/web@4 are healthy
        hint: `kiln logs` shows what its instances wrote; r-555555555555 still serves
        ");
    let output = place.process(&["deploy", "--json", "--quiet"]).output().unwrap();
    let lines: Vec<serde_json::Value> =
        output.stdout.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let last = lines.last().unwrap();
    assert_eq!(last["event"], "failed");
    assert_eq!(last["serving"], release('5').as_str());
    assert_eq!(lines.iter().filter(|line| line["event"] == "failed").count(), 1);
    assert_eq!(output.status.code(), Some(6));
}

#[test]
fn every_failure_of_a_host_has_its_exit_code() {
    let place = place();
    for (code, number) in [
        (ExitCode::Bake, 4),
        (ExitCode::Check, 5),
        (ExitCode::Deploy, 6),
        (ExitCode::Policy, 7),
        (ExitCode::Busy, 8),
        (ExitCode::Host, 9),
    ] {
        let _host = place.host("a", move |_, _| Err(Failure::new(code, "no")));
        let output = place.process(&["deploy"]).output().unwrap();
        assert_eq!(output.status.code(), Some(number));
    }
}

#[test]
fn a_failure_before_the_host_was_asked_still_ends_the_stream() {
    let place = place();
    let output = place.process(&["deploy", "--json"]).output().unwrap();
    let mut last: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(last["at"].is_string());
    last["at"] = "[NOW]".into();
    assert_snapshot!(last.to_string(), @r#"{"at":"[NOW]","cause":"no Kiln host is running here","event":"failed","failure":{"causes":[],"code":"host","hint":"start one with `kiln up` (this app, in the foreground) or `kiln serve`","message":"no Kiln host is running here"},"release":null,"serving":null,"step":"ask the host"}"#);
    assert_eq!(output.status.code(), Some(9));
}

#[test]
fn a_rollback_may_name_its_release_by_the_beginning() {
    let place = place();
    let _host = place.host("a", |command, _| {
        let Command::Rollback { app: Some(app), release: given, schema: None, supersede: false } = command
        else {
            panic!("{command:?}")
        };
        assert_eq!((app.as_str(), given.as_deref()), ("hello", Some("r-5")));
        let (release, address) = (release('5'), "http://127.0.0.1:8080".to_owned());
        Ok(Answer::Deployed(DeployedAnswer {
            release,
            address,
            unchanged: true,
            switched_millis: 0,
            warnings: vec![],
        }))
    });
    assert_snapshot!(place.kiln(&["rollback", "r-5"]), @r"
        status: 0
        --- stdout
        r-555555555555 serves already at http://127.0.0.1:8080; nothing to do
        ");
}

#[test]
fn a_deploy_is_given_up_with_its_process() {
    let begun = Event::Warned { warning: "it begins".into() };
    is_left(begun, "warning: it begins", "given up: the host throws away what does not serve yet");
    let serves = Event::Switched { release: release('7') };
    let stays = "the new release serves and stays; what is left to do goes on (`kiln wait` follows it)";
    is_left(serves, "all new requests go to r-777777777777", stays);
}

/// Somebody presses Ctrl-C after this event, which is shown so; what they are told.
fn is_left(event: Event, shown: &str, told: &str) {
    let place = place();
    let (noticed, notices) = channel();
    let noticed: Mutex<Sender<()>> = Mutex::new(noticed);
    let _host = place.host("a", move |_, events| {
        tell(events, event.clone());
        while !events.gone() {
            std::thread::yield_now();
        }
        noticed.lock().unwrap().send(()).unwrap();
        Ok(Answer::Done)
    });
    let mut process =
        place.process(&["deploy"]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), shown);
    let pid = rustix::process::Pid::from_child(&process);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(130));
    assert_eq!(lines.next().unwrap().unwrap(), told);
    notices.recv().unwrap();
}
