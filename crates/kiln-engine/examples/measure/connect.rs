//! What a connection into an instance costs whoever has sockets of the broker, beside one over the host's own loopback.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use kiln_engine::embedded::{Embedded, broker};
use kiln_engine::{Broker, Engine};
use kiln_model::{Inside, InstanceOrder};
use kiln_testkit::fixture_image::FixtureImage;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use serde_json::{Value, json};

use super::{Result, median};

/// As many sockets as the edge asks for at once on a busy route.
const BATCH: u32 = 64;
const ROUNDS: usize = 100;

/// The same process listens in both places, so that only the network differs.
pub(super) fn measure(engine: &Embedded, run_dir: &Path, image: &FixtureImage) -> Result<Value> {
    let (name, address) = ("here".parse()?, Ipv4Addr::new(127, 77, 0, 1));
    let need = Inside { name, address, ports: BTreeSet::from([80]), store: None };
    let order = InstanceOrder { needs: vec![need], ..image.order("connected", &["/bin/sleep", "1000"]) };
    engine.create(std::slice::from_ref(&order))?;
    let broker = broker::Client::connect(&broker::socket_path(run_dir))?;
    let inside = TcpListener::from(broker.listeners(&order.id)?.remove(0).1);
    let outside = TcpListener::bind("127.0.0.1:0")?;
    let [mut made, mut there, mut here] = [const { Vec::new() }; 3];
    // In turns, so that other work on the machine meets all of them.
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let sockets = broker.sockets(&order.id, BATCH)?;
        made.push(begun.elapsed());
        there.push(connected(sockets, &inside)?);
        here.push(connected((0..BATCH).map(|_| plain()).collect::<Result<_>>()?, &outside)?);
    }
    engine.kill(&[order.id])?;
    let each = |times: Vec<Duration>| median(times).as_secs_f64() / f64::from(BATCH);
    Ok(json!({ "socket_s": each(made), "connect_s": each(there), "plain_connect_s": each(here) }))
}

fn plain() -> Result<OwnedFd> {
    Ok(socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?)
}

/// How long it takes until all are connected, accepted and closed again.
fn connected(sockets: Vec<OwnedFd>, listener: &TcpListener) -> Result<Duration> {
    let address: SocketAddr = listener.local_addr()?;
    listener.set_nonblocking(false)?;
    let begun = Instant::now();
    for socket in sockets {
        match connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => drop(listener.accept()?),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(begun.elapsed())
}
