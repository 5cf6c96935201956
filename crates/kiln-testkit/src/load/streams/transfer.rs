//! Slow downloads and uploads.

use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use super::ledger::Outcome;
use super::plan::StreamPlan;
use super::wire::Wire;

/// In how many pieces an upload is sent.
const PIECES: u32 = 20;

/// Takes a download as it comes.
pub(super) async fn download(plan: &StreamPlan, path: &str, bytes: usize) -> Outcome {
    let mut wire = Wire::open(plan.address).await?;
    let asked = Instant::now();
    wire.send(head("GET", plan, path, "").as_bytes()).await?;
    let head = wire.head(200, "").await?;
    let (waited, mut body) = (asked.elapsed(), Vec::new());
    let ended = wire.body(head.length, &mut body).await;
    ended.map_err(|how| format!("{how} after {} of {bytes} bytes", body.len()))?;
    if body.len() != bytes {
        return Err(format!("a download of {} bytes instead of {bytes}", body.len()).into());
    }
    Ok(waited)
}

/// Sends an upload piece by piece and waits for the answer to all of it.
pub(super) async fn upload(plan: &StreamPlan, path: &str, bytes: usize, takes: Duration) -> Outcome {
    let mut wire = Wire::open(plan.address).await?;
    wire.send(head("POST", plan, path, &format!("Content-Length: {bytes}\r\n")).as_bytes()).await?;
    let begun = tokio::time::Instant::now();
    let mut sent = 0;
    for piece in 1..=PIECES {
        let until = bytes * piece as usize / PIECES as usize;
        let sending = wire.send(&vec![b'x'; until - sent]).await;
        sending.map_err(|how| format!("{how}, after {sent} of {bytes} bytes"))?;
        sent = until;
        sleep_until(begun + takes * piece / PIECES).await;
    }
    let asked = Instant::now();
    let head = wire.head(200, "").await?;
    let waited = asked.elapsed();
    wire.body(head.length, &mut Vec::new()).await?;
    Ok(waited)
}

fn head(method: &str, plan: &StreamPlan, path: &str, more: &str) -> String {
    let host = &plan.host;
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n")
}
