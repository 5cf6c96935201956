//! The other side of the door.

use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use kiln_model::{Answer, Command, ExitCode, Failure, Stamped};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use crate::asked::NAME;
use crate::caller::{SAYS, started_from};
use crate::reach::Reach;
use crate::wire::Line;

/// A host that can be told and asked things. Blocking; every command is a connection of its own. Whoever does not wait for
/// an answer any more has gone, which gives up what nobody else waits for; [`GivesUp`] says that it is not wanted.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    /// What its commands are called, one after the other.
    name: String,
}

/// Says, from another thread, that what a client waits for is not wanted any more.
#[derive(Debug, Clone)]
pub struct GivesUp {
    socket: PathBuf,
    name: String,
}

impl GivesUp {
    /// Says so. A host that does not hear it notices all the same that nobody waits any more.
    ///
    /// # Errors
    /// What the system refused.
    pub fn say(&self) -> io::Result<()> {
        /// A host that is stuck must not keep anybody from leaving.
        const PATIENCE: Duration = Duration::from_secs(1);
        let reach = Reach::to(&self.socket)?;
        let mut stream = std::os::unix::net::UnixStream::connect(reach.path())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let head = format!("DELETE /v1/commands/{} HTTP/1.0\r\nhost: kiln\r\n\r\n", self.name);
        stream.write_all(head.as_bytes())?;
        stream.read_to_end(&mut Vec::new()).map(drop)
    }
}

impl Client {
    /// The host behind `socket`.
    ///
    /// # Errors
    /// If nobody answers there.
    pub fn connect(socket: &Path) -> Result<Self, Failure> {
        let unreachable = |e: io::Error| unreachable(socket, e);
        let reach = Reach::to(socket).map_err(unreachable)?;
        std::os::unix::net::UnixStream::connect(reach.path()).map_err(unreachable)?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("{}-{}", std::process::id(), since.as_nanos());
        Ok(Self { socket: socket.to_owned(), name })
    }

    /// Where it is.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What says that a command of this client is not wanted any more.
    pub fn gives_up(&self) -> GivesUp {
        GivesUp { socket: self.socket.clone(), name: self.name.clone() }
    }

    /// Has the host run `command`; `on_event` is told what happens meanwhile.
    ///
    /// # Errors
    /// The host's own failure, or that it could not be reached or left in the middle.
    pub fn run(&self, command: &Command, on_event: &mut dyn FnMut(Stamped)) -> Result<Answer, Failure> {
        let mut go_on = |event| {
            on_event(event);
            ControlFlow::Continue(())
        };
        self.run_while(command, &mut go_on)?.ok_or_else(no_answer)
    }

    /// The same for an asker that may have heard enough: it leaves when `on_event` breaks, and then there is no
    /// answer.
    ///
    /// # Errors
    /// As for [`Client::run`].
    pub fn run_while(
        &self,
        command: &Command,
        on_event: &mut dyn FnMut(Stamped) -> ControlFlow<()>,
    ) -> Result<Option<Answer>, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime: Runtime = runtime.map_err(|e| unreachable(&self.socket, e))?;
        runtime.block_on(async {
            let response = self.post(command).await?;
            lines(response, on_event).await
        })
    }

    async fn post(&self, command: &Command) -> Result<Response<Incoming>, Failure> {
        let reach = Reach::to(&self.socket).map_err(|e| unreachable(&self.socket, e))?;
        let stream = UnixStream::connect(reach.path()).await.map_err(|e| unreachable(&self.socket, e))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| left(&e))?;
        tokio::spawn(connection);
        let body = serde_json::to_vec(command).expect("commands are made of plain data");
        let mut request = Request::builder()
            .method(Method::POST)
            .uri("/v1/commands")
            .header("host", "kiln")
            .header("content-type", "application/json")
            .header(NAME, &self.name);
        // What a field cannot hold is not said.
        if let Some(from) = started_from().and_then(|from| HeaderValue::try_from(from).ok()) {
            request = request.header(SAYS, from);
        }
        let request = request.body(Full::new(Bytes::from(body))).expect("the parts are valid");
        sender.send_request(request).await.map_err(|e| left(&e))
    }
}

/// Reads lines until the last one, or until the reader has heard enough.
async fn lines(
    response: Response<Incoming>,
    on_event: &mut dyn FnMut(Stamped) -> ControlFlow<()>,
) -> Result<Option<Answer>, Failure> {
    let mut body = response.into_body();
    let mut pending = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|e| left(&e))?.into_data() else { continue };
        pending.extend_from_slice(&data);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            match serde_json::from_slice(&line).map_err(|e| left(&e))? {
                Line::Event(event) => {
                    if on_event(event).is_break() {
                        return Ok(None);
                    }
                }
                Line::Answer { answer } => return Ok(Some(answer)),
                Line::Failure { failure } => return Err(failure),
            }
        }
    }
    Err(no_answer())
}

fn no_answer() -> Failure {
    Failure::new(ExitCode::Host, "the host left before the command was done").hint(LEFT)
}

const LEFT: &str = "start the host again: it finishes or undoes what was under way";

pub(crate) fn left(error: &dyn std::error::Error) -> Failure {
    let failure = Failure::from_error(ExitCode::Host, error);
    Failure::new(ExitCode::Host, "the connection to the host broke off").because(failure.message).hint(LEFT)
}

pub(crate) fn unreachable(socket: &Path, error: io::Error) -> Failure {
    let failure = Failure::new(ExitCode::Host, format!("no Kiln host answers on `{}`", socket.display()))
        .because(error.to_string());
    match error.kind() {
        io::ErrorKind::PermissionDenied => failure.hint("run it as the user who started the host (root)"),
        _ => failure.hint("start one with `kiln up` or `kiln serve`"),
    }
}
