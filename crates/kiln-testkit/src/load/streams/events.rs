//! Server-sent events.

use std::time::Instant;

use super::ledger::Outcome;
use super::plan::StreamPlan;
use super::wire::Wire;

/// Hears them all.
pub(super) async fn hear(plan: &StreamPlan, path: &str, events: usize) -> Outcome {
    let mut wire = Wire::open(plan.address).await?;
    let host = &plan.host;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n");
    let asked = Instant::now();
    wire.send(request.as_bytes()).await?;
    let head = wire.head(200, "content-type").await?;
    let waited = asked.elapsed();
    if head.marker.as_deref() != Some("text/event-stream") {
        return Err(format!("no events but {:?}", head.marker).into());
    }
    let mut heard = Vec::new();
    let ended = wire.body(head.length, &mut heard).await;
    let of = |heard: &[u8]| heard.windows(2).filter(|w| w == b"\n\n").count();
    ended.map_err(|how| format!("{how} after {} of {events} events", of(&heard)))?;
    let expected: String = (0..events).map(|n| format!("data: {n}\n\n")).collect();
    if heard != expected.as_bytes() {
        return Err(format!("an end after {} of {events} events, or others", of(&heard)).into());
    }
    Ok(waited)
}
