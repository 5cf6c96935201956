//! `kiln exec`

use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use clap::Args;
use kiln_model::{
    ExecRequest, Exit, ExitCode, Failure, InstanceId, LONGEST_PART, OutputStream, SessionPart, SessionParts,
    Terminal, TerminalSize,
};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use serde_json::json;

use crate::context::Context;
use crate::{failure, output, signals};

const EXAMPLES: &str = "\
Examples:
  kiln exec hello-web-3-1 -- sh              look around, with a terminal if there is one
  kiln exec hello-web-3-1 -- cat /etc/hosts  one command; its exit code is passed on
  tar c . | kiln exec hello-web-3-1 -- tar xC /tmp";

/// A command inside an instance, which is replaced afterwards
///
/// It runs as the instance's user in all of the instance's namespaces, limits and confinement. The instance counts
/// as touched: when the command has ended, another takes its place, and the log says who did what.
///
/// The exit code is the command's; 128 and the number of the signal if one ended it; 127 if there is no such program in the
/// instance, 126 if it cannot be executed. With nobody left to read its output (`kiln exec … | head`) it is ended, and the exit
/// code is 141. If the session breaks off, its output cannot be written here (a full disk), or the instance is not there, it
/// is one of Kiln's own: 9, 9, or 2.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Exec {
    /// The instance, as `kiln instances` shows it
    instance: InstanceId,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
    /// No terminal, even if standard input is one
    #[arg(long, short = 'T')]
    no_terminal: bool,
}

#[expect(clippy::disallowed_methods, reason = "the exit code of the command is this one's")]
pub(crate) fn run(args: Exec, context: &Context) -> Result<(), Failure> {
    let has_terminal = io::stdin().is_terminal() && !args.no_terminal && !context.output.json;
    let terminal = has_terminal.then(|| Terminal {
        kind: std::env::var("TERM").unwrap_or_else(|_| "dumb".into()),
        size: size().unwrap_or(TerminalSize { rows: 24, columns: 80 }),
    });
    let request = ExecRequest { instance: args.instance, argv: args.command, terminal };
    let stream = context.client()?.exec(&request)?;
    let raw = has_terminal.then(Raw::begin).flatten();
    let exit = converse(&stream, has_terminal, context.output.json);
    drop(raw);
    let exit = exit?;
    let code = exit.shell_code();
    let cause = match &exit {
        Exit::NotStarted { cause } => Some(cause),
        _ => None,
    };
    if let Some(cause) = cause {
        let message = format!("the command could not be run in {}", request.instance);
        failure::tell(&Failure::new(ExitCode::Usage, message).because(cause.clone()));
    }
    if context.output.json {
        let _ = output::line(&json!({ "event": "ended", "code": code, "cause": cause }).to_string());
    }
    std::process::exit(code)
}

/// Carries everything to and fro until the command has ended.
fn converse(stream: &UnixStream, has_terminal: bool, json: bool) -> Result<Exit, Failure> {
    let to = Arc::new(Mutex::new(stream.try_clone().map_err(broken)?));
    let typed = to.clone();
    thread::Builder::new().name("input".into()).spawn(move || carry_input(&typed)).map_err(broken)?;
    if has_terminal {
        let resized = to.clone();
        signals::watch_size(move || {
            if let Some(size) = size() {
                say(&resized, &SessionPart::Size(size));
            }
        })?;
    }
    hear(stream, json)
}

fn broken(e: io::Error) -> Failure {
    Failure::new(ExitCode::Host, "the session broke off; the instance is replaced").because(e.to_string())
}

fn say(to: &Mutex<UnixStream>, part: &SessionPart) -> bool {
    let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
    to.write_all(&part.encode()).is_ok()
}

fn carry_input(to: &Mutex<UnixStream>) {
    let mut buffer = vec![0; LONGEST_PART / 4];
    loop {
        match io::stdin().lock().read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) if say(to, &SessionPart::Input(buffer[..length].to_vec())) => {}
            Ok(_) => return,
        }
    }
    say(to, &SessionPart::InputEnd);
}

fn hear(mut stream: &UnixStream, json: bool) -> Result<Exit, Failure> {
    let (mut parts, mut buffer) = (SessionParts::default(), vec![0; LONGEST_PART]);
    loop {
        while let Some(part) = parts.next_part().map_err(|e| broken(io::Error::other(e)))? {
            match part {
                SessionPart::Output(stream, bytes) => {
                    match show(stream, &bytes, json) {
                        Ok(()) => {}
                        // Who writes on then is ended by SIGPIPE, wherever it runs.
                        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                            return Ok(Exit::Signal { signal: rustix::process::Signal::PIPE.as_raw() });
                        }
                        Err(e) => return Err(unwritten(stream, &e)),
                    }
                }
                SessionPart::End(exit) => return Ok(exit),
                _ => {}
            }
        }
        match stream.read(&mut buffer).map_err(broken)? {
            0 => return Err(broken(io::ErrorKind::UnexpectedEof.into())),
            length => parts.arrived(&buffer[..length]),
        }
    }
}

fn show(from: OutputStream, bytes: &[u8], json: bool) -> io::Result<()> {
    let pass_on = |to: &mut dyn Write| to.write_all(bytes).and_then(|()| to.flush());
    match from {
        _ if json => {
            let text = String::from_utf8_lossy(bytes);
            let event = json!({ "event": "output", "stream": from.as_str(), "text": text });
            output::line(&event.to_string())
        }
        OutputStream::Stdout => pass_on(&mut io::stdout()),
        OutputStream::Stderr => pass_on(&mut io::stderr()),
    }
}

/// A disk that is full, for example. Whoever looks there later would miss what is lost and not know it.
fn unwritten(what: OutputStream, error: &io::Error) -> Failure {
    let message = format!(
        "the command's {} could not be written here; it is ended and the instance replaced",
        what.as_str()
    );
    Failure::new(ExitCode::Host, message).because(error.to_string())
}

fn size() -> Option<TerminalSize> {
    let size = tcgetwinsize(io::stdin().as_fd()).ok()?;
    Some(TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

/// The terminal gives every key to the command, Ctrl-C included, until this is dropped.
struct Raw(Termios);

impl Raw {
    fn begin() -> Option<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(stdin.as_fd()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Now, &self.0);
    }
}
