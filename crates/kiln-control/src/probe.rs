//! One probe of one instance.

use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use kiln_engine::{EngineError, Execution};
use kiln_model::{ExecOrder, HttpProbe, Probe};
use tokio::net::{TcpSocket, TcpStream};

/// Nothing, or what is wrong.
pub(crate) type Answered = Result<(), String>;

/// The most that is read of an answer: instances are not trusted.
const MAX_BODY: usize = 1 << 20;

/// Asks through `socket`, an unconnected one inside the instance's network.
pub(crate) async fn ask(socket: OwnedFd, port: u16, probe: &Probe) -> Answered {
    let stream = connect(socket, port).await?;
    match probe {
        // Of a command there is nothing to be asked over the network.
        Probe::Tcp | Probe::Exec { .. } => Ok(()),
        Probe::Http(http) => ask_http(stream, http).await,
    }
}

/// The most that is kept of what a command says.
const MOST_WORDS: u64 = 400;

/// Asks by a command inside the instance, which `begin` has the engine run with these streams. Blocks for as long as that
/// takes, `timeout` at most; then it is killed. That its end was not heard of in time says something of it only if the engine
/// could have told, which `hears` finds out.
///
/// # Errors
/// If it could not be asked, which says nothing of it.
pub(crate) fn run(
    order: &ExecOrder,
    timeout: Duration,
    begin: impl FnOnce([OwnedFd; 3]) -> Result<Box<dyn Execution>, EngineError>,
    hears: impl FnOnce() -> Result<(), String>,
) -> Result<Answered, String> {
    let program = order.argv.join(" ");
    let streams = || -> std::io::Result<(File, [OwnedFd; 3])> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let (said, errors) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        Ok((said.into(), [null.try_clone()?.into(), errors.try_clone()?, errors]))
    };
    let (said, streams) = streams().map_err(|e| format!("{program}: {e}"))?;
    let mut execution = begin(streams).map_err(|e| e.to_string())?;
    // What it says fits into the pipe or is lost on it: nobody reads while it runs.
    let mut exit = execution.wait(timeout).map_err(|e| e.to_string())?;
    if exit.is_none() {
        hears()?;
        exit = execution.wait(Duration::ZERO).map_err(|e| e.to_string())?;
    }
    drop(execution);
    Ok(match exit {
        None => Err(format!("{program} had not ended after {}ms", timeout.as_millis())),
        Some(exit) if exit.is_success() => Ok(()),
        Some(exit) => {
            let mut words = Vec::new();
            let _ = rustix::fs::fcntl_setfl(&said, rustix::fs::OFlags::NONBLOCK);
            let _ = said.take(MOST_WORDS).read_to_end(&mut words);
            let words = String::from_utf8_lossy(&words);
            let words = words.trim().lines().last().map_or(String::new(), |line| format!(": {line}"));
            Err(format!("{program} {exit}{words}"))
        }
    })
}

async fn connect(socket: OwnedFd, port: u16) -> Result<TcpStream, String> {
    let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    socket.connect(address).await.map_err(|e| format!("port {port}: {}", plain(&e)))
}

/// The system's words without its number: people read this.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

async fn ask_http(stream: TcpStream, probe: &HttpProbe) -> Answered {
    let told = |e: hyper::Error| format!("GET {}: {e}", probe.path);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
    let driven = tokio::task::spawn_local(async move {
        // How it ends shows in the answer.
        let _ = connection.await;
    });
    let request = hyper::Request::get(&probe.path)
        .header("host", "localhost")
        .header("user-agent", "kiln-probe")
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(|e| format!("GET {}: {e}", probe.path))?;
    let answer = sender.send_request(request).await.map_err(told)?;
    let verdict = judge(answer, probe).await;
    driven.abort();
    verdict
}

async fn judge(answer: hyper::Response<hyper::body::Incoming>, probe: &HttpProbe) -> Answered {
    let status = answer.status();
    let expected = match probe.status {
        Some(expected) => status.as_u16() == expected,
        None => status.is_success() || status.is_redirection(),
    };
    if !expected {
        let wanted = probe.status.map_or_else(|| "2xx or 3xx".to_owned(), |s| s.to_string());
        return Err(format!("GET {} answered {}, expected {wanted}", probe.path, status.as_u16()));
    }
    let Some(text) = &probe.contains else { return Ok(()) };
    let body = Limited::new(answer.into_body(), MAX_BODY).collect().await;
    let body = body.map_err(|e| format!("GET {}: {e}", probe.path))?.to_bytes();
    let found = text.is_empty() || body.windows(text.len()).any(|w| w == text.as_bytes());
    if found { Ok(()) } else { Err(format!("GET {} answered without `{text}`", probe.path)) }
}
