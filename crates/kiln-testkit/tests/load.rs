//! The load generator against services whose faults are known.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use kiln_testkit::load::{Load, LoadPlan, LoadReport, Marker};

/// A service that answers its n-th request (counted from 0, over all connections) with `answer(n)` and closes the
/// connection after an answer that does not end it properly.
fn service(answer: impl Fn(u64) -> String + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (answer, count) = (Arc::new(answer), Arc::<AtomicU64>::default());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (answer, count) = (answer.clone(), count.clone());
            thread::spawn(move || {
                let mut stream = BufReader::new(stream.unwrap());
                stream.get_ref().set_nodelay(true).unwrap();
                let (mut line, mut keeps) = (String::new(), true);
                while keeps && stream.read_line(&mut line).is_ok_and(|n| n > 0) {
                    if line == "\r\n" {
                        let answer = answer(count.fetch_add(1, SeqCst));
                        keeps = !answer.contains("close") && !answer.contains("short");
                        stream.get_mut().write_all(answer.as_bytes()).unwrap();
                    }
                    line.clear();
                }
            });
        }
    });
    address
}

fn ok(words: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nX-Release: r-{words}\r\nContent-Length: {}\r\n\r\n{words}", words.len())
}

fn run(plan: LoadPlan, until: u64) -> LoadReport {
    let load = Load::start(plan);
    assert!(load.wait_for(until, Duration::from_secs(60)));
    load.stop()
}

#[test]
fn every_good_request_is_counted_by_who_answered() {
    let address = service(|n| ok(if n % 4 == 0 { "blue" } else { "green" }));
    let report = run(LoadPlan::of(address), 400);
    assert!(report.failures.is_empty(), "{report}");
    assert_eq!(report.by_marker.values().sum::<u64>(), report.requests);
    assert_eq!(report.by_marker.keys().collect::<Vec<_>>(), ["blue", "green"]);
    assert!(report.p50 <= report.p99 && report.p99 <= report.max && report.p50 > Duration::ZERO);
    let plan = LoadPlan { marker: Marker::Header("x-release".into()), ..LoadPlan::of(address) };
    assert!(run(plan, 50).by_marker.contains_key("r-green"));
}

#[test]
fn every_kind_of_failure_is_seen() {
    for (answer, seen) in [
        ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy", "answered 503: busy"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "closed before the end of the body"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
            "closed before the end of the body",
        ),
        ("HTTP/1.1 200 OK\r\nshort", "closed before the end of the head"),
        ("SSH-2.0 close\r\n\r\n", "not an answer"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi!", "longer"),
    ] {
        let address = service(move |n| if n % 3 == 2 { answer.into() } else { ok("good") });
        let report = run(LoadPlan::of(address), 60);
        assert!(!report.failures.is_empty(), "{seen}");
        assert!(report.failures.iter().all(|f| f.what.contains(seen)), "{seen}: {report}");
        assert!(report.succeeded > 0);
    }
}

#[test]
fn nobody_there_is_a_failure_and_not_a_panic() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let report = run(LoadPlan::of(address), 20);
    assert_eq!(report.succeeded, 0);
    assert!(report.failures[0].what.contains("connecting"), "{report}");
}

#[test]
fn a_service_that_hangs_times_out_and_the_load_still_ends() {
    let address = service(|_| String::new());
    let plan = LoadPlan { timeout: Duration::from_millis(50), ..LoadPlan::of(address) };
    let report = run(plan, 20);
    assert_eq!(report.succeeded, 0);
    assert!(report.failures.iter().any(|f| f.what.contains("no whole answer within")), "{report}");
}

#[test]
fn a_connection_closed_as_announced_is_no_failure() {
    let close = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    let address = service(move |_| close.into());
    let report = run(LoadPlan::of(address), 200);
    assert!(report.failures.is_empty(), "{report}");
}

#[test]
fn two_thousand_requests_a_second_are_begun_on_time() {
    let address = service(|_| ok("hi"));
    let plan = LoadPlan { requests_per_s: 2000, new_connections_per_s: 0, ..LoadPlan::of(address) };
    let begun = std::time::Instant::now();
    let report = run(plan, 2000);
    assert!(report.failures.is_empty(), "{report}");
    // A second's worth takes a second: not less, and on a busy machine not many times more.
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(10), "{took:?}");
}
