//! The edge's end of its control socket.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener as StdListener;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::spawn_local;

use crate::connect::BREATHER;
use crate::director::Director;
use crate::passing;
use crate::protocol::{Request, announced, encode};

/// Answers whoever connects and is `owner`, until the process ends.
pub(crate) async fn take_orders(listener: StdListener, owner: u32, director: Rc<Director>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) if is_owner(&stream, owner) => {
                let director = director.clone();
                // One who leaves before the answer has nobody else to tell.
                spawn_local(async move { drop(converse(stream, &director).await) });
            }
            Ok(_) => {}
            // Descriptors have run out, and will come back.
            Err(_) => tokio::time::sleep(BREATHER).await,
        }
    }
}

/// The kernel vouches for the user at the other end; the socket's file mode alone could be changed.
fn is_owner(stream: &UnixStream, owner: u32) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == owner)
}

async fn converse(mut stream: UnixStream, director: &Rc<Director>) -> io::Result<()> {
    let (mut prefix, mut fds) = ([0; 4], Vec::new());
    let mut have = 0;
    while have < prefix.len() {
        let receive = || passing::receive(&stream, &mut prefix[have..], &mut fds);
        match stream.async_io(Interest::READABLE, receive).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => have += length,
        }
    }
    let mut body = vec![0; announced(prefix)?];
    stream.read_exact(&mut body).await?;
    let request = Request::decode(&body)?;
    let (reply, fds) = director.obey(request, fds).await;
    let frame = encode(&reply)?;
    let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let sent = stream.async_io(Interest::WRITABLE, || passing::send(&stream, &frame, &borrowed)).await?;
    let written = stream.write_all(&frame[sent..]).await;
    if director.is_drained() {
        director.ended.notify_one();
    }
    written
}
