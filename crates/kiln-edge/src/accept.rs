//! From a listener to connections whose protocol is known.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use crate::client_io::Marks;
use crate::clients::Whence;
use crate::connect::{BREATHER, is_exhausted};
use crate::connection::Connection;
use crate::metrics::Reason;
use crate::sockets::Door;
use crate::worker::Worker;
use crate::{greet, serve};

/// Accepts until the thread drains; what is already in the queue then is still accepted, since its clients believe
/// themselves connected.
pub(crate) async fn accept(worker: Rc<Worker>, door: Door, listener: TcpListener) {
    loop {
        let draining = worker.draining.notified();
        let at_rest = worker.connections.ended.notified();
        if worker.is_draining() {
            return accept_queued(&worker, door, &listener);
        }
        if worker.connections.len() >= worker.at_most {
            at_rest.await;
            continue;
        }
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => admit(&worker, door, stream, peer),
                Err(error) => cope(&worker, &error).await,
            },
            () = draining => {}
        }
    }
}

fn accept_queued(worker: &Rc<Worker>, door: Door, listener: &TcpListener) {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    while let std::task::Poll::Ready(Ok((stream, peer))) = listener.poll_accept(&mut context) {
        admit(worker, door, stream, peer);
    }
}

/// Most failures concern the one connection that failed. When descriptors have run out, unused connections to
/// instances are the ones to spare.
async fn cope(worker: &Worker, error: &io::Error) {
    if is_exhausted(error) {
        worker.registry.turned_away.count(Reason::Exhausted);
        worker.make_room();
        tokio::time::sleep(BREATHER).await;
    }
}

/// Where a connection comes from, and how many may; none if it comes from an instance that is served no more.
fn whence(worker: &Worker, door: Door, peer: SocketAddr) -> Option<(Whence, usize)> {
    let at_most = worker.limits.client_connections;
    if let Door::Inside(number) = door {
        return Some((Whence::Instance(worker.callers.get(number)?.instance.clone()), at_most));
    }
    let ip = peer.ip().to_canonical();
    Some((Whence::Address(ip), if worker.trust.covers(ip) { usize::MAX } else { at_most }))
}

fn admit(worker: &Rc<Worker>, door: Door, stream: TcpStream, peer: SocketAddr) {
    let Some((whence, at_most)) = whence(worker, door, peer) else { return };
    // One that has too many is told so by the end of the connection: a word would take what it is refused.
    let Some(admitted) = worker.clients.admit(whence, at_most) else {
        return worker.registry.turned_away.count(Reason::TooMany);
    };
    let marks = Marks::new(worker.epoch);
    let local = stream.local_addr().unwrap_or(peer);
    let connection = Rc::new(Connection::new(marks, local, admitted));
    let listed = worker.connections.list(connection.clone());
    let (key, connections) = (listed.key(), worker.connections.clone());
    let worker = worker.clone();
    let task = spawn_local(async move {
        // How a client's connection ends is the client's business; its requests have been counted.
        if let Ok(greeted) = greet::greet(&worker, door, &connection, stream, peer).await {
            serve::serve(worker, connection, greeted).await;
        }
        drop(listed);
    });
    connections.ended_by(key, task.abort_handle());
}
