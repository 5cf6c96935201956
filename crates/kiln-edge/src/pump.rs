//! Two streams joined: bytes both ways until either side ends, or until they are told to.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::time::timeout;

use crate::cut::Ticket;
use crate::websocket::{Frames, GOODBYE_TO_CLIENT, GOODBYE_TO_SERVER};

const BUFFER: usize = 8 * 1024;
/// How long a client may take to agree that a websocket is closed.
const FAREWELL: Duration = Duration::from_millis(200);

/// What flows through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Talk {
    /// Frames, between which a close can be said.
    Websocket,
    /// Whatever: the end of the stream is all there is to say.
    Opaque,
}

/// How it came to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By one of the two.
    ByItself,
    /// Because the ticket said so.
    Told,
}

/// Joins `client` and `instance`. An upgraded connection has no failures that HTTP knows of: any is just its end.
pub(crate) async fn join<C, I>(client: C, instance: I, talk: Talk, ticket: &Ticket) -> Ended
where
    C: AsyncRead + AsyncWrite + Unpin,
    I: AsyncRead + AsyncWrite + Unpin,
{
    let ((mut from_client, mut to_client), (mut from_instance, mut to_instance)) =
        (split(client), split(instance));
    let (down, up) = (RefCell::new(Frames::default()), RefCell::new(Frames::default()));
    let both = tokio::try_join!(
        pass(&mut from_instance, &mut to_client, talk, &down, ticket),
        pass(&mut from_client, &mut to_instance, talk, &up, ticket),
    );
    let told = matches!(both, Ok((Ended::Told, _) | (_, Ended::Told)));
    if !told {
        return Ended::ByItself;
    }
    if talk == Talk::Websocket && !down.borrow().is_closed() {
        let _ = to_client.write_all(&GOODBYE_TO_CLIENT).await;
        if !up.borrow().is_closed() && up.borrow().is_between() {
            let _ = to_instance.write_all(&GOODBYE_TO_SERVER).await;
        }
    }
    let _ = to_client.shutdown().await;
    let _ = to_instance.shutdown().await;
    // Closing with something unread would be a reset, and could take the goodbye with it.
    let _ = timeout(FAREWELL, drain(&mut from_client)).await;
    Ended::Told
}

/// One direction. When told to end it does so where the talk allows it.
async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    talk: Talk,
    frames: &RefCell<Frames>,
    ticket: &Ticket,
) -> io::Result<Ended> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let may_end = talk == Talk::Opaque || frames.borrow().is_between();
        let Some(length) = unless_told(from.read(&mut buffer), may_end, ticket).await else {
            return Ok(Ended::Told);
        };
        let length = length?;
        if length == 0 {
            to.shutdown().await?;
            return Ok(Ended::ByItself);
        }
        to.write_all(&buffer[..length]).await?;
        if talk == Talk::Websocket {
            frames.borrow_mut().pass(&buffer[..length]);
        }
    }
}

/// None if told to end first, at a moment at which that may be.
async fn unless_told<T>(future: impl Future<Output = T>, may_end: bool, ticket: &Ticket) -> Option<T> {
    let mut future = pin!(future);
    tokio::select! {
        biased;
        done = future.as_mut() => Some(done),
        () = ticket.told(), if may_end => None,
    }
}

async fn drain(from: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = [0; 512];
    while matches!(from.read(&mut buffer).await, Ok(length) if length > 0) {}
}
