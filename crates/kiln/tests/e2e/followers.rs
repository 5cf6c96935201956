//! Whoever asked for something may die; what somebody else follows goes on, unless it is not wanted any more.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::hooks::begin;
use crate::host::{TestHost, said};
use crate::project::Project;

/// Somebody who follows what is under way.
fn follow(host: &TestHost) -> Child {
    let mut command = host.command(&["wait", "--app", "hello"]);
    let mut follower = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let told = BufReader::new(follower.stderr.as_mut().unwrap()).lines().map_while(Result::ok);
    assert!({ told }.any(|line| line.contains("is under way")), "they follow it");
    follower
}

fn kill(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Long enough for the host to see that somebody has gone, and to draw consequences that there must not be.
fn look_again_and_again(host: &TestHost) {
    for _ in 0..15 {
        assert!(said(&host.kiln(&["status"])).contains("trap"), "the hook is still waited for");
    }
}

#[test]
fn what_somebody_follows_goes_on_when_whoever_asked_dies() {
    let host = TestHost::start();
    let good = host.deploy(&Project::example("hello"));

    // Somebody follows it: it goes on, and they are told how it ends.
    let (_project, mut deploy, hook) = begin(&host, "followed", "before");
    let (follower, another) = (follow(&host), follow(&host));
    kill(&deploy, Signal::KILL);
    deploy.wait().unwrap();
    look_again_and_again(&host);
    // Who only follows gives nothing up by leaving, be it the last one.
    kill(&another, Signal::INT);
    another.wait_with_output().unwrap();
    look_again_and_again(&host);
    kill_process(hook, Signal::TERM).unwrap();
    let told = follower.wait_with_output().unwrap();
    assert!(told.status.success() && said(&told).contains("is done"), "{}", said(&told));
    assert!(host.page().contains("followed"));
    let served = host.live();
    assert_ne!(served, good);

    // A terminal that is lost says nothing either.
    let (_project, mut deploy, hook) = begin(&host, "lost", "before");
    let follower = follow(&host);
    kill(&deploy, Signal::HUP);
    deploy.wait().unwrap();
    look_again_and_again(&host);
    // Whoever says that it is not wanted gives it up all the same.
    let given_up = host.json(&["cancel", "--app", "hello"]);
    assert_eq!(given_up["cancelled"], "deploy");
    assert_eq!(follower.wait_with_output().unwrap().status.code(), Some(6));
    host.wait_until("its hook is ended", || rustix::process::test_kill_process(hook).is_err());

    // So does a Ctrl-C.
    let (_project, deploy, hook) = begin(&host, "unwanted", "before");
    let follower = follow(&host);
    kill(&deploy, Signal::INT);
    assert_eq!(deploy.wait_with_output().unwrap().status.code(), Some(130));
    let told = follower.wait_with_output().unwrap();
    assert_eq!(told.status.code(), Some(6), "{}", said(&told));
    assert!(said(&told).contains("cancelled by whoever asked for it"), "{}", said(&told));
    host.wait_until("its hook is ended", || rustix::process::test_kill_process(hook).is_err());

    // Nobody follows it: it goes.
    let (_project, mut deploy, hook) = begin(&host, "alone", "before");
    kill(&deploy, Signal::KILL);
    deploy.wait().unwrap();
    host.wait_until("its hook is ended", || rustix::process::test_kill_process(hook).is_err());
    host.wait_until("it is given up", || said(&host.kiln(&["log"])).contains("nobody else waits for it"));
    assert_eq!(host.live(), served);
}
