//! The control plane is killed at the places it passes on its way through rollbacks, canaries and hooks.

use std::process::Output;

use serde_json::Value;

use crate::boundaries::{chosen, is_at_rest, is_over, is_true, nothing_is_left_over, passed};
use crate::hooks::written;
use crate::host::TestHost;
use crate::project::Project;

/// Does something while control meets its fate at a boundary; then another one brings everything to rest.
pub(crate) fn through(host: &mut TestHost, fate: &str, deed: impl FnOnce(&TestHost) -> Output) -> Output {
    host.kill_control();
    host.restart_control_until(fate);
    let output = deed(host);
    host.wait_until("it is dead, or all is done", || is_over(host));
    host.kill_control();
    host.restart_control();
    host.wait_until("everything is at rest", || is_at_rest(host));
    output
}

/// The same at several of the boundaries that were `passed`, under load. `ask` is given what `prepare` has found or made
/// while control was well. `came_about` looks at what serves, and says whether it is what was asked for: what was asked is
/// answered as it is then, and nobody's request fails.
fn at_boundaries<T>(
    host: &mut TestHost,
    (passed, sample): (&str, usize),
    prepare: impl Fn(&TestHost, usize) -> T,
    ask: impl Fn(&TestHost, &T) -> Output,
    came_about: impl Fn(&TestHost, &str, &T) -> bool,
) {
    let load = host.load();
    for n in chosen(passed.lines().count(), sample) {
        let (before, asked) = (host.live(), prepare(host, n));
        let output = through(host, &format!("die:{n}"), |host| ask(host, &asked));
        let is_new = came_about(host, &before, &asked);
        is_true(&output, is_new, &n.to_string());
        nothing_is_left_over(host, &n.to_string());
    }
    assert_eq!(load.stop().failures, []);
}

fn page(n: usize) -> String {
    format!("<h1>hello release {n}</h1>\n")
}

/// Back to a release whose fleet is gone: it comes from the store, and serves as a whole or not at all.
#[test]
fn control_is_killed_at_boundaries_of_rollbacks() {
    let (mut host, project) = (TestHost::start(), Project::example("hello"));
    let deploy = |n: usize| {
        project.say(&format!("release {n}"));
        host.deploy(&project)
    };
    let releases = [0, 1, 2].map(deploy);
    let place = |release: &Value| releases.iter().position(|r| *release == r.as_str()).expect("one of three");
    // Neither serves nor is warm.
    let cold = |host: &TestHost| {
        let status = host.json(&["status"]);
        3 - place(&status["live"]) - place(&status["previous"])
    };
    let back = |host: &TestHost, to: usize| host.kiln(&["rollback", &releases[to]]);
    let to = cold(&host);
    let all = passed(&mut host, |host| assert!(back(host, to).status.success()));
    assert!(all.contains(" create") && all.contains(" table"), "{all}");
    let ask = |host: &TestHost, to: &usize| back(host, *to);
    at_boundaries(
        &mut host,
        (&all, 6),
        |host, _| cold(host),
        ask,
        |host, before, to| {
            let live = host.live();
            let is_new = live == releases[*to];
            assert!(is_new || live == before, "back to {to}: {live} serves");
            assert_eq!(host.page(), page(place(&live.into())), "back to {to}");
            is_new
        },
    );
}

/// A canary whose control plane dies goes on or is given up; nobody's request fails, and in the end one release serves.
#[test]
fn control_is_killed_at_boundaries_of_canaries() {
    let (mut host, project) = (TestHost::start(), Project::example("hello"));
    host.deploy(&project);
    let canary = r#"strategy  = { canary = ["50%"], hold = "300ms", within = "2s" }"#;
    project.edit("kiln.toml", "strategy  = \"blue-green\"", canary);
    let load = host.load();
    project.say("to be counted");
    let all = passed(&mut host, |host| {
        host.deploy(&project);
    });
    assert_eq!(load.stop().failures, []);
    let say = |_: &TestHost, n| {
        let text = format!("canary {n}");
        project.say(&text);
        text
    };
    let ask = |host: &TestHost, _: &String| host.kiln(&["deploy", project.dir()]);
    at_boundaries(&mut host, (&all, 4), say, ask, |host, before, text| {
        let is_new = host.live() != before;
        assert_eq!(host.page().contains(&format!("{text}<")), is_new, "{text}: {}", host.page());
        is_new
    });
}

/// Each hook is run once for a deploy that serves in the end, and those `after` for no other.
#[test]
fn control_is_killed_at_boundaries_of_hooks() {
    let (mut host, project) = (TestHost::start(), Project::example("hello"));
    host.deploy(&project);
    project.append("kiln.toml", "\n[service.web.hooks]\nbefore = []\nafter = []\n");
    let hooked = |token: &str| {
        project.say(token);
        for moment in ["before", "after"] {
            let hook = format!("{moment} = [{{ run = [\"/bin/echo\", \"{moment} {token}\"] }}]");
            project.edit_line("kiln.toml", &format!("{moment} ="), &hook);
        }
    };
    hooked("counted");
    let all = passed(&mut host, |host| {
        host.deploy(&project);
    });
    let hook = |_: &TestHost, n| {
        let token = format!("at {n}");
        hooked(&token);
        token
    };
    let ask = |host: &TestHost, _: &String| host.kiln(&["deploy", project.dir()]);
    at_boundaries(&mut host, (&all, 4), hook, ask, |host, before, token| {
        let is_new = host.live() != before;
        let lines = written(host);
        let ran = |moment: &str| lines.iter().filter(|l| l["line"] == format!("{moment} {token}")).count();
        if is_new {
            assert_eq!((ran("before"), ran("after")), (1, 1), "{token}: {lines:?}");
        } else {
            assert!(ran("before") <= 1 && ran("after") == 0, "{token}: {lines:?}");
        }
        is_new
    });
}
