//! One connection of the load.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::plan::LoadPlan;
use super::response::{Head, Length, chunks, first_line};

/// A connection on which nothing is under way.
pub(super) struct Connection {
    stream: TcpStream,
    /// Requests sent over it.
    asked: u32,
}

/// A good answer.
pub(super) struct Answer {
    pub(super) marker: String,
    /// Whether the connection can be used again.
    pub(super) keeps: bool,
}

impl Connection {
    pub(super) async fn open(plan: &LoadPlan) -> Result<Self, String> {
        let opened = timeout(plan.timeout, TcpStream::connect(plan.address)).await;
        let stream = opened.map_err(|_| "connecting timed out")?.map_err(|e| failed("connecting", &e))?;
        stream.set_nodelay(true).map_err(|e| failed("connecting", &e))?;
        Ok(Self { stream, asked: 0 })
    }

    /// Whether the service has closed it meanwhile: seen before a request is sent, that is its right.
    pub(super) fn is_closed(&self) -> bool {
        !matches!(self.stream.try_read(&mut [0; 1]), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    /// One request; anything but 200 with a whole body is an error that says what it was.
    pub(super) async fn ask(&mut self, plan: &LoadPlan, request: &[u8]) -> Result<Answer, String> {
        match timeout(plan.timeout, self.exchange(plan, request)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no whole answer within {:?}", plan.timeout)),
        }
    }

    async fn exchange(&mut self, plan: &LoadPlan, request: &[u8]) -> Result<Answer, String> {
        self.asked += 1;
        self.stream.write_all(request).await.map_err(|e| failed("sending", &e))?;
        let mut bytes = Vec::with_capacity(1024);
        let (head, end) = loop {
            match Head::parse(&bytes, &plan.marker) {
                Some(head) => break head?,
                None => self.more(&mut bytes, "before the end of the head").await?,
            }
        };
        bytes.drain(..end);
        let body = self.body(&head, bytes).await?;
        if head.status != 200 {
            return Err(format!("answered {}: {}", head.status, first_line(&body)));
        }
        let marker = head.marker.unwrap_or_else(|| first_line(&body));
        Ok(Answer { marker, keeps: !head.closes })
    }

    async fn body(&mut self, head: &Head, mut bytes: Vec<u8>) -> Result<Vec<u8>, String> {
        loop {
            match head.length {
                Length::Known(length) if bytes.len() == length => return Ok(bytes),
                Length::Known(length) if bytes.len() > length => return Err("a longer body than said".into()),
                Length::Chunked => {
                    if let Some(body) = chunks(&bytes) {
                        return body;
                    }
                }
                Length::UntilClose => {
                    let rest = self.stream.read_to_end(&mut bytes).await;
                    return rest.map(|_| bytes).map_err(|e| failed("reading", &e));
                }
                Length::Known(_) => {}
            }
            self.more(&mut bytes, "before the end of the body").await?;
        }
    }

    async fn more(&mut self, bytes: &mut Vec<u8>, when: &str) -> Result<(), String> {
        match self.stream.read_buf(bytes).await {
            Ok(0) if bytes.is_empty() => {
                Err(format!("closed without an answer to request {} of its connection", self.asked))
            }
            Ok(0) => Err(format!("closed {when}")),
            Ok(_) => Ok(()),
            Err(e) => Err(failed("reading", &e)),
        }
    }
}

fn failed(what: &str, error: &io::Error) -> String {
    format!("{what}: {error}")
}
