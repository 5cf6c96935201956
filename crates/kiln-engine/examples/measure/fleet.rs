//! Many instances at once.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use kiln_engine::Engine;
use kiln_engine::embedded::Embedded;
use kiln_model::{InstanceId, InstanceOrder, InstanceState};
use kiln_testkit::fixture_image::FixtureImage;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use serde_json::{Value, json};

use super::usage::{Usage, keeper_bytes};
use super::{Result, server};

/// How many are ordered at once; those that run are asked while the next are made.
const AT_ONCE: usize = 128;

/// Starts so many, has each answer a request, and ends them.
pub(super) fn measure(
    engine: &Embedded,
    run_dir: &Path,
    image: &FixtureImage,
    count: usize,
) -> Result<Value> {
    let orders: Vec<InstanceOrder> =
        (0..count).map(|n| server(image, &format!("fleet-{count}-{n}"))).collect();
    let ids: Vec<InstanceId> = orders.iter().map(|o| o.id.clone()).collect();
    let (before, begun) = (Usage::now(run_dir)?, Instant::now());
    start_and_ask(engine, &orders)?;
    let started = begun.elapsed();
    let held = keeper_bytes(run_dir)?;
    let begun = Instant::now();
    engine.kill(&ids)?;
    let stopped = begun.elapsed();
    let cpu = Usage::now(run_dir)?.since(&before);
    engine.forget(&ids)?;
    Ok(json!({
        "count": count, "start_s": started.as_secs_f64(), "stop_s": stopped.as_secs_f64(),
        "cpu_s": cpu, "kiln_bytes_each": held / count as u64,
    }))
}

fn start_and_ask(engine: &Embedded, orders: &[InstanceOrder]) -> Result<()> {
    let (running, to_ask) = channel::<InstanceId>();
    std::thread::scope(|scope| {
        let asking = scope
            .spawn(move || to_ask.iter().try_for_each(|id| answered(engine, &id).map_err(|e| e.to_string())));
        for some in orders.chunks(AT_ONCE) {
            for status in engine.create(some)? {
                if !matches!(status.state, InstanceState::Running { .. }) {
                    return Err(format!("{status:?}").into());
                }
                running.send(status.id)?;
            }
        }
        drop(running);
        Ok(asking.join().map_err(|_| "the thread that asks has panicked")??)
    })
}

/// Asks an instance, again and again until it answers.
pub(super) fn answered(engine: &Embedded, id: &InstanceId) -> Result<()> {
    let port_80: SocketAddr = "127.0.0.1:80".parse()?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        let socket = engine.sockets(id, 1)?.remove(0);
        fcntl_setfl(&socket, fcntl_getfl(&socket)? - OFlags::NONBLOCK)?;
        if rustix::net::connect(&socket, &port_80).is_err() {
            continue;
        }
        let mut stream = TcpStream::from(socket);
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        if answer.starts_with(b"HTTP/1.") {
            return Ok(());
        }
    }
    Err(format!("{id} does not answer").into())
}
