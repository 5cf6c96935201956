//! From a listener to served connections.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use crate::client_io::{ClientIo, Marks};
use crate::connect::BREATHER;
use crate::connection::{Connection, Listed};
use crate::forward;
use crate::worker::Worker;

/// Accepts until the thread drains; what is already in the queue then is still accepted, since its clients believe
/// themselves connected.
pub(crate) async fn accept(worker: Rc<Worker>, listener: TcpListener) {
    loop {
        let draining = worker.draining.notified();
        let at_rest = worker.connections.ended.notified();
        if worker.is_draining() {
            return accept_queued(&worker, &listener);
        }
        if worker.connections.len() >= worker.at_most {
            at_rest.await;
            continue;
        }
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => admit(&worker, stream, peer),
                Err(error) => cope(&worker, &error).await,
            },
            () = draining => {}
        }
    }
}

fn accept_queued(worker: &Rc<Worker>, listener: &TcpListener) {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    while let std::task::Poll::Ready(Ok((stream, peer))) = listener.poll_accept(&mut context) {
        admit(worker, stream, peer);
    }
}

/// Most failures concern the one connection that failed. When descriptors have run out, unused connections to
/// instances are the ones to spare.
async fn cope(worker: &Worker, error: &io::Error) {
    let exhausted = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    if error.raw_os_error().is_some_and(|e| exhausted.contains(&e)) {
        worker.balance().upstreams().for_each(|u| u.close_idle());
        tokio::time::sleep(BREATHER).await;
    }
}

fn admit(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let marks = Marks::new(worker.epoch);
    let local = stream.local_addr().unwrap_or(peer);
    let connection = Rc::new(Connection::new(marks.clone(), peer, local));
    let listed = worker.connections.list(connection.clone());
    let io = ClientIo::new(stream, marks);
    let (key, connections) = (listed.key(), worker.connections.clone());
    let task = spawn_local(serve(worker.clone(), connection, io, listed));
    connections.ended_by(key, task.abort_handle());
}

async fn serve(worker: Rc<Worker>, connection: Rc<Connection>, io: ClientIo, _listed: Listed) {
    let (at, from) = (worker.clone(), connection);
    let service = service_fn(move |request| {
        let answer = forward::answer(at.clone(), from.clone(), request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let limits = &worker.limits;
    let mut builder = http1::Builder::new();
    builder.max_headers(limits.header_count).max_header_size(limits.header_bytes);
    let mut http = pin!(builder.serve_connection(io, service).with_upgrades());
    tokio::select! {
        // How a client's connection ends is the client's business; its requests have been counted.
        _ = http.as_mut() => return,
        () = worker.closing() => http.as_mut().graceful_shutdown(),
    }
    let _ = http.await;
}
