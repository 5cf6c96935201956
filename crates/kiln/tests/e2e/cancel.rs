//! Giving up a deploy, from another terminal.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::host::{TestHost, said};
use crate::project::Project;

#[test]
fn a_deploy_can_be_cancelled_by_somebody_else() {
    let (host, project) = (TestHost::start(), Project::example("hello"));
    let nothing = host.kiln(&["cancel", "--app", "hello"]);
    assert_eq!(nothing.status.code(), Some(2), "{}", said(&nothing));
    let release = host.deploy(&project);
    let nothing = host.kiln(&["cancel", "--app", "hello"]);
    assert_eq!(nothing.status.code(), Some(2), "{}", said(&nothing));
    assert!(said(&nothing).contains("kiln rollback"), "{}", said(&nothing));
    // It runs, and never becomes healthy.
    project.say("never seen");
    project.edit("kiln.toml", "health    = { http = \"/\"", "health    = { http = \"/not-there\"");
    let deploy = host.command(&["deploy", project.dir()]);
    let mut deploy =
        { deploy }.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    host.wait_until("the deploy waits", || {
        host.json(&["status"])["waiting"].as_array().is_some_and(|w| !w.is_empty())
    });
    let given_up = host.json(&["cancel", "--app", "hello"]);
    assert_eq!((&given_up["app"], &given_up["cancelled"]), (&"hello".into(), &"deploy".into()), "{given_up}");
    assert_eq!(deploy.wait().unwrap().code(), Some(6));
    assert_eq!(host.live(), release);
    assert_eq!(
        host.json(&["instances"])
            .as_array()
            .unwrap()
            .iter()
            .filter(|i| i["release"] != release.as_str())
            .count(),
        0
    );
}

/// What is said to be given up does not serve, and what serves is not said to be given up, at whatever moment that is asked.
#[test]
fn what_is_given_up_at_any_moment_does_not_serve() {
    let host = TestHost::start();
    let project = Project::example("hello");
    host.deploy(&project);
    let (mut given_up, mut served) = (0, 0);
    for n in 0..16 {
        let before = host.live();
        project.edit_line(
            "kiln.toml",
            "port      = 8080",
            &format!("port      = 8080\nenv       = {{ X = \"{n}\" }}"),
        );
        let mut deploy = host.command(&["deploy", project.dir()]);
        let deploy = deploy.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        host.wait_until("some time has passed", || begun.elapsed() >= Duration::from_millis(8 * n));
        let cancelled = host.kiln(&["cancel", "--app", "hello"]);
        let deployed = deploy.wait_with_output().unwrap();
        let told = (cancelled.status.code(), deployed.status.code());
        match told {
            (Some(0), Some(6)) => given_up += 1,
            (Some(2), Some(0)) => served += 1,
            _ => panic!("{told:?}: {}{}", said(&cancelled), said(&deployed)),
        }
        assert_eq!(host.live() == before, told.1 == Some(6), "{}", said(&deployed));
        project.edit_line("kiln.toml", "env       = ", "");
    }
    assert!(given_up > 0, "{given_up} were given up, {served} served");
}
