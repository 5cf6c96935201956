//! Commands inside instances, for people who look for the cause of something.
//!
//! The command's streams are pipes, or a terminal made here; they are carried to and from whoever asked as parts of
//! a session. Threads that wait for one thing each: there are few such sessions.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kiln_engine::{EngineError, Execution};
use kiln_model::{
    ExecOrder, ExecRequest, Exit, ExitCode, Failure, InstanceId, LONGEST_PART, OutputStream, ReleaseService,
    SecretOrder, SessionPart, SessionParts, TerminalSize,
};
use kiln_store::boundary::between;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::LocalHost;
use super::driver::Driver;
use crate::contract::{Caller, Session};
use crate::sync::lock;
use crate::world::{Shelf, Trouble};

/// How often it is looked whether whoever asked is still there.
const LOOK: Duration = Duration::from_millis(100);
/// How long output may still come when the command has ended: what it left running may hold its streams for ever.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl LocalHost {
    /// Begins a command inside an instance, which counts as touched from now on.
    pub(crate) fn exec(&self, request: &ExecRequest, by: &Caller) -> Result<Session, Failure> {
        let id = request.instance.clone();
        if request.argv.is_empty() {
            return Err(Failure::new(ExitCode::Usage, "there is no command to run"));
        }
        let failed = |e: io::Error| super::failure::system("make streams for the command", &e);
        let (ours, theirs) = match &request.terminal {
            Some(terminal) => Ours::terminal(terminal.size).map_err(failed)?,
            None => Ours::pipes().map_err(failed)?,
        };
        let touched = lock(&self.driver.core).touch(&id, by.author(), &request.argv.join(" "));
        let unwritten = |trouble: Trouble| {
            Failure::new(ExitCode::Host, "the session could not be written down, so it was not begun")
                .because(trouble.0)
        };
        let (app, service) = touched.map_err(unwritten)?.ok_or_else(|| self.no_such_instance(&id))?;
        let open = Open { driver: self.driver.clone(), id };
        let secrets = Shelf::secrets(&self.store, &app, &service).map_err(|trouble| {
            Failure::new(
                ExitCode::Host,
                "the secrets of the instance could not be read, so nothing was run in it",
            )
            .because(trouble.0)
        })?;
        let order = order(request, &service, secrets);
        let execution = between("exec", || self.engine.exec(&open.id, &order, theirs))
            .map_err(|e| Failure::from_error(ExitCode::Host, &e))?;
        Ok(Box::new(move |stream| open.converse(&stream, ours, execution)))
    }

    /// Why nobody can lay hands on what was named.
    pub(super) fn no_such_instance(&self, id: &InstanceId) -> Failure {
        if lock(&self.driver.core).hooks().iter().any(|(hook, _)| hook.id == *id) {
            let message = format!("{id} is the instance of a hook, which is left alone until it has ended");
            let hint = format!("`kiln logs --instance {id}` shows its output");
            return Failure::new(ExitCode::Usage, message).hint(hint);
        }
        no_such_instance(id)
    }
}

fn no_such_instance(id: &InstanceId) -> Failure {
    Failure::new(ExitCode::Usage, format!("there is no running instance {id}"))
        .hint("`kiln instances` shows those that run, `kiln instances --all` also those that were replaced")
}

fn order(request: &ExecRequest, service: &ReleaseService, secrets: Vec<SecretOrder>) -> ExecOrder {
    let mut order = service.command(request.argv.clone(), secrets);
    if let Some(terminal) = &request.terminal {
        order.env.insert("TERM".into(), terminal.kind.clone());
        order.has_terminal = true;
    }
    order
}

/// The near ends of a command's streams.
struct Ours {
    input: File,
    outputs: Vec<(OutputStream, File)>,
    terminal: Option<OwnedFd>,
}

impl Ours {
    fn pipes() -> io::Result<(Self, [OwnedFd; 3])> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC);
        let ((stdin, input), (output, stdout), (errors, stderr)) = (pipe()?, pipe()?, pipe()?);
        let outputs = vec![(OutputStream::Stdout, output.into()), (OutputStream::Stderr, errors.into())];
        Ok((Self { input: input.into(), outputs, terminal: None }, [stdin, stdout, stderr]))
    }

    fn terminal(size: TerminalSize) -> io::Result<(Self, [OwnedFd; 3])> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags)?;
        unlockpt(&ours)?;
        resize(&ours, size)?;
        let theirs = ioctl_tiocgptpeer(&ours, flags)?;
        let streams = [theirs.try_clone()?, theirs.try_clone()?, theirs];
        let outputs = vec![(OutputStream::Stdout, ours.try_clone()?.into())];
        Ok((Self { input: ours.try_clone()?.into(), outputs, terminal: Some(ours) }, streams))
    }
}

fn resize(terminal: &OwnedFd, size: TerminalSize) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(terminal, size)?)
}

/// A session that is open: the instance is left as it is until this is dropped.
struct Open {
    driver: Arc<Driver>,
    id: InstanceId,
}

impl Drop for Open {
    fn drop(&mut self) {
        lock(&self.driver.core).let_alone(&self.id);
        self.driver.waker.wake();
    }
}

impl Open {
    /// Carries everything to and fro until the command has ended or whoever asked has gone, which ends it.
    fn converse(&self, stream: &UnixStream, ours: Ours, execution: Box<dyn Execution>) {
        let Ok(parts) = stream.try_clone() else { return };
        let to = Arc::new(Mutex::new(parts));
        let (finished, outputs) = channel();
        for (which, output) in ours.outputs {
            let (to, finished) = (to.clone(), finished.clone());
            std::thread::spawn(move || carry_output(output, which, &to, &finished));
        }
        drop(finished);
        if let Ok(from) = stream.try_clone() {
            std::thread::spawn(move || carry_input(from, ours.input, ours.terminal));
        }
        if let Some(exit) = self.end_of(execution, stream) {
            let deadline = Instant::now() + LAST_WORDS;
            while outputs.recv_timeout(deadline.saturating_duration_since(Instant::now()))
                != Err(RecvTimeoutError::Disconnected)
                && Instant::now() < deadline
            {}
            let mut to = lock(&to);
            // Who has gone does not hear it.
            let _ = to.write_all(&SessionPart::End(exit).encode());
            // Not what comes from there: input that is late would find nobody, and whoever carries it would take that for
            // the end of the session before this part has got through.
            let _ = to.shutdown(std::net::Shutdown::Write);
        } else {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// None if nobody waits for it, or nobody will ever know: the keeper that ran it is gone, and the command with it.
    fn end_of(&self, mut execution: Box<dyn Execution>, stream: &UnixStream) -> Option<Exit> {
        loop {
            match execution.wait(LOOK) {
                Ok(Some(exit)) => return Some(exit),
                Ok(None) if has_left(stream) || self.driver.is_stopped() => return None,
                Ok(None) => {}
                Err(EngineError::Unreachable { .. }) => return None,
                Err(e) => return Some(Exit::NotStarted { cause: e.to_string() }),
            }
        }
    }
}

fn has_left(stream: &UnixStream) -> bool {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut looked_at = [PollFd::new(stream, PollFlags::RDHUP)];
    poll(&mut looked_at, Some(&at_once)).is_ok_and(|n| n > 0)
}

/// Until the command closes it.
fn carry_output(mut from: File, which: OutputStream, to: &Mutex<UnixStream>, finished: &Sender<()>) {
    let mut buffer = vec![0; LONGEST_PART / 4];
    while let Ok(length @ 1..) = read_or_again(&mut from, &mut buffer) {
        let part = SessionPart::Output(which, buffer[..length].to_vec()).encode();
        if lock(to).write_all(&part).is_err() {
            break;
        }
    }
    let _ = finished.send(());
}

/// A terminal whose other end is closed says so by an error, and the kernel may say so before it hands out what was
/// written there last: of 3,000 sessions that ended by Ctrl-C five lost their last line. Asked again it does.
fn read_or_again(from: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    from.read(buffer).or_else(|_| from.read(buffer))
}

fn carry_input(mut from: UnixStream, input: File, terminal: Option<OwnedFd>) {
    let (mut input, mut parts, mut buffer) = (Some(input), SessionParts::default(), vec![0; LONGEST_PART]);
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        parts.arrived(&buffer[..length]);
        loop {
            match (parts.next_part(), &terminal) {
                (Ok(None), _) => break,
                (Ok(Some(SessionPart::Input(bytes))), _) => {
                    // A command that does not read on misses it.
                    let _ = input.as_mut().map(|i| i.write_all(&bytes));
                }
                (Ok(Some(SessionPart::InputEnd)), None) => input = None,
                (Ok(Some(SessionPart::Size(size))), Some(terminal)) => {
                    let _ = resize(terminal, size);
                }
                (Ok(Some(_)), _) => {}
                (Err(_), _) => {
                    let _ = from.shutdown(std::net::Shutdown::Both);
                    return;
                }
            }
        }
    }
}
