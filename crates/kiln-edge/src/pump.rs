//! Two streams joined: bytes both ways until either side ends, or until they are told to.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
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

impl Talk {
    /// How long a client may be silent to an instance that has said its last.
    fn silence(self) -> Duration {
        match self {
            // It has nothing to do but to close, too (RFC 6455, 7.1.1).
            Self::Websocket => Duration::from_secs(2),
            // It may go on: only one of two streams has ended.
            Self::Opaque => Duration::from_secs(60),
        }
    }
}

/// What has gone in one direction.
#[derive(Default)]
struct Way {
    frames: Frames,
    pieces: u64,
}

impl Way {
    fn takes_a_goodbye(&self) -> bool {
        self.frames.is_between() && !self.frames.is_closed()
    }
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
    let (down, up) = (RefCell::<Way>::default(), RefCell::<Way>::default());
    let (down_ended, up_ended) = {
        let mut downwards = pin!(pass(&mut from_instance, &mut to_client, talk, &down, ticket));
        let mut upwards = pin!(pass(&mut from_client, &mut to_instance, talk, &up, ticket));
        tokio::select! {
            biased;
            ended = downwards.as_mut() => {
                let up_ended = match ended {
                    // What the client is in the middle of saying is waited for, and the client told in any case.
                    Ok(Ended::Told) => timeout(FAREWELL, upwards).await.ok(),
                    Ok(Ended::ByItself) => while_heard(upwards, &up, talk.silence()).await,
                    Err(_) => None,
                };
                (ended, up_ended)
            }
            ended = upwards.as_mut() => {
                let down_ended = if ended.is_ok() { downwards.await } else { Ok(Ended::ByItself) };
                (down_ended, Some(ended))
            }
        }
    };
    let has_failed = down_ended.is_err() || matches!(up_ended, Some(Err(_)));
    let is_told = matches!(down_ended, Ok(Ended::Told)) || matches!(up_ended, Some(Ok(Ended::Told)));
    if has_failed || !is_told {
        return Ended::ByItself;
    }
    if talk == Talk::Websocket && !down.borrow().frames.is_closed() {
        let _ = to_client.write_all(&GOODBYE_TO_CLIENT).await;
        // Within a message it would be taken for a part of that.
        if up_ended.is_some() && up.borrow().takes_a_goodbye() {
            let _ = to_instance.write_all(&GOODBYE_TO_SERVER).await;
        }
    }
    let _ = to_client.shutdown().await;
    let _ = to_instance.shutdown().await;
    // Closing with something unread would be a reset, and could take the goodbye with it.
    let _ = timeout(FAREWELL, drain(&mut from_client)).await;
    Ended::Told
}

/// What a client says to an instance that says nothing more; none if it falls silent without an end. Whether such an
/// instance still listens or has died shows only when it is told something.
async fn while_heard(
    mut upwards: Pin<&mut impl Future<Output = io::Result<Ended>>>,
    way: &RefCell<Way>,
    silence: Duration,
) -> Option<io::Result<Ended>> {
    loop {
        let before = way.borrow().pieces;
        match timeout(silence, upwards.as_mut()).await {
            Ok(ended) => return Some(ended),
            Err(_) if way.borrow().pieces == before => return None,
            Err(_) => {}
        }
    }
}

/// One direction. When told to end it does so where the talk allows it.
async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    talk: Talk,
    way: &RefCell<Way>,
    ticket: &Ticket,
) -> io::Result<Ended> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let may_end = talk == Talk::Opaque || way.borrow().frames.is_between();
        let Some(length) = unless_told(from.read(&mut buffer), may_end, ticket).await else {
            return Ok(Ended::Told);
        };
        let length = length?;
        if length == 0 {
            to.shutdown().await?;
            return Ok(Ended::ByItself);
        }
        way.borrow_mut().pieces += 1;
        to.write_all(&buffer[..length]).await?;
        if talk == Talk::Websocket {
            way.borrow_mut().frames.pass(&buffer[..length]);
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

#[cfg(test)]
mod tests {
    use tokio::io::duplex;
    use tokio::time::{Instant, sleep};

    use super::*;

    /// An instance that has said its last, and a client that says so many words, one every ten seconds, and does not close:
    /// how long they are joined.
    async fn joined(talk: Talk, words: u32) -> Duration {
        let (mut client, here) = duplex(64);
        let (mut instance, there) = duplex(64);
        let begun = Instant::now();
        let speaking = async {
            for _ in 0..words {
                sleep(Duration::from_secs(10)).await;
                client.write_all(b"word").await.unwrap();
            }
        };
        instance.shutdown().await.unwrap();
        let ticket = Ticket::default();
        let mut heard = Vec::new();
        let listening = instance.read_to_end(&mut heard);
        let (ended, (), _) = tokio::join!(
            async {
                let ended = join(here, there, talk, &ticket).await;
                (ended, begun.elapsed())
            },
            speaking,
            listening
        );
        assert_eq!((ended.0, heard.len()), (Ended::ByItself, 4 * words as usize));
        ended.1
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_that_says_nothing_more_is_spoken_to_until_its_client_falls_silent() {
        assert_eq!(joined(Talk::Opaque, 0).await, Duration::from_secs(60));
        let with_words = joined(Talk::Opaque, 20).await;
        assert!((260..=320).contains(&with_words.as_secs()), "{with_words:?}");
        assert_eq!(joined(Talk::Websocket, 0).await, Duration::from_secs(2));
    }
}
