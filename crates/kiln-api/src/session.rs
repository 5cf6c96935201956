//! Sessions with commands inside instances: a request that becomes a stream of parts in both directions.
//!
//! ```text
//! POST /v1/exec        Upgrade: kiln-session; the body is an ExecRequest
//! 101                  from here on parts (`kiln_model::SessionPart`); or a failure as everywhere else
//! ```

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use kiln_control::contract::Session;
use kiln_model::{ExecRequest, ExitCode, Failure};

use crate::caller::{Peer, SAYS, started_from};
use crate::client::{Client, left, unreachable};
use crate::reach::Reach;
use crate::routes::{Door, bug, refused, status_of, usage};
use crate::wire::Line;

const PROTOCOL: &str = "kiln-session";
/// The longest request, in bytes: a command line, as JSON.
const LONGEST: usize = 1 << 20;

/// Answers a request for a session.
pub(crate) async fn exec(
    State(host): State<Door>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
) -> Response {
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        let failure = usage("a session needs `Connection: upgrade` and `Upgrade: kiln-session`");
        return refused(StatusCode::UPGRADE_REQUIRED, failure);
    };
    let caller = peer.says(request.headers());
    let body = match Limited::new(request.into_body(), LONGEST).collect().await {
        Ok(body) => body.to_bytes(),
        Err(e) => return bad(&e.to_string()),
    };
    let wanted: ExecRequest = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(e) => return bad(&e.to_string()),
    };
    let begun = tokio::task::spawn_blocking(move || host.exec(&wanted, caller)).await;
    match begun {
        Ok(Ok(session)) => {
            tokio::spawn(carry(upgrade, session));
            let head = [(header::CONNECTION, "upgrade"), (header::UPGRADE, PROTOCOL)];
            (StatusCode::SWITCHING_PROTOCOLS, head, Body::empty()).into_response()
        }
        Ok(Err(failure)) => refused(status_of(failure.code), failure),
        Err(e) => refused(StatusCode::INTERNAL_SERVER_ERROR, bug(&e)),
    }
}

fn bad(cause: &str) -> Response {
    refused(StatusCode::BAD_REQUEST, usage("the request's body is no command to run").because(cause))
}

/// Copies between the connection and the host, which has a thread for the session.
async fn carry(upgrade: OnUpgrade, session: Session) {
    let Ok(upgraded) = upgrade.await else { return };
    let Ok((near, far)) = UnixStream::pair() else { return };
    let spawned = std::thread::Builder::new().name("session".into()).spawn(move || session(far));
    let ready = near.set_nonblocking(true).and_then(|()| tokio::net::UnixStream::from_std(near));
    if let (Ok(_), Ok(mut near)) = (spawned, ready) {
        // How it ends shows on both sides.
        let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(upgraded), &mut near).await;
    }
}

impl Client {
    /// Begins a command inside an instance: a stream of parts in both directions.
    ///
    /// # Errors
    /// The host's own failure, that it could not be reached, or a command of more than a mebibyte.
    pub fn exec(&self, request: &ExecRequest) -> Result<UnixStream, Failure> {
        let lost = |e: io::Error| unreachable(self.socket(), e);
        let reach = Reach::to(self.socket()).map_err(lost)?;
        let mut stream = UnixStream::connect(reach.path()).map_err(lost)?;
        let body = serde_json::to_vec(request).expect("a request is made of plain data");
        if body.len() > LONGEST {
            return Err(too_long(body.len()));
        }
        let from = started_from().filter(|from| from.is_ascii());
        let from = from.map_or_else(String::new, |from| format!("{SAYS}: {from}\r\n"));
        let head = format!(
            "POST /v1/exec HTTP/1.1\r\nhost: kiln\r\nconnection: upgrade\r\nupgrade: {PROTOCOL}\r\n{from}\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), &body].concat()).map_err(|e| left(&e))?;
        let head = read_head(&mut stream).map_err(|e| left(&e))?;
        if head.starts_with("HTTP/1.1 101 ") {
            return Ok(stream);
        }
        Err(read_failure(&mut stream, &head).unwrap_or_else(|e| left(&e)))
    }
}

/// The host would hang up in the middle of it.
fn too_long(length: usize) -> Failure {
    usage("the command is too long to be passed on")
        .because(format!("with its arguments it takes {length} bytes, and may take {LONGEST}"))
        .hint("give the command what is long on its standard input; no instance was touched")
}

/// Byte by byte: what comes after it belongs to the session.
fn read_head(stream: &mut UnixStream) -> io::Result<String> {
    const LONGEST: usize = 16 << 10;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
        if head.len() > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    String::from_utf8(head).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn read_failure(stream: &mut UnixStream, head: &str) -> io::Result<Failure> {
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<u64>().ok())?
    });
    let mut body = Vec::new();
    stream.take(length.unwrap_or(0).min(LONGEST as u64)).read_to_end(&mut body)?;
    match serde_json::from_slice(&Bytes::from(body)) {
        Ok(Line::Failure { failure }) => Ok(failure),
        _ => Ok(Failure::new(ExitCode::Host, "the host does not know sessions: is it of another version?")),
    }
}
