//! New connections to instances.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use kiln_model::Protocol;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::Limits;
use crate::refusal::Refusal;
use crate::stock::Stock;
use crate::tasks::Here;
use crate::upstream::{Channel, Upstream};
use crate::upstream_io::UpstreamIo;

/// A fresh connection to `upstream`.
pub(crate) async fn connect(upstream: &Upstream, stock: &Stock, limits: &Limits) -> Result<Channel, Refusal> {
    match timeout(limits.connect, stream(upstream, stock)).await {
        Ok(Ok(stream)) => handshake(upstream, stream, limits).await.map_err(|_| Refusal::Unreachable),
        Ok(Err(_)) => Err(Refusal::Unreachable),
        Err(_) => Err(Refusal::ConnectTimeout),
    }
}

/// A fresh connection on which nothing has been said.
pub(crate) async fn stream(upstream: &Upstream, stock: &Stock) -> io::Result<TcpStream> {
    let socket: OwnedFd = stock.socket(upstream.id()).await?;
    let socket = TcpSocket::from_std_stream(socket.into());
    let stream = socket.connect(stock.dial().address(upstream.id(), upstream.port())).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
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
