//! Releases as atoms: the same inputs, the same id; what differs is told.

use crate::host::TestHost;
use crate::project::Project;

/// Two state directories, two project directories, one baked by itself: one id.
#[test]
fn two_machines_with_the_same_inputs_make_the_same_release() {
    let (one, other) = (TestHost::start(), TestHost::start());
    let (here, there) = (Project::example("hello"), Project::example("hello"));
    here.say("the same");
    there.say("the same");
    assert_ne!((here.dir(), one.root.path()), (there.dir(), other.root.path()));
    let first = one.deploy(&here);
    assert_eq!(other.deploy(&there), first);
    assert_eq!(one.json(&["releases", "show", &first])["document"]["format"], 2);
    there.say("another");
    assert_ne!(other.deploy(&there), first);
}

#[test]
fn what_a_release_is_and_what_differs_is_told() {
    let host = TestHost::start();
    let project = Project::example("hello");
    let first = host.deploy(&project);
    let shown = host.json(&["releases", "show", &first[..8]]);
    assert_eq!((&shown["release"], &shown["state"]), (&first.as_str().into(), &"live".into()));
    let web = &shown["document"]["services"]["web"];
    assert!(!web["checks"].as_array().unwrap().is_empty(), "the checks it passed are part of it: {shown}");
    let packages = shown["images"]["web"]["packages"].as_array().unwrap();
    assert!(packages.iter().any(|p| p["name"] == "nginx-light"), "{shown}");

    project.say("differently");
    project.edit("kiln.toml", "instances = 4", "instances = 2");
    let second = host.deploy(&project);
    let diff = host.json(&["releases", "diff", &first, &second]);
    let parts: Vec<(&str, &str)> = diff["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| (d["part"].as_str().unwrap(), d["name"].as_str().unwrap()))
        .collect();
    assert_eq!(parts, [("image", ""), ("file", "/srv/www/index.html"), ("instances", "")], "{diff}");
    let words = String::from_utf8(host.kiln(&["releases", "diff", &first, &second]).stdout).unwrap();
    assert!(words.contains("service web: instances 4 → 2"), "{words}");
    let unknown = host.kiln(&["releases", "show", "r-ffffffff"]);
    assert_eq!(unknown.status.code(), Some(2));
}

#[test]
fn requests_at_fleets_that_are_gone_are_still_counted() {
    let host = TestHost::start();
    let project = Project::example("hello");
    project.edit("kiln.toml", "keep_warm = \"10m\"", "keep_warm = \"0s\"");
    host.deploy(&project);
    (0..20).for_each(|_| drop(host.page()));
    project.say("later");
    let later = host.deploy(&project);
    host.wait_until("the first fleet is gone", || {
        host.json(&["instances"]).as_array().unwrap().iter().all(|i| i["release"] == later.as_str())
    });
    drop(host.page());
    let status = host.json(&["status"]);
    assert_eq!((&status["requests"], &status["failed_requests"]), (&21.into(), &0.into()), "{status}");
}
