//! The control plane is killed, or its disk fails, on its way through commands that move no traffic: secrets, imports,
//! collections, commands inside instances. Nothing serves differently for it; what was asked for is done or not, the log
//! tells of what is done, and of nothing else.

use std::fs;
use std::process::Output;

use serde_json::Value;

use crate::boundaries::{is_at_rest, nothing_is_left_over, passed, remembered};
use crate::boundaries_beyond::through;
use crate::host::{TestHost, said};
use crate::project::Project;

fn is_long() -> bool {
    std::env::var_os("KILN_LONG").is_some()
}

/// Fates at the boundaries that something passes, but for those of a mere start: in the long form death and both failures of
/// the disk at each. Otherwise death before each act, for what was done before another act is done after it, too, and one
/// failure of the disk; of many of one kind in a row, as files that are named or removed are, only at a few.
fn fates(host: &mut TestHost, deed: impl FnOnce(&TestHost)) -> Vec<String> {
    const FEW: usize = 4;
    let of_start = passed(host, |_| {}).lines().count();
    let all = passed(host, deed);
    let all: Vec<&str> = all.lines().collect();
    assert!(all.len() >= of_start + 4, "it passes only {all:?}, of which {of_start} on the way to it");
    let (mut passed, mut fates) = (of_start, Vec::new());
    for run in all[of_start..].chunk_by(|a, b| kind(a) == kind(b)) {
        let numbers = passed + 1..=passed + run.len();
        let at = |fate: &'static str, step| numbers.clone().step_by(step).map(move |n| format!("{fate}:{n}"));
        if is_long() {
            fates.extend(["die", "refuse", "fill"].into_iter().flat_map(|fate| at(fate, 1)));
        } else {
            fates.extend(at("die", (run.len() / FEW).max(2)).chain(at("refuse", run.len())));
        }
        passed += run.len();
    }
    fates
}

/// Of a boundary that was counted: what is done there.
fn kind(line: &str) -> &str {
    line.split_once(' ').expect("a number, and what is done").1
}

/// What is so however a command has ended: what served serves, and everything is what the record says.
fn is_sound(host: &TestHost, (live, page): &(String, String), at: &str) {
    assert_eq!((&host.live(), &host.page()), (live, page), "at {at}");
    nothing_is_left_over(host, at);
    for command in [&["verify"][..], &["log", "--verify"]] {
        let output = host.kiln(command);
        assert!(output.status.success(), "at {at}: {command:?}:\n{}", said(&output));
    }
}

/// What a command said of itself is true.
fn is_true(output: &Output, is_done: bool, at: &str) {
    match output.status.code() {
        Some(0) => assert!(is_done, "at {at}: it was said to be done:\n{}", said(output)),
        code => assert_eq!(code, Some(9), "at {at}: {}", said(output)),
    }
}

/// How many entries of the log are called so and have this in them.
fn told(host: &TestHost, what: &str, mentions: &str) -> usize {
    let log = host.json(&["log", "-n", "1000"]);
    let is_meant = |e: &&Value| e["what"] == what && e.to_string().contains(mentions);
    log.as_array().expect("entries").iter().filter(is_meant).count()
}

fn serving(instances: usize) -> (TestHost, Project, (String, String)) {
    let (host, project) = (TestHost::start(), Project::example("hello"));
    project.edit("kiln.toml", "instances = 4", &format!("instances = {instances}"));
    project.edit("kiln.toml", "keep_warm = \"10m\"", "keep_warm = \"0s\"");
    let live = host.deploy(&project);
    let page = host.page();
    (host, project, (live, page))
}

/// The versions of the secret, the present one first.
fn versions(host: &TestHost) -> Vec<String> {
    let listed = host.json(&["secret", "list", "--app", "hello"]);
    let all = listed.as_array().expect("secrets").iter();
    all.map(|s| s["version"].as_str().expect("a version").to_owned()).collect()
}

#[test]
fn control_is_killed_at_boundaries_of_secrets() {
    let (mut host, project, before) = serving(1);
    let load = host.load();
    let set = |host: &TestHost, value: &str| {
        project.write("value", value);
        let file = format!("{}/value", project.dir());
        host.kiln(&["secret", "set", "API_KEY", "--file", &file, "--app", "hello"])
    };
    let done = |output: Output| assert!(output.status.success(), "{}", said(&output));
    done(set(&host, "the first"));
    let first = versions(&host);
    for fate in fates(&mut host, |host| done(set(host, "counted"))) {
        let known = versions(&host);
        let output = through(&mut host, &fate, |host| set(host, &fate));
        is_sound(&host, &before, &fate);
        let new: Vec<String> = versions(&host).into_iter().filter(|v| !known.contains(v)).collect();
        is_true(&output, !new.is_empty(), &fate);
        done(set(&host, &fate));
        let present = &versions(&host)[0];
        assert!(new.iter().all(|version| version == present), "at {fate}: {new:?}");
        assert_eq!(told(&host, "set secret API_KEY", present), 1, "at {fate}");
    }

    let remove = |host: &TestHost, version: &str| {
        host.kiln(&["secret", "rm", "API_KEY", "--version", version, "--app", "hello"])
    };
    for fate in fates(&mut host, |host| done(remove(host, &first[0]))) {
        done(set(&host, &format!("to go at {fate}")));
        let version = versions(&host)[0].clone();
        let output = through(&mut host, &fate, |host| remove(host, &version));
        is_sound(&host, &before, &fate);
        let is_gone = !versions(&host).contains(&version);
        is_true(&output, is_gone, &fate);
        assert_eq!(told(&host, "remove secret API_KEY", &version), usize::from(is_gone), "at {fate}");
        let again = remove(&host, &version);
        assert_eq!(again.status.code(), Some(if is_gone { 2 } else { 0 }), "at {fate}: {}", said(&again));
        assert!(!versions(&host).contains(&version), "at {fate}");
    }
    assert_eq!(load.stop().failures, []);
}

/// The releases that can be gone back to, each of which is there, and how many the store holds.
fn releases(host: &TestHost) -> (Vec<String>, usize) {
    let listed = host.json(&["releases"]);
    let id = |r: &Value| {
        let id = r["release"].as_str().unwrap().to_owned();
        host.json(&["releases", "show", &id]);
        id
    };
    let ids = listed.as_array().expect("releases").iter().map(id);
    let files = fs::read_dir(host.root.path().join("releases")).expect("releases").map(Result::unwrap);
    let documents = files.filter(|file| file.file_name().to_string_lossy().ends_with(".json"));
    (ids.collect(), documents.count())
}

#[test]
fn control_is_killed_at_boundaries_of_collections() {
    let (mut host, project, _) = serving(1);
    let deploy = |host: &TestHost, text: &str| {
        project.say(text);
        let live = host.deploy(&project);
        host.wait_until("what came before is gone", || is_at_rest(host));
        (live, host.page())
    };
    let gc = |host: &TestHost| host.kiln(&["gc", "--keep", "0"]);
    deploy(&host, "two");
    deploy(&host, "three");
    let load = host.load();
    for fate in fates(&mut host, |host| assert!(gc(host).status.success())) {
        let before = deploy(&host, &fate);
        let (listed, _) = releases(&host);
        let doomed = listed.last().expect("some").clone();
        assert_eq!(listed.len(), 3, "one may go: {listed:?}");
        let output = through(&mut host, &fate, gc);
        is_sound(&host, &before, &fate);
        let is_gone = !releases(&host).0.contains(&doomed);
        is_true(&output, is_gone, &fate);
        assert_eq!(told(&host, "collect", &doomed[..10]), usize::from(is_gone), "at {fate}");
        let again = gc(&host);
        assert!(again.status.success(), "at {fate}: {}", said(&again));
        let (listed, files) = releases(&host);
        assert_eq!((listed.len(), files), (2, 2), "at {fate}: {listed:?}");
        assert_eq!(told(&host, "collect", &doomed[..10]), 1, "at {fate}");
    }
    assert_eq!(load.stop().failures, []);
}

#[test]
fn control_is_killed_at_boundaries_of_imports() {
    let (mut host, project, _) = serving(1);
    let path = |name: &str| format!("{}/{name}", project.dir());
    let run = |host: &TestHost, arguments: &[&str]| {
        let output = host.kiln(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    };
    let keygen = std::process::Command::new("age-keygen").args(["-o", &path("identity")]).output().unwrap();
    let key = String::from_utf8(keygen.stderr).unwrap().trim().rsplit(' ').next().unwrap().to_owned();
    project.write("value", "open, sesame");
    run(&host, &["secret", "set", "API_KEY", "--file", &path("value"), "--app", "hello"]);
    project.edit("kiln.toml", "instances = 1", "instances = 1\nsecrets = [\"API_KEY\"]");
    let release = host.deploy(&project);
    run(&host, &["export", &release, "-o", &path("file"), "--secrets-to", &key]);
    project.edit("kiln.toml", "secrets = [\"API_KEY\"]", "");
    for text in ["two", "three"] {
        project.say(text);
        host.deploy(&project);
        host.wait_until("what came before is gone", || is_at_rest(&host));
    }
    let before = (host.live(), host.page());
    let forget = |host: &TestHost| {
        run(host, &["gc", "--keep", "0"]);
        if !versions(host).is_empty() {
            run(host, &["secret", "rm", "API_KEY", "--app", "hello"]);
        }
        assert!(!releases(host).0.contains(&release));
    };
    let (file, identity) = (path("file"), path("identity"));
    let import = |host: &TestHost| host.kiln(&["import", &file, "--identity", &identity]);
    forget(&host);
    let load = host.load();
    for fate in fates(&mut host, |host| assert!(import(host).status.success())) {
        forget(&host);
        let (imports, sets) = (told(&host, "import", &release), told(&host, "set secret API_KEY", "s-"));
        let output = through(&mut host, &fate, import);
        is_sound(&host, &before, &fate);
        let is_there = releases(&host).0.contains(&release);
        is_true(&output, is_there, &fate);
        assert_eq!(told(&host, "import", &release) - imports, usize::from(is_there), "at {fate}");
        let kept = versions(&host).len();
        assert!(!is_there || kept == 1, "at {fate}: a release without its secret");
        assert_eq!(told(&host, "set secret API_KEY", "s-") - sets, kept, "at {fate}");
        let again = import(&host);
        assert!(again.status.success(), "at {fate}: {}", said(&again));
        assert!(releases(&host).0.contains(&release) && versions(&host).len() == 1, "at {fate}");
    }
    assert_eq!(load.stop().failures, []);
    run(&host, &["rollback", &release]);
    assert_eq!(host.live(), release);
}

/// Whoever has had a command run in him is replaced, and the log says by whom he was touched; nobody else is.
#[test]
fn control_is_killed_at_boundaries_of_commands_inside() {
    let (mut host, _project, before) = serving(2);
    let load = host.load();
    let ids = |host: &TestHost| -> Vec<String> {
        let now = host.json(&["instances"]);
        now.as_array().unwrap().iter().map(|i| i["id"].as_str().unwrap().to_owned()).collect()
    };
    let touch =
        |host: &TestHost, id: &str| host.kiln(&["exec", id, "--", "sh", "-c", "hostname > /tmp/been-here"]);
    let is_replaced = |host: &TestHost, id: &str| ids(host).iter().all(|i| i != id) && is_at_rest(host);
    let fates = fates(&mut host, |host| {
        let id = ids(host)[0].clone();
        assert!(touch(host, &id).status.success());
        host.wait_until("he is gone", || !remembered(host).contains(&id));
    });
    for fate in fates {
        let id = ids(&host)[0].clone();
        let output = through(&mut host, &fate, |host| {
            let output = touch(host, &id);
            // All that follows from it is on the way to the boundary, too.
            host.wait_until("he is gone, or that came to nothing", || {
                let is_alive = host.kiln(&["status"]).status.success();
                !is_alive || !output.status.success() || !remembered(host).contains(&id)
            });
            output
        });
        let is_told = told(&host, "exec", &id) > 0;
        is_true(&output, is_told, &fate);
        if is_told {
            host.wait_until("he is replaced", || is_replaced(&host, &id));
        } else {
            let diff = host.json(&["diff", &id]).to_string();
            assert!(!diff.contains("been-here"), "at {fate}: nobody knows who was there: {diff}");
        }
        assert_eq!(ids(&host).len(), 2, "at {fate}");
        is_sound(&host, &before, &fate);
        let again = ids(&host)[0].clone();
        let output = touch(&host, &again);
        assert!(output.status.success(), "at {fate}: {}", said(&output));
        host.wait_until("he is replaced", || is_replaced(&host, &again));
    }
    assert_eq!(load.stop().failures, []);
}
