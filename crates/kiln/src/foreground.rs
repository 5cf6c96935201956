//! A host in the foreground: what happens in it is drawn, Ctrl-C ends it in order.
//!
//! One thread draws. Commands run on threads of their own and report to it, and so does whoever watches for
//! signals: everything that can happen arrives through one channel, in one order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use kiln_control::contract::{Caller, EventSink, Host, Unheard};
use kiln_model::{Answer, Command, ExitCode, Failure, Stamped};

use crate::commands::status;
use crate::live::Live;
use crate::progress::Reporter;

/// How often a change of status is looked for.
const LOOK: Duration = Duration::from_millis(500);

/// Anything that can happen to a host in the foreground.
pub(crate) enum Happening {
    /// A command of ours goes on.
    Event(Stamped),
    /// A command of ours has ended.
    Done(Result<Answer, Failure>),
    /// Somebody pressed Ctrl-C, or sent a signal.
    Interrupted,
    /// Somebody told the host to end, through its door.
    Down,
}

/// What a command of ours reports to.
struct Post {
    to: Sender<Happening>,
    given_up: Arc<AtomicBool>,
}

impl EventSink for Post {
    fn event(&self, event: Stamped) {
        // Without a thread that draws, nobody minds.
        let _ = self.to.send(Happening::Event(event));
    }

    fn gone(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }
}

/// How a command of ours ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) result: Result<Answer, Failure>,
    /// Whether somebody pressed Ctrl-C while it ran.
    pub(crate) interrupted: bool,
}

/// A host and those who look at it.
pub(crate) struct Foreground {
    host: Arc<dyn Host>,
    by: Caller,
    reporter: Box<dyn Reporter>,
    post: Sender<Happening>,
    mail: Receiver<Happening>,
}

impl Foreground {
    pub(crate) fn new(host: Arc<dyn Host>, by: Caller, reporter: Box<dyn Reporter>) -> Self {
        let (post, mail) = channel();
        Self { host, by, reporter, post, mail }
    }

    /// Where to say that something happened.
    pub(crate) fn post(&self) -> Sender<Happening> {
        self.post.clone()
    }

    /// The host for its door: the same, except that being told to end is heard here as well.
    pub(crate) fn behind_the_door(&self) -> Arc<dyn Host> {
        Arc::new(Door { host: Arc::clone(&self.host), post: self.post.clone() })
    }

    /// Runs a command to its end. Ctrl-C gives it up, as far as that can be done without harm; `impatient` answers
    /// every one after the first.
    pub(crate) fn run(&mut self, command: Command, impatient: &str) -> Ended {
        let given_up = Arc::new(AtomicBool::new(false));
        let post = Post { to: self.post.clone(), given_up: Arc::clone(&given_up) };
        let (host, by) = (Arc::clone(&self.host), self.by.clone());
        let running = thread::spawn(move || {
            let result = host.run(command, by, &post);
            let _ = post.to.send(Happening::Done(result));
        });
        let mut interrupted = false;
        let result = loop {
            match self.mail.recv_timeout(LOOK) {
                Ok(Happening::Event(stamped)) => self.reporter.event(&stamped.event),
                Ok(Happening::Done(result)) => break result,
                Ok(Happening::Interrupted | Happening::Down) => {
                    given_up.store(true, Ordering::Relaxed);
                    if interrupted {
                        self.reporter.say(impatient);
                    }
                    interrupted = true;
                }
                Err(_) if running.is_finished() => break self.last_word(),
                Err(_) => {}
            }
        };
        self.reporter.end();
        Ended { result, interrupted }
    }

    /// The result of a command whose thread has ended: it was sent before that, unless the thread broke off.
    fn last_word(&mut self) -> Result<Answer, Failure> {
        while let Ok(happening) = self.mail.try_recv() {
            match happening {
                Happening::Event(stamped) => self.reporter.event(&stamped.event),
                Happening::Done(result) => return result,
                Happening::Interrupted | Happening::Down => {}
            }
        }
        Err(Failure::new(ExitCode::Bug, "the host broke off while it ran a command"))
    }

    /// Shows how things stand until somebody wants the host to end.
    pub(crate) fn watch(&mut self, mut live: Live) {
        loop {
            if let Some(text) = self.picture() {
                // Without anybody to look at it, the host still serves.
                let _ = live.show(&text);
            }
            match self.mail.recv_timeout(LOOK) {
                Ok(Happening::Interrupted | Happening::Down) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Happening::Event(_) | Happening::Done(_)) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn picture(&self) -> Option<String> {
        match self.host.run(Command::Status { app: None }, self.by.clone(), &Unheard) {
            Ok(Answer::Status(status)) => Some(status::words_for(&status)),
            // Several apps, or none yet: there is no one picture.
            _ => None,
        }
    }
}

/// The host as it is seen through its door.
struct Door {
    host: Arc<dyn Host>,
    post: Sender<Happening>,
}

impl Host for Door {
    fn run(&self, command: Command, by: Caller, events: &dyn EventSink) -> Result<Answer, Failure> {
        let down = command == Command::Down;
        let result = self.host.run(command, by, events);
        if down && result.is_ok() {
            let _ = self.post.send(Happening::Down);
        }
        result
    }
}
