//! From inside an instance to a store outside: bytes both ways, to where the release says.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::connect::unreached;
use crate::connection::Connection;
use crate::counts::Turn;
use crate::inside::Caller;
use crate::lease::Reply;
use crate::pump::{self, Talk};
use crate::refusal::Refusal;
use crate::worker::Worker;

/// Passes an instance's connection on. If the store does not answer, it is reset, and counted as failed with who
/// needed it.
///
/// It is in flight at no fleet: a connection to a database stays open for as long as its instance lives, and nobody
/// waits for its end.
pub(crate) async fn pass(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    caller: &Caller,
    stream: TcpStream,
) {
    let turn = Turn::begin(worker.totals.clone());
    let reached = match timeout(worker.limits.connect, reach(worker, caller)).await {
        Ok(reached) => reached.map_err(|error| unreached(&error)),
        Err(_) => Err(Refusal::ConnectTimeout),
    };
    match reached {
        Ok(store) => {
            drop(turn);
            let reply = Reply::untold(worker.clone(), connection.clone());
            pump::join(stream, store, Talk::Opaque, reply.ticket()).await;
        }
        Err(why) => {
            turn.failed();
            worker.registry.stores.failed(caller, why);
            // A reset is what nobody mistakes for an answer.
            let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
        }
    }
}

/// The keeper begins the connection, and knows where it leads; this waits for it.
async fn reach(worker: &Worker, caller: &Caller) -> io::Result<TcpStream> {
    let socket = worker.stock.store(&caller.instance, &caller.need).await?;
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => stream.peer_addr().map(|_| stream),
    }
}
