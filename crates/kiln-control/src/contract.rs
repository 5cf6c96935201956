//! What a host is to those who talk to it: one function that takes a [`Command`].
//!
//! The HTTP API, the foreground of `kiln up` and the tests all stand before this trait, so that nobody can do
//! through one door what cannot be done through the other.

use std::os::unix::net::UnixStream;

use kiln_model::{Answer, Author, Command, ExecRequest, ExitCode, Failure, Origin, Stamped};

/// Who asks for something, as the operation log names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user id the kernel vouches for (the other end of a Unix socket, or this process).
    pub uid: u32,
    /// That user's name on this host; the number as text if there is none.
    pub name: String,
    /// Where they are.
    pub origin: Option<Origin>,
}

impl Caller {
    /// As the log names them.
    pub fn author(&self) -> Author {
        Author { name: self.name.clone(), origin: self.origin.clone() }
    }

    /// Kiln itself, for what nobody asked for.
    pub fn kiln() -> Self {
        Self { uid: 0, name: "kiln".into(), origin: None }
    }
}

/// A host: runs commands, several at a time, each on the thread of the one who calls.
pub trait Host: Send + Sync + 'static {
    /// Does what `command` says and returns when it is done, has failed, or the asker has gone; tells `events` what
    /// happens meanwhile. Blocks.
    ///
    /// # Errors
    /// Why it was not done, with the exit code that leads to.
    fn run(&self, command: Command, by: Caller, events: &dyn EventSink) -> Result<Answer, Failure>;

    /// Begins a command inside an instance.
    ///
    /// # Errors
    /// Why it was not begun.
    fn exec(&self, request: &ExecRequest, by: Caller) -> Result<Session, Failure> {
        let _ = by;
        Err(Failure::new(ExitCode::Host, format!("{} cannot be entered on this host", request.instance)))
    }
}

/// Carries a session over a stream ([`kiln_model::SessionPart`]s in both directions), until the command has ended or
/// the other side has gone. Blocks.
pub type Session = Box<dyn FnOnce(UnixStream) + Send>;

/// Where a host tells what happens while a command runs.
pub trait EventSink: Send + Sync {
    /// Takes one event. Never blocks for long: a slow reader must not hold up a deploy.
    fn event(&self, event: Stamped);

    /// Whether whoever asked still wants it, as far as it shows.
    fn presence(&self) -> Presence;

    /// Whether nobody reads on. What can still be undone without harm is then given up: a deploy that has not switched
    /// and that nobody follows, a log that is followed.
    fn gone(&self) -> bool {
        self.presence() != Presence::Here
    }
}

/// What has become of somebody who asked for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// They wait for it.
    Here,
    /// They can no longer be told: they have died, or the connection to them has. What they wanted is not known.
    Gone,
    /// They have said that they want it no more.
    GaveUp,
}

/// Takes no notice of anything, and never goes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unheard;

impl EventSink for Unheard {
    fn event(&self, _: Stamped) {}

    fn presence(&self) -> Presence {
        Presence::Here
    }
}
