//! A connection of HTTP/1.1 whose bytes are looked at as they come.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::plan::Marker;
use super::super::response::{Head, Length};

/// One connection, and what has come over it and was not taken yet.
pub(super) struct Wire {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Wire {
    pub(super) async fn open(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|e| format!("connecting: {e}"))?;
        stream.set_nodelay(true).map_err(|e| format!("connecting: {e}"))?;
        Ok(Self { stream, bytes: Vec::new() })
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).await.map_err(|e| format!("sending: {e}"))
    }

    /// The head of an answer with this status, and the value of one of its fields.
    pub(super) async fn head(&mut self, status: u16, field: &str) -> Result<Head, String> {
        let marker = Marker::Header(field.into());
        let (head, end) = loop {
            match Head::parse(&self.bytes, &marker) {
                Some(head) => break head?,
                None => self.more().await.map_err(|how| format!("{how} before the end of the head"))?,
            }
        };
        self.bytes.drain(..end);
        if head.status != status {
            return Err(format!("answered {}", head.status));
        }
        Ok(head)
    }

    /// Takes the body to its end, which must be a proper one; what had come stays in `body` if there is none.
    pub(super) async fn body(&mut self, length: Length, body: &mut Vec<u8>) -> Result<(), String> {
        match length {
            Length::Known(length) => self.take(length, body).await,
            Length::Chunked => {
                while self.chunk(body).await? {}
                Ok(())
            }
            Length::UntilClose => Err("an answer of which nobody can tell whether it is whole".into()),
        }
    }

    /// So many bytes.
    pub(super) async fn exactly(&mut self, count: usize) -> Result<Vec<u8>, String> {
        while self.bytes.len() < count {
            self.more().await?;
        }
        Ok(self.bytes.drain(..count).collect())
    }

    /// Waits for the end of the connection, before which nothing may come.
    pub(super) async fn end(&mut self) -> Result<(), String> {
        if self.bytes.is_empty() && self.more().await.is_err() {
            return Ok(());
        }
        Err(format!("{} bytes behind the end", self.bytes.len()))
    }

    /// One chunk; false if it was the last, the empty one.
    async fn chunk(&mut self, body: &mut Vec<u8>) -> Result<bool, String> {
        let line = loop {
            match self.bytes.windows(2).position(|w| w == b"\r\n") {
                Some(end) => break self.exactly(end + 2).await?,
                None => self.more().await?,
            }
        };
        let size = std::str::from_utf8(&line).ok().and_then(|l| usize::from_str_radix(l.trim_end(), 16).ok());
        let size = size.ok_or("a chunk without a size")?;
        self.take(size, body).await?;
        match self.exactly(2).await?.as_slice() {
            b"\r\n" => Ok(size > 0),
            _ => Err("a chunk longer than its size".into()),
        }
    }

    async fn take(&mut self, mut count: usize, to: &mut Vec<u8>) -> Result<(), String> {
        while count > 0 {
            if self.bytes.is_empty() {
                self.more().await?;
            }
            let here = self.bytes.len().min(count);
            to.extend(self.bytes.drain(..here));
            count -= here;
        }
        Ok(())
    }

    async fn more(&mut self) -> Result<(), String> {
        match self.stream.read_buf(&mut self.bytes).await {
            Ok(0) => Err("closed".into()),
            Ok(_) => Ok(()),
            Err(e) => Err(format!("reading: {e}")),
        }
    }
}
