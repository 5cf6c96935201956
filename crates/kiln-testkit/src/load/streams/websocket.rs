//! Conversations over websockets (RFC 6455): a real handshake, masked frames, and a goodbye from both sides.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use tokio::time::sleep_until;

use super::ledger::Outcome;
use super::plan::StreamPlan;
use super::wire::Wire;

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Has one conversation.
pub(super) async fn talk(plan: &StreamPlan, path: &str, messages: usize, pace: Duration) -> Outcome {
    let mut wire = Wire::open(plan.address).await?;
    let asked = Instant::now();
    shake_hands(&mut wire, &plan.host, path).await?;
    let waited = asked.elapsed();
    let mut talk = Conversation { wire, ticks: 0 };
    let begun = tokio::time::Instant::now();
    for n in 0..messages {
        let came_back = talk.say_and_hear(&format!("message {n}")).await;
        came_back.map_err(|how| format!("{how} after {n} of {messages} messages"))?;
        sleep_until(begun + pace * (n as u32 + 1)).await;
    }
    talk.part().await.map_err(|how| format!("{how} instead of the other's goodbye"))?;
    if talk.ticks == 0 {
        return Err("the service said nothing of itself".to_owned().into());
    }
    Ok(waited)
}

async fn shake_hands(wire: &mut Wire, host: &str, path: &str) -> Result<(), String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let key = STANDARD.encode(now.as_nanos().to_le_bytes());
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    );
    wire.send(request.as_bytes()).await?;
    let head = wire.head(101, "sec-websocket-accept").await?;
    let accepted = STANDARD.encode(Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11")));
    match head.marker {
        Some(marker) if marker == accepted => Ok(()),
        other => Err(format!("the key {key} was accepted with {other:?} instead of {accepted}")),
    }
}

struct Conversation {
    wire: Wire,
    /// How many things the service has said of itself.
    ticks: usize,
}

impl Conversation {
    async fn say_and_hear(&mut self, text: &str) -> Result<(), String> {
        self.send(TEXT, text.as_bytes()).await?;
        loop {
            let (kind, payload) = self.frame().await?;
            match kind {
                TEXT if payload == text.as_bytes() => return Ok(()),
                TEXT => self.tick(&payload)?,
                PING => self.send(PONG, &payload).await?,
                _ => return Err(named(kind, &payload)),
            }
        }
    }

    /// Says goodbye (1000), and hears what was on its way until the other side has said it as well and closed.
    async fn part(&mut self) -> Result<(), String> {
        let goodbye = 1000_u16.to_be_bytes();
        self.send(CLOSE, &goodbye).await?;
        loop {
            let (kind, payload) = self.frame().await?;
            match kind {
                CLOSE if payload.starts_with(&goodbye) => return self.wire.end().await,
                TEXT => self.tick(&payload)?,
                PING => {}
                _ => return Err(named(kind, &payload)),
            }
        }
    }

    fn tick(&mut self, payload: &[u8]) -> Result<(), String> {
        let expected = format!("tick {}", self.ticks);
        if payload != expected.as_bytes() {
            return Err(format!("{:?} instead of {expected:?}", String::from_utf8_lossy(payload)));
        }
        self.ticks += 1;
        Ok(())
    }

    async fn send(&mut self, kind: u8, payload: &[u8]) -> Result<(), String> {
        assert!(payload.len() < 126, "a short frame");
        let mask = [0x4b, 0x69, 0x6c, 0x6e];
        let mut frame = vec![0x80 | kind, 0x80 | payload.len() as u8];
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.wire.send(&frame).await
    }

    /// The next frame: what it is, and what it carries. It must be a whole message, short, and not masked.
    async fn frame(&mut self) -> Result<(u8, Vec<u8>), String> {
        let head = self.wire.exactly(2).await?;
        match head[..] {
            [first, length @ ..126] if first & 0xf0 == 0x80 => {
                Ok((first & 0x0f, self.wire.exactly(length.into()).await?))
            }
            _ => Err(format!("no frame that a service sends: {head:02x?}")),
        }
    }
}

fn named(kind: u8, payload: &[u8]) -> String {
    match (kind, payload) {
        (CLOSE, [a, b, ..]) => format!("a goodbye with code {}", u16::from_be_bytes([*a, *b])),
        _ => format!("a frame of kind {kind} with {payload:02x?}"),
    }
}
