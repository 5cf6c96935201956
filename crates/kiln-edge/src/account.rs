//! What is remembered of a request until it has ended: for the figures, and for the access log.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::header::{HOST, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Version};
use kiln_model::{FleetId, InstanceId};
use serde::Serialize;
use tokio::time::Instant;

use crate::inbound::Inbound;
use crate::metrics::Meter;
use crate::sink::Sink;

/// How far a request has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It waits for the beginning of an answer.
    Waits,
    /// The answer is under way.
    Answers,
    /// It has come to its end, whatever that is.
    Ended,
}

/// One request's account.
pub(crate) struct Account {
    pub(crate) begun: Instant,
    pub(crate) meter: Option<Arc<Meter>>,
    /// 0 as long as there is no answer.
    pub(crate) status: u16,
    pub(crate) bytes: u64,
    pub(crate) stage: Stage,
    /// For the log, if there is one.
    pub(crate) story: Option<Box<Story>>,
}

/// What the access log tells of a request.
pub(crate) struct Story {
    pub(crate) client: Option<IpAddr>,
    /// None if it cannot be read, as all that follows.
    pub(crate) method: Option<Method>,
    pub(crate) version: Version,
    pub(crate) host: Option<HeaderValue>,
    pub(crate) path: Option<PathAndQuery>,
    pub(crate) id: Option<HeaderValue>,
    pub(crate) trace: Option<String>,
    pub(crate) instance: Option<InstanceId>,
    pub(crate) fleet: Option<FleetId>,
    pub(crate) cause: Option<&'static str>,
}

impl Story {
    /// What the client says, for the case that it is not fit to be read.
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let named = || request.uri().authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        Self {
            client: None,
            method: Some(request.method().clone()),
            version: request.version(),
            host: request.headers().get(HOST).cloned().or_else(named),
            path: request.uri().path_and_query().cloned(),
            id: None,
            trace: None,
            instance: None,
            fleet: None,
            cause: None,
        }
    }

    /// What there is of a request of which nothing could be read behind its first line, if that.
    pub(crate) fn unread(client: IpAddr, start: &[u8]) -> Self {
        let line = [start.trim_ascii_end(), b"\r\n\r\n"].concat();
        let mut head = httparse::Request::new(&mut []);
        // What comes before the first thing that is wrong is there all the same.
        let _ = head.parse(&line);
        Self {
            client: Some(client),
            method: head.method.and_then(|method| method.parse().ok()),
            version: if head.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 },
            host: None,
            path: head.path.and_then(|path| path.parse().ok()),
            id: None,
            trace: None,
            instance: None,
            fleet: None,
            cause: None,
        }
    }

    /// What was made of it.
    pub(crate) fn learn(&mut self, inbound: &Inbound) {
        self.client = Some(inbound.origin.ip);
        self.host = inbound.host.clone();
        self.path = Some(inbound.path.clone());
        self.id = Some(inbound.id.clone());
        self.trace.clone_from(&inbound.trace);
    }

    /// Who asked, and what the answer names it, where the edge refuses to make anything of it.
    pub(crate) fn is_refused(&mut self, client: IpAddr, id: HeaderValue) {
        (self.client, self.id) = (Some(client), Some(id));
    }

    /// Where it went, the last time.
    pub(crate) fn went_to(&mut self, fleet: &FleetId, instance: &InstanceId) {
        self.fleet = Some(fleet.clone());
        self.instance = Some(instance.clone());
    }
}

impl Account {
    pub(crate) fn open() -> Self {
        Self { begun: Instant::now(), meter: None, status: 0, bytes: 0, stage: Stage::Waits, story: None }
    }

    /// No fleet has let it in, and this one answers for it.
    pub(crate) fn is_meant_for(&mut self, fleet: &FleetId, meter: Option<Arc<Meter>>) {
        self.meter = meter;
        if let Some(story) = &mut self.story {
            story.fleet = Some(fleet.clone());
        }
    }

    /// It is to be counted and written down elsewhere.
    pub(crate) fn forget(&mut self) {
        (self.meter, self.story, self.stage) = (None, None, Stage::Ended);
    }

    /// Counts it and writes it down.
    pub(crate) fn close(&mut self, log: Option<&AccessLog>) {
        let took = self.begun.elapsed();
        if let Some(meter) = &self.meter {
            // One that was given up before it was answered is in the statistics of nobody but its client.
            let status = if self.status == 0 { 499 } else { self.status };
            meter.count(status, took, self.bytes);
        }
        if let (Some(story), Some(log)) = (&self.story, log) {
            log.write(&Line::of(story, self.status, self.bytes, took.as_secs_f64() * 1e3));
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    /// Milliseconds since 1970, at the end of the request.
    at: u64,
    client: Option<IpAddr>,
    method: Option<&'a str>,
    version: &'static str,
    host: Option<&'a str>,
    path: Option<&'a str>,
    /// 499: the client left before there was an answer.
    status: u16,
    bytes: u64,
    millis: f64,
    fleet: Option<String>,
    instance: Option<&'a str>,
    /// Why no instance answered, or nobody has the whole answer.
    cause: Option<&'static str>,
    id: Option<&'a str>,
    trace: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn of(story: &'a Story, status: u16, bytes: u64, millis: f64) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            at: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            client: story.client,
            method: story.method.as_ref().map(Method::as_str),
            version: match story.version {
                Version::HTTP_2 => "2",
                Version::HTTP_10 => "1.0",
                _ => "1.1",
            },
            host: story.host.as_ref().and_then(|h| h.to_str().ok()),
            path: story.path.as_ref().map(PathAndQuery::as_str),
            status: if status == 0 { 499 } else { status },
            bytes,
            millis: (millis * 1e3).round() / 1e3,
            fleet: story.fleet.as_ref().map(ToString::to_string),
            instance: story.instance.as_ref().map(InstanceId::as_str),
            cause: story.cause,
            id: story.id.as_ref().and_then(|id| id.to_str().ok()),
            trace: story.trace.as_deref(),
        }
    }
}

/// One thread's lines on their way out, gathered so that a line is no system call.
pub(crate) struct AccessLog(RefCell<Vec<u8>>, Arc<Sink>);

const GATHERED: usize = 16 * 1024;

impl AccessLog {
    pub(crate) fn new(sink: Arc<Sink>) -> Self {
        Self(RefCell::new(Vec::new()), sink)
    }

    fn write(&self, line: &Line<'_>) {
        let mut gathered = self.0.borrow_mut();
        if serde_json::to_writer(&mut *gathered, line).is_ok() {
            gathered.push(b'\n');
        }
        let is_much = gathered.len() >= GATHERED;
        drop(gathered);
        if is_much {
            self.flush();
        }
    }

    /// Writes down what was gathered: whole lines in one piece, since several threads write to the same file.
    pub(crate) fn flush(&self) {
        let gathered = std::mem::take(&mut *self.0.borrow_mut());
        if !gathered.is_empty() {
            self.1.write(&gathered);
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
}
