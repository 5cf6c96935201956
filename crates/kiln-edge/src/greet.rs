//! What comes before the first request: who the client is, whether it speaks TLS, and which HTTP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::client_io::{ClientIo, Marks};
use crate::connection::Connection;
use crate::inside::Caller;
use crate::metrics::Reason;
use crate::origin::{Peer, Scheme};
use crate::proofs::ALPN;
use crate::proxy_header::{self, ProxyHeader, Source};
use crate::sockets::Door;
use crate::trust::Trust;
use crate::worker::Worker;

/// What a client of HTTP/2 that needs no negotiation begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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
        // Inside every instance there is a 127.0.0.1 of its own: whom the host trusts is nobody in there.
        connection.is_from(Peer::new(peer, Scheme::Http, &Trust::default()));
        let is_store = worker.balance().is_store(&caller);
        return if is_store { Ok(Greeted::Store(stream, caller)) } else { plain(stream, marks).await };
    }
    // Whoever wants figures comes himself, and not by the way of clients.
    let is_sent = door != Door::Metrics && worker.reads_proxy_headers && worker.trust.covers(peer.ip());
    let source = match is_sent {
        true => proxied(&mut stream, marks).await.inspect_err(|_| {
            worker.registry.turned_away.count(Reason::NoProxyHeader);
        })?,
        false => Source::Peer,
    };
    let scheme = if door == Door::Https { Scheme::Https } else { Scheme::Http };
    connection.is_from(match source {
        Source::Peer => Peer::new(peer, scheme, &worker.trust),
        Source::Client(client) => Peer::new(client, scheme, &worker.trust),
        // Whoever it is, it is not the peer that is trusted.
        Source::Unknown => Peer::new(peer, scheme, &Trust::default()),
    });
    match door {
        Door::Http | Door::Inside(_) => plain(stream, marks).await,
        Door::Metrics => Ok(Greeted::Metrics(ClientIo::plain(stream, marks.clone()))),
        Door::Tcp(port) => Ok(Greeted::Tcp(stream, port)),
        // Boxed, so that those who do not need it do not carry its weight.
        Door::Https => Box::pin(secure(worker, stream, marks)).await,
    }
}

/// For whom a trusted peer says that it speaks.
async fn proxied(stream: &mut TcpStream, marks: &Marks) -> io::Result<Source> {
    marks.expect();
    let (mut seen, mut read) = (vec![0; proxy_header::ENOUGH], 0);
    loop {
        let there = read + look(stream, &mut seen[read..]).await?;
        match proxy_header::parse(&seen[..there]) {
            ProxyHeader::Complete(length, source) => {
                stream.read_exact(&mut seen[read..length]).await?;
                marks.settled();
                return Ok(source);
            }
            ProxyHeader::Partial => read += stream.read_exact(&mut seen[read..there]).await?,
            ProxyHeader::Malformed => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

async fn plain(mut stream: TcpStream, marks: &Arc<Marks>) -> io::Result<Greeted> {
    let (mut seen, mut read) = ([0; PREFACE.len()], 0);
    loop {
        let there = read + look(&stream, &mut seen[read..]).await?;
        let is_h2 = seen[..there] == PREFACE[..];
        if is_h2 || !PREFACE.starts_with(&seen[..there]) {
            let mut io = ClientIo::plain(stream, marks.clone());
            io.give_back(seen[..read].to_vec());
            return Ok(if is_h2 { Greeted::Http2(io) } else { Greeted::Http1(io) });
        }
        marks.bytes_came();
        read += stream.read_exact(&mut seen[read..there]).await?;
    }
}

/// What there is to be read, without reading it. What does not say enough has to be read before the next look: that waits
/// for what is new then, and sees the end.
async fn look(stream: &TcpStream, room: &mut [u8]) -> io::Result<usize> {
    match stream.peek(room).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        length => Ok(length),
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
