//! Two releases that serve at the same time: who gets which, and what is seen of them.

use std::collections::BTreeSet;

use kiln_edge::{EdgeSettings, Limits};
use kiln_model::{Audience, EdgeCanary, EdgeFleet, EdgeRoute, Evidence, RouteTable, Share};

use crate::harness::{Edge, fleet_id, route};
use crate::instance::{Instance, ok};
use crate::wire::{Client, Message};

fn at(audience: Audience, route: EdgeRoute) -> EdgeRoute {
    EdgeRoute { audience, ..route }
}

/// What serves is fleet 1, the canary fleet 2.
fn canary(edge: &Edge, share: u32, preview: bool, fleets: &[EdgeFleet]) {
    let routes = vec![
        at(Audience::NotAt(0), route(None, "/", &[(&fleet_id(1), 1)])),
        at(Audience::At(0), route(None, "/", &[(&fleet_id(2), 1)])),
    ];
    table(edge, share, preview, routes, fleets);
}

fn table(edge: &Edge, share: u32, preview: bool, routes: Vec<EdgeRoute>, fleets: &[EdgeFleet]) {
    let release = format!("r-{}", "ab".repeat(16)).parse().unwrap();
    let canaries = vec![EdgeCanary { release, share: Share(share), preview }];
    edge.set_table(RouteTable { routes, canaries, fleets: fleets.to_vec(), ..RouteTable::default() });
}

fn ask(client: &mut Client, head: &str) -> Message {
    client.send(format!("GET / HTTP/1.1\r\nHost: example.com\r\n{head}\r\n")).read()
}

/// A user who has been there before.
fn known(client: &mut Client, number: u64) -> Message {
    ask(client, &format!("Cookie: a=b; kiln-user={number:016x}\r\n"))
}

fn evidence(edge: &Edge, generation: u64) -> Evidence {
    let (_, seen) = edge.client.evidence(&[fleet_id(generation)]).unwrap();
    seen.into_iter().next().map(|e| e.evidence).unwrap_or_default()
}

fn old_and_new() -> (Edge, Vec<EdgeFleet>, [Instance; 2]) {
    let instances = [Instance::saying("old"), Instance::saying("new")];
    let edge = Edge::start();
    let fleets = vec![edge.fleet(1, &[&instances[0]]), edge.fleet(2, &[&instances[1]])];
    (edge, fleets, instances)
}

#[test]
fn a_user_stays_where_he_is_while_the_share_grows() {
    let (edge, fleets, _instances) = old_and_new();
    let mut client = edge.connect();
    let mut before = BTreeSet::new();
    for (share, between) in [(500, 5..50), (2_500, 70..130), (5_000, 160..240)] {
        canary(&edge, share, false, &fleets);
        // Over connections of their own, so that they are at both threads.
        let at_new = |number: &u64| known(&mut edge.connect(), *number).text() == "new";
        let now: BTreeSet<u64> = (0..400).filter(at_new).collect();
        assert!(between.contains(&now.len()), "{} of 400 at {share}", now.len());
        assert!(before.is_subset(&now), "somebody went back");
        assert!(now.iter().all(|number| known(&mut client, *number).text() == "new"), "somebody changed");
        before = now;
    }
}

#[test]
fn who_is_new_is_given_a_number_and_kept_by_it() {
    let (edge, fleets, _instances) = old_and_new();
    edge.set(vec![route(None, "/", &[(&fleet_id(1), 1)])], fleets.clone());
    assert_eq!(
        ask(&mut edge.connect(), "").header("set-cookie"),
        None,
        "as long as there is nothing to choose"
    );
    canary(&edge, 5_000, false, &fleets);
    let mut seen = BTreeSet::new();
    for _ in 0..40 {
        let mut client = edge.connect();
        let first = ask(&mut client, "");
        let cookie = first.header("set-cookie").expect("a number");
        assert!(cookie.contains("; Path=/; ") && cookie.contains("HttpOnly") && !cookie.contains("Secure"));
        let cookie = cookie.split(';').next().unwrap();
        let again = ask(&mut client, &format!("Cookie: {cookie}\r\n"));
        assert_eq!((again.text(), again.header("set-cookie")), (first.text(), None));
        seen.insert(first.text().to_owned());
    }
    assert_eq!(seen.len(), 2, "chance has two sides");
}

/// Whatever other cookies hold, on every way through the edge.
#[test]
fn a_user_is_known_among_cookies_of_any_kind() {
    let (edge, fleets, _instances) = old_and_new();
    canary(&edge, 5000, false, &fleets);
    let chunked = "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    for (number, way) in (0..20).flat_map(|number| [(number, "\r\n"), (number, chunked)]) {
        let expected = known(&mut edge.connect(), number).text().to_owned();
        let method = if way == chunked { "POST" } else { "GET" };
        for others in ["n=Jürgen; a=b", "kiln-user=zz; kiln-user=; x"] {
            let start = format!("{method} / HTTP/1.1\r\nHost: a\r\nCookie: ");
            let user = format!("; kiln-user={number:016x}\r\n{way}");
            let mut client = edge.connect();
            let answer = client.send(format!("{start}{others}{user}")).read();
            assert_eq!((answer.text(), answer.header("set-cookie")), (expected.as_str(), None), "{others:?}");
        }
    }
}

#[test]
fn who_asks_for_a_preview_gets_it_and_is_no_evidence() {
    let (edge, fleets, _instances) = old_and_new();
    let preview = "X-Kiln-Preview: 1\r\n";
    let by_host = |edge: &Edge| {
        edge.connect().send("GET / HTTP/1.1\r\nHost: preview.example.com\r\n\r\n").read().text().to_owned()
    };
    canary(&edge, 0, false, &fleets);
    assert_eq!(
        (ask(&mut edge.connect(), preview).text(), &*by_host(&edge)),
        ("old", "old"),
        "none is offered"
    );
    canary(&edge, 0, true, &fleets);
    assert_eq!((ask(&mut edge.connect(), preview).text(), &*by_host(&edge)), ("new", "new"));
    assert_eq!(ask(&mut edge.connect(), "X-Kiln-Preview: 0\r\n").text(), "old");
    assert_eq!(ask(&mut edge.connect(), "").text(), "old");
    assert_eq!(evidence(&edge, 2).requests, 0);
    // Somebody who has a host of that name keeps it.
    let routes = vec![
        at(Audience::NotAt(0), route(None, "/", &[(&fleet_id(1), 1)])),
        at(Audience::At(0), route(None, "/", &[(&fleet_id(2), 1)])),
        route(Some("preview.example.com"), "/", &[(&fleet_id(1), 1)]),
    ];
    table(&edge, 0, true, routes, &fleets);
    assert_eq!(by_host(&edge), "old");
}

/// Routes are part of a release: what only the new one has is there for its users alone.
#[test]
fn each_user_has_the_routes_of_his_release() {
    let (edge, fleets, _instances) = old_and_new();
    let routes = vec![
        at(Audience::NotAt(0), route(None, "/gone", &[(&fleet_id(1), 1)])),
        at(Audience::At(0), route(None, "/come", &[(&fleet_id(2), 1)])),
    ];
    table(&edge, 5_000, true, routes, &fleets);
    let get = |path: &str, preview: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Kiln-Preview: {preview}\r\n\r\n");
        edge.connect().send(request).read().status()
    };
    assert_eq!((get("/gone", "1"), get("/come", "1")), (404, 200));
    let mut sides = BTreeSet::new();
    for n in 0..40_u64 {
        let one = |path: &str| {
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nCookie: kiln-user={n:016x}\r\n\r\n");
            edge.connect().send(request).read().status()
        };
        let (gone, come) = (one("/gone"), one("/come"));
        assert!(matches!((gone, come), (200, 404) | (404, 200)), "user {n}: {gone} {come}");
        sides.insert(gone);
    }
    assert_eq!(sides.len(), 2);
}

/// Keeps whoever waits for an answer waiting.
fn hang(span: std::time::Duration) {
    let begun = std::time::Instant::now();
    while let Some(left) = span.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

#[test]
fn what_is_seen_is_what_went_wrong_and_how_long_it_took() {
    let good = Instance::saying("old");
    let bad = Instance::new(|request, connection| {
        match request.header("x-do").unwrap_or_default() {
            "fail" => drop(connection.send("HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n")),
            "break" => drop(connection.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")),
            "hang" => hang(std::time::Duration::from_millis(300)),
            "missing" => drop(connection.send("HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n")),
            _ => drop(connection.send(ok("new"))),
        }
        request.header("x-do") != Some("break") && request.header("x-do") != Some("hang")
    });
    let edge = Edge::with_settings(Limits::default(), 1, EdgeSettings::default());
    let fleets = [edge.fleet(1, &[&good]), edge.fleet(2, &[&bad])];
    canary(&edge, 9_999, false, &fleets);
    // With this share and the numbers below 20, nobody is at the old one.
    let post = |what: &str| {
        let mut client = edge.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nCookie: kiln-user={:016x}\r\nX-Do: {what}\r\nContent-Length: 0\r\n\r\n", 7));
        client.try_read().map(|answer| answer.status())
    };
    assert_eq!(post("well"), Some(200));
    assert_eq!(post("missing"), Some(404), "what a client asks in vain is no failure");
    assert_eq!(post("fail"), Some(503));
    assert_eq!(post("break"), None);
    assert_eq!(post("hang"), Some(502), "not answered");
    edge.client.wait_drained(&[fleet_id(2)], std::time::Duration::from_secs(10)).unwrap();
    let seen = evidence(&edge, 2);
    assert_eq!((seen.requests, seen.failed), (5, 3));
    assert!(
        seen.millis(1.0) >= 300.0 && seen.millis(0.5) < 300.0,
        "{} {}",
        seen.millis(0.5),
        seen.millis(1.0)
    );
}

#[test]
fn a_canary_nobody_can_reach_costs_nobody_an_answer_and_counts_against_it() {
    let (old, dead) = (Instance::saying("old"), Instance::refusing());
    let edge = Edge::start();
    let fleets = [edge.fleet(1, &[&old]), edge.fleet(2, &[&dead])];
    canary(&edge, 5_000, false, &fleets);
    for number in 0..60 {
        let answer = known(&mut edge.connect(), number);
        assert_eq!((answer.status(), answer.text()), (200, "old"));
    }
    let seen = evidence(&edge, 2);
    assert!(seen.requests > 5 && seen.failed == seen.requests, "{} {}", seen.requests, seen.failed);
    assert_eq!(evidence(&edge, 1).failed, 0);
    // Nor does one that has no instance at all.
    let none = EdgeFleet { instances: vec![], ..fleets[1].clone() };
    canary(&edge, 5_000, false, &[fleets[0].clone(), none]);
    assert!((0..20).all(|number| known(&mut edge.connect(), number).status() == 200));
}

/// A request that has to be asked again elsewhere is still one request.
#[test]
fn a_request_counts_once_against_a_canary_however_often_it_is_asked_again() {
    let (old, dead) = (Instance::saying("old"), Instance::refusing());
    let edge = Edge::with_settings(Limits::default(), 1, EdgeSettings::default());
    let fleets = [edge.fleet(1, &[&dead, &dead, &old]), edge.fleet(2, &[])];
    canary(&edge, 9_999, false, &fleets);
    assert!((0..20).all(|number| known(&mut edge.connect(), number).text() == "old"));
    let seen = evidence(&edge, 2);
    assert_eq!((seen.requests, seen.failed), (20, 20));
    assert!(edge.client.metrics().unwrap().lines().any(|line| {
        line.strip_prefix("kiln_edge_retries_total ").is_some_and(|n| n.parse::<u32>().unwrap() > 0)
    }));
}
