//! What comes before the first request: who the client is, whether it speaks TLS, and which HTTP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::client_io::{ClientIo, Marks};
use crate::connection::Connection;
use crate::inside::Caller;
use crate::metrics::Reason;
use crate::origin::{Peer, Scheme};
use crate::proofs::ALPN;
use crate::proxy_header::{self, ProxyHeader};
use crate::sockets::Door;
use crate::worker::Worker;

/// What a client of HTTP/2 that needs no negotiation begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long to wait for the rest of something that came in pieces before looking again.
const PIECES: Duration = Duration::from_millis(5);

/// A connection whose first request can be read.
pub(crate) enum Greeted {
    Http1(ClientIo),
    Http2(ClientIo),
    /// Questions about figures.
    Metrics(ClientIo),
    /// Bytes, for the route with this port.
    Tcp(TcpStream, u16),
    /// Bytes, for a store.
    Store(TcpStream, Arc<Caller>),
}

/// Finds out what there is to know of a connection.
///
/// # Errors
/// If the client does not do its part.
pub(crate) async fn greet(
    worker: &Worker,
    door: Door,
    connection: &Connection,
    mut stream: TcpStream,
    peer: SocketAddr,
) -> io::Result<Greeted> {
    let marks = &connection.marks;
    if let Door::Inside(number) = door {
        let caller = worker.callers.get(number).ok_or(io::ErrorKind::NotFound)?;
        connection.is_called_by(caller.clone());
        connection.is_from(Peer::new(peer, Scheme::Http, &worker.trust));
        let is_store = worker.balance().is_store(&caller);
        return if is_store { Ok(Greeted::Store(stream, caller)) } else { plain(stream, marks).await };
    }
    // Whoever wants figures comes himself, and not by the way of clients.
    let is_sent = door != Door::Metrics && worker.reads_proxy_headers && worker.trust.covers(peer.ip());
    let peer = match is_sent {
        true => match proxied(&mut stream, marks).await {
            Ok(source) => source.unwrap_or(peer),
            Err(error) => {
                worker.registry.turned_away.count(Reason::NoProxyHeader);
                return Err(error);
            }
        },
        false => peer,
    };
    let scheme = if door == Door::Https { Scheme::Https } else { Scheme::Http };
    connection.is_from(Peer::new(peer, scheme, &worker.trust));
    match door {
        Door::Http | Door::Inside(_) => plain(stream, marks).await,
        Door::Metrics => Ok(Greeted::Metrics(ClientIo::plain(stream, marks.clone()))),
        Door::Tcp(port) => Ok(Greeted::Tcp(stream, port)),
        // Boxed, so that those who do not need it do not carry its weight.
        Door::Https => Box::pin(secure(worker, stream, marks)).await,
    }
}

/// The client's address as a trusted peer gives it; none if the peer speaks for itself.
async fn proxied(stream: &mut TcpStream, marks: &Marks) -> io::Result<Option<SocketAddr>> {
    marks.expect();
    let mut seen = vec![0; proxy_header::ENOUGH];
    loop {
        let length = stream.peek(&mut seen).await?;
        match proxy_header::parse(&seen[..length]) {
            ProxyHeader::Complete(length, source) => {
                stream.read_exact(&mut seen[..length]).await?;
                marks.settled();
                return Ok(source);
            }
            ProxyHeader::Partial if length > 0 => tokio::time::sleep(PIECES).await,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

async fn plain(stream: TcpStream, marks: &Arc<Marks>) -> io::Result<Greeted> {
    loop {
        let mut seen = [0; PREFACE.len()];
        let length = stream.peek(&mut seen).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if seen[..length] == PREFACE[..] {
            return Ok(Greeted::Http2(ClientIo::plain(stream, marks.clone())));
        }
        if !PREFACE.starts_with(&seen[..length]) {
            return Ok(Greeted::Http1(ClientIo::plain(stream, marks.clone())));
        }
        marks.bytes_came();
        tokio::time::sleep(PIECES).await;
    }
}

async fn secure(worker: &Worker, stream: TcpStream, marks: &Arc<Marks>) -> io::Result<Greeted> {
    marks.expect();
    let handshake = worker.registry.tls.begin();
    let stream = worker.tls.accept(stream).await;
    handshake.ends(&stream);
    let stream = stream?;
    marks.settled();
    let agreed = stream.get_ref().1.alpn_protocol();
    if agreed == Some(ALPN) {
        // It has seen what it wanted to see, and may ask nothing.
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let is_h2 = agreed == Some(b"h2");
    let io = ClientIo::tls(stream, marks.clone());
    Ok(if is_h2 { Greeted::Http2(io) } else { Greeted::Http1(io) })
}
