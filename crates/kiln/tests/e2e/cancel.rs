//! Giving up a deploy, from another terminal.

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
