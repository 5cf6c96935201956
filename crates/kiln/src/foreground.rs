//! A host in the foreground: what happens in it is drawn, Ctrl-C ends it in order.
//!
//! One thread draws. Commands run on threads of their own and report to it, and so does whoever watches for
//! signals: everything that can happen arrives through one channel, in one order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use kiln_control::contract::{Caller, EventSink, Host, Presence, Session, Unheard};
use kiln_model::{Answer, Command, ExecRequest, ExitCode, Failure, Stamped, StatusAnswer};

use crate::live::{Live, Picture};
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

    fn presence(&self) -> Presence {
        if self.given_up.load(Ordering::Relaxed) { Presence::GaveUp } else { Presence::Here }
    }
}

/// How a command of ours ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) result: Result<Answer, Failure>,
    /// Whether somebody pressed Ctrl-C while it ran.
    pub(crate) interrupted: bool,
}

/// Where everything that happens arrives. It is there before the host is, so that a Ctrl-C while that starts is not
/// lost.
pub(crate) struct Mailbox {
    pub(crate) post: Sender<Happening>,
    mail: Receiver<Happening>,
}

impl Mailbox {
    pub(crate) fn new() -> Self {
        let (post, mail) = channel();
        Self { post, mail }
    }
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
    pub(crate) fn new(
        host: Arc<dyn Host>,
        by: Caller,
        reporter: Box<dyn Reporter>,
        mailbox: Mailbox,
    ) -> Self {
        let Mailbox { post, mail } = mailbox;
        Self { host, by, reporter, post, mail }
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
                Ok(Happening::Event(stamped)) => self.reporter.event(&stamped),
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
                Happening::Event(stamped) => self.reporter.event(&stamped),
                Happening::Done(result) => return result,
                Happening::Interrupted | Happening::Down => {}
            }
        }
        Err(Failure::new(ExitCode::Bug, "the host broke off while it ran a command"))
    }

    /// Shows how things stand until somebody wants the host to end; whether it has ended already.
    pub(crate) fn watch(&mut self, mut live: Live, picture: fn(&StatusAnswer) -> Picture) -> Already {
        loop {
            if let Some(picture) = self.status().as_ref().map(picture) {
                // Without anybody to look at it, the host still serves.
                let _ = live.show(picture);
            }
            match self.mail.recv_timeout(LOOK) {
                Ok(Happening::Down) => return Already::Down,
                Ok(Happening::Interrupted) | Err(RecvTimeoutError::Disconnected) => return Already::Serving,
                Ok(Happening::Event(_) | Happening::Done(_)) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Waits until somebody wants the host to end, and shows nothing.
    pub(crate) fn wait(&mut self) -> Already {
        loop {
            match self.mail.recv() {
                Ok(Happening::Down) => return Already::Down,
                Ok(Happening::Interrupted) | Err(_) => return Already::Serving,
                Ok(Happening::Event(_) | Happening::Done(_)) => {}
            }
        }
    }

    fn status(&self) -> Option<StatusAnswer> {
        match self.host.run(Command::Status { app: None }, self.by.clone(), &Unheard) {
            Ok(Answer::Status(status)) => Some(status),
            // Several apps, or none yet: there is no one picture.
            _ => None,
        }
    }
}

/// What is left to be ended when a host is no longer watched.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Already {
    /// Everything: it serves.
    Serving,
    /// Nothing: it was told to end through its door, and has.
    Down,
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

    fn exec(&self, request: &ExecRequest, by: Caller) -> Result<Session, Failure> {
        self.host.exec(request, by)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Mutex;

    use kiln_api::this_process;
    use kiln_model::{Event, Timestamp};

    use super::*;
    use crate::progress::Lines;

    /// A text that several hold.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Page {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    struct Does<F>(F);

    impl<F> Host for Does<F>
    where
        F: Fn(Command, &dyn EventSink) -> Result<Answer, Failure> + Send + Sync + 'static,
    {
        fn run(&self, command: Command, _: Caller, events: &dyn EventSink) -> Result<Answer, Failure> {
            (self.0)(command, events)
        }
    }

    fn foreground<F>(page: &Page, does: F) -> (Foreground, Sender<Happening>)
    where
        F: Fn(Command, &dyn EventSink) -> Result<Answer, Failure> + Send + Sync + 'static,
    {
        let mailbox = Mailbox::new();
        let post = mailbox.post.clone();
        let reporter = Box::new(Lines::new(page.clone()));
        (Foreground::new(Arc::new(Does(does)), this_process(), reporter, mailbox), post)
    }

    fn nothing(_: &StatusAnswer) -> Picture {
        Picture { text: String::new(), steady: String::new() }
    }

    fn deploy() -> Command {
        Command::Deploy { dir: "/app".into(), locked: false, supersede: false }
    }

    #[test]
    fn what_happens_is_drawn_in_order_and_the_result_is_the_hosts() {
        let page = Page::default();
        let (mut foreground, _) = foreground(&page, |_, events| {
            for step in ["one", "two"] {
                let event = Event::StepDone { step: step.into(), millis: 1 };
                events.event(Stamped { at: Timestamp(0), event });
            }
            Ok(Answer::Done)
        });
        let ended = foreground.run(deploy(), "");
        assert_eq!((ended.result, ended.interrupted), (Ok(Answer::Done), false));
        assert_eq!(page.text(), "one (1ms)\ntwo (1ms)\n");
    }

    #[test]
    fn ctrl_c_gives_a_command_up_and_the_next_ones_only_get_an_answer() {
        let page = Page::default();
        let (heard, hears) = channel();
        let heard = Mutex::new(heard);
        let (mut foreground, post) = foreground(&page, move |_, events| {
            while !events.gone() {
                thread::yield_now();
            }
            heard.lock().unwrap().send(()).unwrap();
            Err(Failure::new(ExitCode::Deploy, "given up"))
        });
        for _ in 0..3 {
            post.send(Happening::Interrupted).unwrap();
        }
        let ended = foreground.run(deploy(), "still at it");
        hears.recv().unwrap();
        assert!(ended.interrupted && ended.result.is_err());
        assert!(page.text().starts_with("still at it\n") || page.text().is_empty());
    }

    #[test]
    fn a_command_that_breaks_off_is_a_bug_and_not_a_hang() {
        let (mut foreground, _) = foreground(&Page::default(), |_, _| panic!("as a test asks for"));
        assert_eq!(foreground.run(deploy(), "").result.unwrap_err().code, ExitCode::Bug);
    }

    #[test]
    fn a_host_told_to_end_through_its_door_is_watched_no_longer() {
        let (mut foreground, _) = foreground(&Page::default(), |command, _| match command {
            Command::Down => Ok(Answer::Done),
            _ => Err(Failure::new(ExitCode::Usage, "there is no app here")),
        });
        let door = foreground.behind_the_door();
        door.run(Command::Down, this_process(), &Unheard).unwrap();
        assert_eq!(foreground.watch(Live::plain(Box::new(Page::default())), nothing), Already::Down);
    }

    #[test]
    fn ctrl_c_ends_the_watch_of_a_host_that_serves() {
        let (mut foreground, post) = foreground(&Page::default(), |_, _| Ok(Answer::Done));
        post.send(Happening::Interrupted).unwrap();
        assert_eq!(foreground.watch(Live::plain(Box::new(Page::default())), nothing), Already::Serving);
    }
}
