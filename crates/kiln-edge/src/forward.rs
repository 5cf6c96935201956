//! One request: to an instance, to another if that one cannot be reached, and its answer back.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, LOCATION, SET_COOKIE};
use hyper::http::header::Entry;
use hyper::{Request, Response, StatusCode, Version};
use kiln_model::Circuit;
use tokio::time::{Instant, timeout_at};

use crate::account::Story;
use crate::balance::{Ask, NoPick};
use crate::body::{RequestBody, ResponseBody, Shape};
use crate::connect::connect;
use crate::counts::{Ending, InFlight, Queued, Tally, Totals, Turn};
use crate::deadline::answer_within;
use crate::hygiene;
use crate::inbound::Inbound;
use crate::lease::{Lease, Place, Reply};
use crate::refusal::Refusal;
use crate::tunnel;
use crate::upstream::{Burden, Channel, Upstream};
use crate::visitor::Visitor;
use crate::worker::Worker;

/// Connections that turn out dead after having been kept are nobody's fault, but there is an end to them.
const STALE_AT_MOST: usize = 3;
/// Instances one request is offered to.
const TRIED_AT_MOST: usize = 3;

/// Answers one request, in any case.
pub(crate) async fn answer(
    worker: Rc<Worker>,
    mut reply: Reply,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    if reply.connection().caller().is_none()
        && let Some(proof) = worker.proofs.answer(&request)
    {
        reply.answered();
        return proof;
    }
    let turn = Turn::begin(worker.totals.clone());
    let version = request.version();
    reply.account.story = worker.log.is_some().then(|| Box::new(Story::of(&request)));
    let mut response = match Inbound::read(request, reply.connection(), &worker) {
        Ok(inbound) => Exchange::new(worker.clone(), inbound, turn, reply).run().await,
        Err(refusal) => {
            note_refusal(&worker, &mut reply, refusal);
            refusal.response()
        }
    };
    if version == Version::HTTP_2 {
        // Connections of HTTP/2 are told otherwise.
        response.headers_mut().remove(CONNECTION);
    } else if worker.is_draining() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn note_refusal(worker: &Worker, reply: &mut Reply, refusal: Refusal) {
    worker.registry.causes.count(refusal);
    reply.answered();
    reply.account.status = refusal.status().as_u16();
    if let Some(story) = &mut reply.account.story {
        story.cause = Some(refusal.cause());
    }
}

/// What is known of a request between its head and that of its answer.
struct Exchange {
    worker: Rc<Worker>,
    inbound: Inbound,
    turn: Turn,
    reply: Reply,
    flight: Option<InFlight>,
    tried: Vec<Rc<Upstream>>,
    stale: usize,
    last: Option<Refusal>,
    begun: Instant,
    /// Since when a fleet could have answered it: later, if it was made to wait for a table.
    asked: Instant,
    /// Whether it has been held against a canary already.
    blamed: Cell<bool>,
    /// Its place among those that wait for room.
    queued: Option<Queued>,
    /// Who asks, if that has mattered.
    visitor: Option<Visitor>,
    /// What he is told so that he is known the next time.
    cookie: Option<HeaderValue>,
}

/// One of the requests that wait for the end of a pause.
struct Paused<'a>(&'a Totals);

impl<'a> Paused<'a> {
    fn enter(totals: &'a Totals, at_most: u64) -> Option<Self> {
        let paused = Self(totals);
        (totals.queued.fetch_add(1, SeqCst) < at_most).then_some(paused)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, SeqCst);
    }
}

/// Where a request is to go now.
enum Placed {
    /// To this instance; it is counted there.
    At(Rc<Upstream>),
    /// Its fleet has as many as it may have.
    Full(Arc<Tally>, Circuit),
    /// Nowhere before there is another table, but no longer than this.
    Held(Duration),
}

/// An attempt that got no answer.
struct Miss {
    refusal: Refusal,
    again: Again,
}

/// What may follow a miss.
enum Again {
    /// Nothing: the instance may have carried the request out, or there is no time left.
    No,
    /// The same instance over a fresh connection: the kept one was dead.
    Fresh,
    /// Another instance.
    Elsewhere,
}

impl Exchange {
    fn new(worker: Rc<Worker>, inbound: Inbound, turn: Turn, mut reply: Reply) -> Self {
        worker.budget.earn();
        if let Some(story) = &mut reply.account.story {
            story.learn(&inbound);
        }
        let now = Instant::now();
        Self {
            worker,
            inbound,
            turn,
            reply,
            flight: None,
            tried: Vec::new(),
            stale: 0,
            last: None,
            begun: now,
            asked: now,
            blamed: Cell::new(false),
            queued: None,
            visitor: None,
            cookie: None,
        }
    }

    async fn run(mut self) -> Response<ResponseBody> {
        let id = self.inbound.id.clone();
        let obtained = self.obtain().await;
        let cookie = self.cookie.take();
        let mut response = match obtained {
            Ok((response, channel, burden)) => self.accept(response, channel, burden),
            Err(refusal) => self.refuse(refusal),
        };
        if let Some(cookie) = cookie {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        if let Entry::Vacant(entry) = response.headers_mut().entry(hygiene::REQUEST_ID) {
            entry.insert(id);
        }
        response
    }

    /// The head of an answer, from whichever instance gives one.
    async fn obtain(&mut self) -> Result<(Response<Incoming>, Channel, Burden), Refusal> {
        loop {
            let upstream = match self.place()? {
                Placed::At(upstream) => upstream,
                Placed::Full(tally, circuit) => {
                    self.wait_for_room(tally, circuit).await?;
                    continue;
                }
                Placed::Held(at_most) => {
                    self.wait_for_a_table(at_most).await?;
                    continue;
                }
            };
            let burden = Burden::on(upstream);
            let ticket = self.reply.ticket().clone();
            let attempt = tokio::select! {
                biased;
                attempt = self.attempt(burden.upstream()) => attempt,
                () = ticket.told() => return Err(Refusal::Retired),
            };
            match attempt {
                Ok((response, channel)) => return Ok((response, channel, burden)),
                Err(miss) => self.note(miss, burden.upstream())?,
            }
        }
    }

    /// Chooses an instance by the table in force *now* and counts the request there. There is no await in here: a
    /// new table comes either before (and is used) or after (and finds the request counted).
    fn place(&mut self) -> Result<Placed, Refusal> {
        if self.visitor.is_none() && self.worker.balance().tells_users_apart() {
            let headers = self.inbound.request.as_ref().map(hyper::Request::headers);
            self.visitor = headers.map(|headers| Visitor::of(headers, &self.worker.random));
        }
        let host = self.inbound.host.as_ref().and_then(|h| h.to_str().ok());
        let path = match self.inbound.path.path() {
            "*" => "/",
            path => path,
        };
        let scheme = self.inbound.origin.scheme;
        let caller = self.reply.connection().caller();
        let picked = match caller {
            Some(caller) => self.worker.balance().pick_inside(caller, &self.tried, &self.worker.random),
            None => {
                let (visitor, tried, random) = (self.visitor, &self.tried[..], &self.worker.random);
                let blamed = &self.blamed;
                self.worker.balance().pick(&Ask { host, path, scheme, visitor, tried, random, blamed })
            }
        };
        match picked {
            Ok(pick) => {
                let circuit = pick.circuit.unwrap_or(self.worker.limits.circuit());
                let Some(flight) = self.enter(&pick.tally, circuit) else {
                    return Ok(Placed::Full(pick.tally, circuit));
                };
                self.queued = None;
                if let Some(story) = &mut self.reply.account.story {
                    story.went_to(pick.tally.fleet(), pick.upstream.id());
                }
                if pick.by_chance.is_some() {
                    self.cookie = self.visitor.and_then(|visitor| visitor.introduction(scheme));
                }
                self.count_at(match pick.by_chance {
                    Some(true) => flight.watched_since(self.asked),
                    Some(false) | None => flight,
                });
                self.reply.account.meter = pick.meter;
                Ok(Placed::At(pick.upstream))
            }
            Err(NoPick::NoRoute) => Err(Refusal::NoRoute),
            Err(NoPick::OnlyHttps) => Err(Refusal::OnlyHttps),
            Err(NoPick::Held(at_most)) => Ok(Placed::Held(at_most)),
            Err(NoPick::NoTarget) => Err(Refusal::NoTarget),
            Err(NoPick::NoInstance(tally)) => {
                self.count_at(InFlight::at(tally));
                Err(Refusal::NoInstance)
            }
            Err(NoPick::AllTried) => Err(self.last.unwrap_or(Refusal::Unreachable)),
        }
    }

    /// Counts the request at its fleet, if that has room for it and nobody has waited longer. One that is counted
    /// there already stays.
    fn enter(&self, tally: &Arc<Tally>, circuit: Circuit) -> Option<InFlight> {
        if self.flight.is_some() {
            return Some(InFlight::at(tally.clone()));
        }
        if self.queued.is_none() && tally.is_waited_for() {
            return None;
        }
        InFlight::within(tally, circuit.in_flight)
    }

    /// Waits until there may be room again.
    async fn wait_for_room(&mut self, tally: Arc<Tally>, circuit: Circuit) -> Result<(), Refusal> {
        let queued = match self.queued.take().filter(|queued| Arc::ptr_eq(queued.tally(), &tally)) {
            Some(queued) => queued,
            None => {
                let queued = Queued::enter(tally.clone(), circuit.queue).ok_or(Refusal::Overloaded)?;
                if queued.is_first {
                    // Who leaves from now on tells those who wait; who left before is found by looking once more.
                    self.queued = Some(queued);
                    return Ok(());
                }
                queued
            }
        };
        // What it waited for before, it did not wait for this fleet.
        let until = queued.since + circuit.queue_time.duration();
        match timeout_at(until, tally.room.notified()).await {
            Ok(()) => {
                self.queued = Some(queued);
                Ok(())
            }
            Err(_) => {
                queued.gives_up();
                Err(Refusal::Overloaded)
            }
        }
    }

    /// Waits until another table may say otherwise.
    async fn wait_for_a_table(&mut self, at_most: Duration) -> Result<(), Refusal> {
        let changed = self.worker.changed.notified();
        let _waits = Paused::enter(&self.worker.totals, self.worker.limits.queue).ok_or(Refusal::Paused)?;
        timeout_at(self.begun + at_most, changed).await.map_err(|_| Refusal::Paused)?;
        self.asked = Instant::now();
        Ok(())
    }

    fn count_at(&mut self, flight: InFlight) {
        self.reply.ticket().enter_fleet(flight.tally().clone());
        // The old one is dropped after the new one counts: the request is never in flight nowhere.
        if let Some(mut left) = self.flight.replace(flight) {
            left.unwatched();
        }
    }

    async fn attempt(&mut self, upstream: &Rc<Upstream>) -> Result<(Response<Incoming>, Channel), Miss> {
        let limits = &self.worker.limits;
        let mut channel =
            match upstream.take(self.inbound.is_at_most_once()).filter(|_| self.stale < STALE_AT_MOST) {
                Some(kept) => kept,
                None => connect(upstream, &self.worker.stock, limits)
                    .await
                    .map_err(|refusal| Miss { refusal, again: Again::Elsewhere })?,
            };
        let request = self.inbound.take(upstream.protocol());
        let request = request.map_err(|refusal| Miss { refusal, again: Again::No })?;
        let used = channel.used;
        let sent = channel.send(request);
        match answer_within(limits.response_head, &self.inbound.progress, sent).await {
            Ok(Ok(response)) => Ok((response, channel)),
            Ok(Err(error)) => Err(self.unanswered(error, used)),
            Err(refusal) => Err(Miss { refusal, again: Again::No }),
        }
    }

    /// Whether a request that was given to a connection and not answered may be sent again.
    fn unanswered(
        &mut self,
        mut error: hyper::client::conn::TrySendError<Request<RequestBody>>,
        used: bool,
    ) -> Miss {
        let elsewhere = if used { Again::Fresh } else { Again::Elsewhere };
        if let Some(unsent) = error.take_message() {
            self.inbound.request = Some(unsent);
            return Miss { refusal: Refusal::Unreachable, again: elsewhere };
        }
        if self.inbound.progress.is_broken() {
            return Miss {
                refusal: Refusal::Malformed("the body broke off or is malformed"),
                again: Again::No,
            };
        }
        if error.error().is_parse() {
            return Miss { refusal: Refusal::Garbage, again: Again::No };
        }
        let again = if self.inbound.renew() { elsewhere } else { Again::No };
        Miss { refusal: Refusal::Lost, again }
    }

    /// Takes note of a miss.
    ///
    /// # Errors
    /// The refusal, if no other attempt may follow.
    fn note(&mut self, miss: Miss, upstream: &Rc<Upstream>) -> Result<(), Refusal> {
        if miss.refusal.blames_instance()
            && !matches!(miss.again, Again::Fresh)
            && self.worker.balance().blame(upstream)
        {
            self.worker.totals.ejections.fetch_add(1, SeqCst);
        }
        // What was never sent costs nobody anything; the rest is kept within bounds.
        let is_free = miss.refusal == Refusal::Unreachable;
        match miss.again {
            Again::No => return Err(miss.refusal),
            _ if !is_free && !self.worker.budget.spend() => return Err(miss.refusal),
            Again::Fresh => self.stale += 1,
            Again::Elsewhere => self.tried.push(upstream.clone()),
        }
        self.worker.totals.retries.fetch_add(1, SeqCst);
        self.last = Some(miss.refusal);
        if self.tried.len() < TRIED_AT_MOST { Ok(()) } else { Err(miss.refusal) }
    }

    fn refuse(mut self, refusal: Refusal) -> Response<ResponseBody> {
        if refusal.is_failure() {
            self.turn.failed();
        }
        if let Some(flight) = &mut self.flight {
            flight.ends(if refusal.is_failure() { Ending::Failed } else { Ending::Left });
        }
        note_refusal(&self.worker, &mut self.reply, refusal);
        let mut response = refusal.response();
        if refusal == Refusal::OnlyHttps
            && let Some(location) = self.https_location()
        {
            response.headers_mut().insert(LOCATION, location);
        }
        response
    }

    /// The same place, over HTTPS.
    fn https_location(&self) -> Option<HeaderValue> {
        let host = self.inbound.host.as_ref()?.to_str().ok()?;
        let name = match host.rfind(':') {
            Some(colon) if !host[colon..].contains(']') => &host[..colon],
            _ => host,
        };
        let port = match self.worker.https_port.load(Relaxed) {
            0 | 443 => String::new(),
            port => format!(":{port}"),
        };
        HeaderValue::try_from(format!("https://{name}{port}{}", self.inbound.path)).ok()
    }

    fn accept(
        mut self,
        mut response: Response<Incoming>,
        channel: Channel,
        burden: Burden,
    ) -> Response<ResponseBody> {
        let Some(mut flight) = self.flight.take() else { return self.refuse(Refusal::Lost) };
        flight.answered(response.status().as_u16());
        *response.version_mut() = Version::HTTP_11;
        self.reply.account.status = response.status().as_u16();
        burden.upstream().standing.answered();
        let place = Place { burden, flight, turn: self.turn, reply: self.reply };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return tunnel::open(&self.worker, self.inbound.upgrade, response, place);
        }
        let (mut head, body) = response.into_parts();
        hygiene::strip_hop_by_hop(&mut head.headers);
        let is_events =
            head.headers.get(CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"text/event-stream"));
        let shape = if is_events { Shape::Events } else { Shape::Whole };
        let lease = Lease::new(channel, self.worker.limits.upstream_idle_count, place);
        Response::from_parts(head, ResponseBody::streamed(body, lease, shape))
    }
}
