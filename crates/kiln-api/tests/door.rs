//! Both sides of the door together, over a real socket, with hosts made for the purpose.

use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kiln_api::{Client, ServeError, Server, this_process};
use kiln_control::contract::{Caller, EventSink, Host, Presence};
use kiln_model::{Answer, Command, Event, ExitCode, Failure, Progress, Stamped, Timestamp};

/// A host whose whole behaviour is one function.
struct Does<F>(F);

impl<F> Host for Does<F>
where
    F: Fn(Command, Caller, &dyn EventSink) -> Result<Answer, Failure> + Send + Sync + 'static,
{
    fn run(&self, command: Command, by: Caller, events: &dyn EventSink) -> Result<Answer, Failure> {
        (self.0)(command, by, events)
    }
}

fn serve<F>(socket: &Path, does: F) -> Server
where
    F: Fn(Command, Caller, &dyn EventSink) -> Result<Answer, Failure> + Send + Sync + 'static,
{
    Server::start(socket, Arc::new(Does(does))).unwrap()
}

fn step(step: &str) -> Stamped {
    Stamped { at: Timestamp(1_790_000_000_000), event: Event::StepBegun { step: step.into() } }
}

fn progress(done: u64) -> Stamped {
    let task = "fetching packages".to_owned();
    let progress = Progress { task, done, total: None, unit: "bytes".into(), finished: false };
    Stamped { at: Timestamp(1_790_000_000_000), event: Event::Progress(progress) }
}

const LOG: Command = Command::Log { app: None, limit: Some(3) };

#[test]
fn a_command_reaches_the_host_and_events_and_answer_come_back_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("run/control.sock");
    let (asked, heard) = channel();
    let asked = Mutex::new(asked);
    let server = serve(&socket, move |command, by, events| {
        asked.lock().unwrap().send((command, by)).unwrap();
        events.event(step("one"));
        events.event(step("two"));
        Ok(Answer::Done)
    });
    let mut seen = Vec::new();
    let answer = Client::connect(&socket).unwrap().run(&LOG, &mut |event| seen.push(event));
    assert_eq!(answer, Ok(Answer::Done));
    assert_eq!(seen, [step("one"), step("two")]);
    assert_eq!(heard.recv().unwrap(), (LOG, this_process()));
    server.stop();
}

#[test]
fn an_asker_that_has_heard_enough_leaves() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    let server = serve(&socket, |_, _, events| {
        while !events.gone() {
            events.event(step("again"));
        }
        Ok(Answer::Done)
    });
    let mut heard = 0;
    let answer = Client::connect(&socket).unwrap().run_while(&LOG, &mut |_| {
        heard += 1;
        if heard < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert_eq!((answer, heard), (Ok(None), 3));
    server.stop();
}

#[test]
fn a_failure_comes_back_whole_even_after_an_event_that_carries_one() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    let failure = || Failure::new(ExitCode::Deploy, "it failed").because("of this").hint("do that");
    let failed = move || {
        let (step, cause) = ("wait".to_owned(), "it failed".to_owned());
        let event = Event::Failed { release: None, serving: None, step, cause, failure: failure() };
        Stamped { at: Timestamp(1), event }
    };
    let server = serve(&socket, move |_, _, events| {
        events.event(failed());
        Err(failure())
    });
    let mut seen = Vec::new();
    let answer = Client::connect(&socket).unwrap().run(&LOG, &mut |event| seen.push(event));
    assert_eq!(answer, Err(failure()));
    assert_eq!(seen, [failed()]);
    server.stop();
}

#[test]
fn a_host_that_panics_answers_with_a_bug() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    let server = serve(&socket, |_, _, _| panic!("as a test asks for"));
    let answer = Client::connect(&socket).unwrap().run(&LOG, &mut |_| {});
    assert_eq!(answer.unwrap_err().code, ExitCode::Bug);
    server.stop();
}

/// Sends a request by hand and gives back the connection.
fn ask(socket: &Path, request: &str) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn answer_to(socket: &Path, request: &str) -> String {
    let mut text = String::new();
    ask(socket, request).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_host_learns_that_its_asker_has_gone() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    let (noticed, notices) = channel();
    let noticed: Mutex<Sender<()>> = Mutex::new(noticed);
    let server = serve(&socket, move |_, _, events| {
        events.event(step("waiting"));
        while !events.gone() {
            std::thread::yield_now();
        }
        noticed.lock().unwrap().send(()).unwrap();
        Ok(Answer::Done)
    });
    let body = serde_json::to_string(&LOG).unwrap();
    let length = body.len();
    let request =
        format!("POST /v1/commands HTTP/1.1\r\nhost: kiln\r\ncontent-length: {length}\r\n\r\n{body}");
    let mut stream = ask(&socket, &request);
    let mut first = [0; 1];
    stream.read_exact(&mut first).unwrap();
    drop(stream);
    notices.recv().unwrap();
    server.stop();
}

/// Whoever has gone has not said that it is not wanted; whoever says so need not be gone.
#[test]
fn a_host_learns_whether_its_asker_gave_up_or_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    let (noticed, notices) = channel();
    let noticed: Mutex<Sender<Presence>> = Mutex::new(noticed);
    let server = serve(&socket, move |_, _, events| {
        events.event(step("waiting"));
        let until = Instant::now() + Duration::from_secs(20);
        while events.presence() == Presence::Here && Instant::now() < until {
            std::thread::yield_now();
        }
        noticed.lock().unwrap().send(events.presence()).unwrap();
        Ok(Answer::Done)
    });
    let client = Client::connect(&socket).unwrap();
    let left = client.run_while(&LOG, &mut |_| ControlFlow::Break(()));
    assert_eq!((left, notices.recv()), (Ok(None), Ok(Presence::Gone)));
    let gives_up = client.gives_up();
    let answer = client.run(&LOG, &mut |_| gives_up.say().unwrap());
    assert_eq!((answer, notices.recv()), (Ok(Answer::Done), Ok(Presence::GaveUp)));
    let nothing = "DELETE /v1/commands/nothing HTTP/1.1\r\nhost: kiln\r\nconnection: close\r\n\r\n";
    assert!(answer_to(&socket, nothing).starts_with("HTTP/1.1 404"));
    server.stop();
}

#[test]
fn progress_may_be_dropped_for_a_slow_reader_but_what_comes_after_it_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    let (ended, ends) = channel();
    let ended: Mutex<Sender<u64>> = Mutex::new(ended);
    let server = serve(&socket, move |_, _, events| {
        let many = 200_000;
        (0..many).for_each(|n| events.event(progress(n)));
        events.event(step("the end"));
        ended.lock().unwrap().send(many).unwrap();
        Ok(Answer::Done)
    });
    let mut seen = 0;
    let mut last = None;
    let client = Client::connect(&socket).unwrap();
    let answer = client.run(&LOG, &mut |event| {
        seen += 1;
        last = Some(event);
    });
    assert_eq!(answer, Ok(Answer::Done));
    assert_eq!(last, Some(step("the end")));
    assert!(seen <= ends.recv().unwrap() + 1);
    server.stop();
}

#[test]
fn questions_can_be_asked_with_a_plain_get() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    let server = serve(&socket, |command, _, _| match command {
        Command::Log { limit: Some(2), app: Some(app) } if app.as_str() == "hello" => Ok(Answer::Log(vec![])),
        Command::Status { .. } => Err(Failure::new(ExitCode::Usage, "there is no app `other`")),
        other => panic!("{other:?}"),
    });
    let get = |path: &str| {
        answer_to(&socket, &format!("GET {path} HTTP/1.1\r\nhost: kiln\r\nconnection: close\r\n\r\n"))
    };
    let log = get("/v1/apps/hello/log?limit=2");
    assert!(log.starts_with("HTTP/1.1 200") && log.ends_with("\r\n\r\n[]"), "{log}");
    let status = get("/v1/apps/other/status");
    assert!(status.starts_with("HTTP/1.1 400") && status.contains("there is no app `other`"), "{status}");
    assert!(get("/v1/apps/Not%20A%20Name/status").contains("is not a valid app name"));
    assert!(get("/v1/health").contains("\"host\":\"ready\""));
    assert!(get("/nothing").starts_with("HTTP/1.1 404"));
    server.stop();
}

#[test]
fn what_is_no_command_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    let server = serve(&socket, |_, _, _| Ok(Answer::Done));
    let body = "{\"command\":\"explode\"}";
    let head = "POST /v1/commands HTTP/1.1\r\nhost: kiln\r\nconnection: close";
    let answer = answer_to(&socket, &format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("explode"), "{answer}");
    server.stop();
}

#[test]
fn the_socket_is_for_its_owner_replaced_when_stale_and_not_shared() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    // What a host that was killed leaves behind.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let server = serve(&socket, |_, _, _| Ok(Answer::Done));
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let second = Server::start(&socket, Arc::new(Does(|_, _, _: &dyn EventSink| Ok(Answer::Done))));
    assert!(matches!(second, Err(ServeError::Taken(_))));
    server.stop();
    assert!(!socket.exists());
    let failure = Client::connect(&socket).unwrap_err();
    assert_eq!(failure.code, ExitCode::Host);
    assert!(failure.message.starts_with("no Kiln host answers on"));
}

#[test]
fn a_socket_may_lie_deeper_than_an_address_is_long() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("d".repeat(120)).join("control.sock");
    let server = serve(&socket, |_, _, _| Ok(Answer::Done));
    assert_eq!(Client::connect(&socket).unwrap().run(&LOG, &mut |_| {}), Ok(Answer::Done));
    server.stop();
    assert!(!socket.exists());
}
