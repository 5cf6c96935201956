//! Which host is asked, and what is said when it is not there.

use insta::assert_snapshot;
use kiln_model::{Answer, ExitCode, Failure};

use crate::harness::Place;

#[test]
fn no_host_runs() {
    let place = Place::new();
    assert_snapshot!(place.kiln(&["status"]), @r"
        status: 9
        --- stderr
        error: no Kiln host is running here
        hint: start one with `kiln up` (this app, in the foreground) or `kiln serve`
        ");
    assert_snapshot!(place.kiln(&["status", "--json"]), @r#"
        status: 9
        --- stdout
        {"failure":{"causes":[],"code":"host","hint":"start one with `kiln up` (this app, in the foreground) or `kiln serve`","message":"no Kiln host is running here"}}
        --- stderr
        error: no Kiln host is running here
        hint: start one with `kiln up` (this app, in the foreground) or `kiln serve`
        "#);
    assert_snapshot!(place.kiln(&["status", "--host", "/nowhere/control.sock"]), @r"
        status: 9
        --- stderr
        error: no Kiln host is running at `/nowhere/control.sock`
        hint: name the socket, state directory or address of one that runs, or start it
        ");
}

#[test]
fn with_several_hosts_one_must_be_named() {
    let place = Place::new();
    let _a = place.host("a", |_, _| Ok(Answer::Log(vec![])));
    let bb = place.host("bb", |_, _| Ok(Answer::Log(vec![])));
    assert_snapshot!(place.kiln(&["log"]), @r"
        status: 9
        --- stderr
        error: 2 Kiln hosts run here
          because: pid 2 on 127.0.0.1:8001, state in [DIR]/a, socket [DIR]/a/run/control.sock
          because: pid 3 on 127.0.0.1:8002, state in [DIR]/bb, socket [DIR]/bb/run/control.sock
        hint: choose one with `--host` or KILN_HOST: its socket, state directory or address
        ");
    assert_snapshot!(place.kiln(&["log", "--host", "127.0.0.1:8001"]), @r"
        status: 0
        --- stdout
        nothing has been done yet
        ");
    let named = place.process(&["log"]).env("KILN_HOST", &bb.socket).output().unwrap();
    assert_snapshot!(place.told(&named), @r"
        status: 0
        --- stdout
        nothing has been done yet
        ");
}

#[test]
fn a_host_that_leaves_in_the_middle() {
    let place = Place::new();
    let _host = place.host("a", |_, _| panic!("as a test asks for"));
    let told = place.kiln(&["log"]);
    assert!(
        told.starts_with("status: 1\n--- stderr\nerror: the host broke off while it ran the command"),
        "{told}"
    );
}

#[test]
fn a_host_of_another_kind() {
    let place = Place::new();
    let _host = place.host("a", |_, _| Ok(Answer::Done));
    assert_snapshot!(place.kiln(&["status"]), @r#"
        status: 1
        --- stderr
        error: the host answered something else than it was asked
          because: {"answer":"done"}
        hint: is the host of another version than this command? `kiln --version` tells this one's
        "#);
}

/// What a host has failed at is not done by looking at another store.
#[test]
fn a_host_that_cannot_verify_is_believed() {
    let place = Place::new();
    let failure =
        || Failure::new(ExitCode::Host, "could not read objects/ab/cd").because("Input/output error");
    let host = place.host("a", move |_, _| Err(failure()));
    std::fs::create_dir(place.path().join("other")).unwrap();
    place.write("other/version", "1\n");
    let socket = host.socket.to_str().unwrap();
    assert_snapshot!(place.kiln(&["verify", "--host", socket, "--root", "other"]), @r"
    status: 9
    --- stderr
    error: could not read objects/ab/cd
      because: Input/output error
    ");
}
