//! New connections to instances.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use kiln_model::Protocol;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use crate::Limits;
use crate::refusal::Refusal;
use crate::stock::Stock;
use crate::tasks::Here;
use crate::upstream::{Channel, Upstream};
use crate::upstream_io::UpstreamIo;
use crate::worker::Worker;

/// A fresh connection to `upstream`.
pub(crate) async fn connect(upstream: &Upstream, worker: &Worker) -> Result<Channel, Refusal> {
    let stream = reach(upstream, worker).await?;
    handshake(upstream, stream, &worker.limits).await.map_err(|_| Refusal::Unreachable)
}

/// A fresh connection on which nothing has been said.
pub(crate) async fn reach(upstream: &Upstream, worker: &Worker) -> Result<TcpStream, Refusal> {
    let has_socket = Cell::new(false);
    match timeout(worker.limits.connect, with_room(upstream, worker, &has_socket)).await {
        Ok(reached) => reached,
        Err(_) if has_socket.get() => Err(Refusal::ConnectTimeout),
        Err(_) => Err(Refusal::NoSocket),
    }
}

/// Whose fault it is that somebody was not reached.
pub(crate) fn unreached(error: &io::Error) -> Refusal {
    if is_exhausted(error) { Refusal::Exhausted } else { Refusal::Unreachable }
}

/// Whether there is nothing left to make a connection of.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    let exhausted = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().is_some_and(|code| exhausted.contains(&code))
}

/// Where descriptors have run out, connections that nobody uses make room for one that somebody needs.
async fn with_room(
    upstream: &Upstream,
    worker: &Worker,
    has_socket: &Cell<bool>,
) -> Result<TcpStream, Refusal> {
    match stream(upstream, &worker.stock, has_socket).await {
        Err(Refusal::Exhausted) => {
            worker.make_room();
            sleep(BREATHER).await;
            stream(upstream, &worker.stock, has_socket).await
        }
        reached => reached,
    }
}

async fn stream(upstream: &Upstream, stock: &Stock, has_socket: &Cell<bool>) -> Result<TcpStream, Refusal> {
    let socket: OwnedFd = stock.socket(upstream.id()).await.map_err(|error| without_socket(&error))?;
    has_socket.set(true);
    let socket = TcpSocket::from_std_stream(socket.into());
    let connected = socket.connect(stock.dial().address(upstream.id(), upstream.port())).await;
    let stream = connected.map_err(|error| unreached(&error))?;
    stream.set_nodelay(true).map_err(|error| unreached(&error))?;
    Ok(stream)
}

/// Whose fault it is that there is no socket: the instance's if it is gone.
fn without_socket(error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::NotFound => Refusal::Unreachable,
        _ if is_exhausted(error) => Refusal::Exhausted,
        _ => Refusal::NoSocket,
    }
}

async fn handshake(upstream: &Upstream, stream: TcpStream, limits: &Limits) -> hyper::Result<Channel> {
    let (io, watch) = UpstreamIo::new(stream);
    // How a connection ends is told to whoever uses it; an unused one that ends is nobody's loss.
    match upstream.protocol() {
        Protocol::Http1 => {
            let mut builder = http1::Builder::new();
            builder.max_headers(limits.header_count).max_header_size(limits.header_bytes);
            let (sender, connection) = builder.handshake(io).await?;
            spawn_local(async move { drop(connection.with_upgrades().await) });
            Ok(Channel::own(sender, watch))
        }
        Protocol::H2c => {
            let mut builder = http2::Builder::new(Here);
            builder.max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX));
            let (sender, connection) = builder.handshake(io).await?;
            spawn_local(async move { drop(connection.await) });
            Ok(upstream.share(sender))
        }
    }
}

/// How long to wait before asking the kernel again when descriptors have run out: long enough for some to be closed.
pub(crate) const BREATHER: Duration = Duration::from_millis(10);
