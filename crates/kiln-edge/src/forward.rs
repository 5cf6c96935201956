//! One request: to an instance, to another if that one cannot be reached, and its answer back.

use std::error::Error;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, COOKIE, HeaderName, HeaderValue, SET_COOKIE};
use hyper::http::header::Entry;
use hyper::http::response::Parts;
use hyper::{Request, Response, StatusCode, Version};
use kiln_model::Protocol;
use tokio::task::spawn_local;

use crate::account::Story;
use crate::body::{Opened, RequestBody, ResponseBody, Shape, see_to_the_rest};
use crate::connect::connect;
use crate::counts::Turn;
use crate::course::{Again, Asked, Course, Errand, Kept, Miss, Stop};
use crate::cut::Ticket;
use crate::deadline::answer_within;
use crate::express::answer::Answer;
use crate::express::{Express, Head, Repeats, Tail, direct};
use crate::hygiene;
use crate::inbound::{self, Inbound};
use crate::lease::{Lease, Reply};
use crate::random::Random;
use crate::refusal::Refusal;
use crate::tunnel;
use crate::upstream::{Burden, Channel, Upstream};
use crate::visitor::{self, Visitor};
use crate::worker::Worker;

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
    let (turn, reply) = match direct(&request, reply.connection(), &worker) {
        Some(errand) => match straight(&worker, errand, turn, reply).await {
            Ok(response) => return response,
            // The instance speaks another language.
            Err(given_back) => given_back,
        },
        None => (turn, reply),
    };
    // Boxed, so that those who go straight do not carry its weight.
    Box::pin(by_hyper(worker, turn, reply, request)).await
}

/// Answers an ordinary request of HTTP/2, or gives it back untouched.
async fn straight(
    worker: &Rc<Worker>,
    mut errand: Express<Parts>,
    turn: Turn,
    mut reply: Reply,
) -> Result<Response<ResponseBody>, (Turn, Reply)> {
    reply.account.story = worker.log.is_some().then(|| Box::new(errand.story(Version::HTTP_2)));
    let mut course = Course::new(worker.clone(), turn, reply);
    let obtained = course.obtain(&mut errand).await;
    let cookie = course.cookie();
    let response = match obtained {
        Ok((heard, burden)) => match course.answered(heard.status, burden) {
            Some(place) => {
                let (head, tail) = Tail::of(heard, worker.clone(), place);
                Response::from_parts(head, ResponseBody::Heard(tail))
            }
            None => Refusal::Lost.response(),
        },
        Err(Stop::Otherwise) => return Err(course.given_back()),
        Err(Stop::Refused(refusal)) => {
            course.refused(refusal);
            let port = worker.https_port.load(Relaxed);
            refusal.response_at(port, Some(errand.host()), errand.target())
        }
    };
    let mut response = named(response, || hygiene::id(errand.id()), cookie);
    response.headers_mut().remove(CONNECTION);
    Ok(response)
}

/// Says which request an answer is to, and by what its client is known.
fn named(
    mut response: Response<ResponseBody>,
    id: impl FnOnce() -> HeaderValue,
    cookie: Option<HeaderValue>,
) -> Response<ResponseBody> {
    let headers = response.headers_mut();
    if let Some(cookie) = cookie {
        headers.append(SET_COOKIE, cookie);
    }
    if let Entry::Vacant(entry) = headers.entry(hygiene::REQUEST_ID) {
        entry.insert(id());
    }
    response
}

async fn by_hyper(
    worker: Rc<Worker>,
    turn: Turn,
    mut reply: Reply,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let (version, has_no_body) = (request.version(), request.body().is_end_stream());
    reply.account.story = worker.log.is_some().then(|| Box::new(Story::of(&request)));
    let judged = inbound::judge(&request, reply.connection(), &worker);
    let (mut response, was_heard_out) = match judged {
        Ok(host) => read(worker.clone(), turn, reply, request, host).await,
        Err(refusal) => (turn_down(&worker, reply, &request, refusal), has_no_body),
    };
    let ends = worker.is_draining() || !was_heard_out;
    if version == Version::HTTP_2 {
        // Connections of HTTP/2 are told otherwise.
        response.headers_mut().remove(CONNECTION);
    } else if ends && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // What is still to come of the request stands between it and the next one.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Has an instance answer a request; says, too, whether all of it has come.
async fn read(
    worker: Rc<Worker>,
    turn: Turn,
    mut reply: Reply,
    request: Request<Incoming>,
    host: Option<HeaderValue>,
) -> (Response<ResponseBody>, bool) {
    let has_no_body = request.body().is_end_stream();
    match Inbound::read(request, host, reply.connection(), &worker) {
        Ok(inbound) => {
            if let Some(story) = &mut reply.account.story {
                story.learn(&inbound);
            }
            let (progress, ticket) = (inbound.progress.clone(), reply.ticket().clone());
            let otherwise = worker.limits.response_head;
            let response = Exchange { worker, inbound }.run(turn, reply).await;
            if !progress.is_done() {
                let (rest, limit) = (Rc::downgrade(&progress), ticket.limit(otherwise));
                spawn_local(see_to_the_rest(rest, ticket, limit));
            }
            (response, progress.is_done())
        }
        Err(refusal) => {
            reply.refused(refusal);
            (refusal.response(), has_no_body)
        }
    }
}

/// Answers a request of which nothing is made.
fn turn_down(
    worker: &Worker,
    mut reply: Reply,
    request: &Request<Incoming>,
    refusal: Refusal,
) -> Response<ResponseBody> {
    let headers = request.headers();
    let id = hygiene::given_id(headers).unwrap_or_else(|| hygiene::id(worker.random.id().as_bytes()));
    let client = reply.connection().peer().origin(headers, &worker.trust).ip;
    if let Some(story) = &mut reply.account.story {
        story.is_refused(client, id.clone());
    }
    reply.refused(refusal);
    named(refusal.response(), || id, None)
}

/// A request that hyper carries.
struct Exchange {
    worker: Rc<Worker>,
    inbound: Inbound,
}

impl Exchange {
    async fn run(mut self, turn: Turn, reply: Reply) -> Response<ResponseBody> {
        let id = self.inbound.id.clone();
        let mut course = Course::new(self.worker.clone(), turn, reply);
        let obtained = course.obtain(&mut self).await;
        let cookie = course.cookie();
        let response = match obtained {
            Ok((answered, burden)) => self.accept(course, answered, burden),
            Err(Stop::Refused(refusal)) => self.refuse(course, refusal),
            // It carries everything.
            Err(Stop::Otherwise) => self.refuse(course, Refusal::Unreachable),
        };
        named(response, || id, cookie)
    }

    /// Whether a request that was given to a connection and not answered may be sent again.
    fn unanswered(
        &mut self,
        mut error: hyper::client::conn::TrySendError<Request<RequestBody>>,
        used: bool,
    ) -> Miss {
        let elsewhere = if used { Again::Fresh } else { Again::Elsewhere };
        if let Some(unsent) = error.take_message() {
            self.inbound.give_back(unsent);
            return Miss { refusal: Refusal::Unreachable, again: elsewhere };
        }
        if let Some(refusal) = self.inbound.progress.broken() {
            return Miss { refusal, again: Again::No };
        }
        if was_declined(error.error()) {
            let again = if self.inbound.is_kept() { elsewhere } else { Again::No };
            return Miss { refusal: Refusal::Declined, again };
        }
        if error.error().is_parse() {
            return Miss { refusal: Refusal::Garbage, again: Again::No };
        }
        self.lost(used)
    }

    fn refuse(&self, course: Course, refusal: Refusal) -> Response<ResponseBody> {
        course.refused(refusal);
        let (host, path) =
            (self.inbound.host.as_ref().and_then(|h| h.to_str().ok()), self.inbound.path.as_str());
        refusal.response_at(self.worker.https_port.load(Relaxed), host, path)
    }

    fn accept(self, course: Course, answered: Answered, burden: Burden) -> Response<ResponseBody> {
        self.inbound.let_go();
        let status = answered.status();
        let Some(place) = course.answered(status, burden) else {
            return Refusal::Lost.response();
        };
        let (mut head, body, channel) = match answered {
            Answered::Upgraded(mut response) => {
                *response.version_mut() = Version::HTTP_11;
                return tunnel::open(&self.worker, self.inbound.upgrade, response, place);
            }
            Answered::Begun(head, body, channel) => (head, body, channel),
        };
        head.version = Version::HTTP_11;
        hygiene::settle_length(&mut head.headers);
        let body = body.without(hygiene::strip_hop_by_hop(&mut head.headers));
        let shape = if is_events(&head) { Shape::Events } else { Shape::Whole };
        let lease = Lease::new(channel, self.worker.limits.upstream_idle_count, place);
        Response::from_parts(head, ResponseBody::streamed(body, lease, shape))
    }

    /// Takes an answer of which the head is there. With a body of a known length the first of that must be there as
    /// well: an instance that dies in between has not answered.
    async fn begun(
        &mut self,
        response: Response<Incoming>,
        channel: Channel,
        upstream: &Upstream,
        limit: Duration,
    ) -> Result<Answered, Miss> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let is_answer = tunnel::is_asked_for(self.inbound.upgrade.as_ref(), response.headers());
            let garbage = Miss { refusal: Refusal::Garbage, again: Again::No };
            return if is_answer { Ok(Answered::Upgraded(response)) } else { Err(garbage) };
        }
        if !hygiene::is_plainly_coded(response.headers()) {
            return Err(Miss { refusal: Refusal::Garbage, again: Again::No });
        }
        let (head, body) = response.into_parts();
        let has_length = body.size_hint().exact().is_some_and(|length| length > 0);
        if !has_length || is_events(&head) || upstream.protocol() != Protocol::Http1 {
            return Ok(Answered::Begun(head, body.into(), channel));
        }
        match Opened::begun(body, limit).await {
            Some(body) => Ok(Answered::Begun(head, body, channel)),
            None => Err(self.lost(channel.used)),
        }
    }

    /// What follows when an instance was sent it and has not answered.
    fn lost(&self, used: bool) -> Miss {
        let elsewhere = if used { Again::Fresh } else { Again::Elsewhere };
        let again = match self.inbound.repeats() {
            Repeats::Allowed => elsewhere,
            Repeats::Never => Again::No,
        };
        Miss { refusal: Refusal::Lost, again }
    }
}

/// Whether the instance says that it has not begun with the request (RFC 9113, 8.7): it has refused the stream, or will
/// take none from there on. Of those under way below that, its word to leave ends none.
fn was_declined(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        let is_refused = cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
        cause.is_remote() && (is_refused || cause.is_go_away())
    })
}

/// What an instance has answered.
enum Answered {
    /// The connection is to be something else.
    Upgraded(Response<Incoming>),
    /// Its head, and what follows it over this connection.
    Begun(Parts, Opened, Channel),
}

impl Answered {
    fn status(&self) -> u16 {
        match self {
            Self::Upgraded(_) => StatusCode::SWITCHING_PROTOCOLS.as_u16(),
            Self::Begun(head, ..) => head.status.as_u16(),
        }
    }
}

/// Fields that the edge and hyper add to an answer.
const ADDED: usize = 4;

impl Head for Parts {
    fn of(answer: &Answer<'_, '_>, _: &Worker) -> Option<Self> {
        let (mut head, ()) = Response::new(()).into_parts();
        head.status = StatusCode::from_u16(answer.status).ok()?;
        head.headers.try_reserve(answer.count() + ADDED).ok()?;
        for field in answer.passed_on() {
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
            let mut value = HeaderValue::from_bytes(field.value).ok()?;
            value.set_sensitive(name == hygiene::REQUEST_ID);
            head.headers.try_append(name, value).ok()?;
        }
        Some(head)
    }
}

fn is_events(head: &Parts) -> bool {
    head.headers.get(CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"text/event-stream"))
}

impl Errand for Exchange {
    type Answer = Answered;

    fn asked(&self) -> Asked<'_> {
        let host = self.inbound.host.as_ref().and_then(|h| h.to_str().ok());
        let path = match self.inbound.path.path() {
            "*" => "/",
            path => path,
        };
        Asked { host, path, scheme: self.inbound.origin.scheme }
    }

    fn visitor(&self, random: &Random) -> Option<Visitor> {
        let headers = self.inbound.headers()?;
        let cookies = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
        let preview = headers.get(visitor::PREVIEW).map(HeaderValue::as_bytes);
        Some(Visitor::of(preview, cookies, random))
    }

    fn bound(&self, at_most: Option<u64>, ticket: &Rc<Ticket>) -> Result<(), Refusal> {
        self.inbound.bound(at_most, ticket)
    }

    async fn attempt(
        &mut self,
        worker: &Rc<Worker>,
        upstream: &Rc<Upstream>,
        kept: Kept,
        ticket: &Ticket,
    ) -> Result<Self::Answer, Miss> {
        let limit = ticket.limit(worker.limits.response_head);
        let mut channel =
            match upstream.take(self.inbound.repeats() == Repeats::Never).filter(|_| kept == Kept::Welcome) {
                Some(kept) => kept,
                None => connect(upstream, worker)
                    .await
                    .map_err(|refusal| Miss { refusal, again: Again::Elsewhere })?,
            };
        let request = self.inbound.take(upstream.protocol());
        let request = request.map_err(|refusal| Miss { refusal, again: Again::No })?;
        let used = channel.used;
        let sent = channel.send(request);
        match answer_within(limit, &self.inbound.progress, sent).await {
            Ok(Ok(response)) => self.begun(response, channel, upstream, limit).await,
            Ok(Err(error)) => Err(self.unanswered(error, used)),
            Err(refusal) => Err(Miss { refusal, again: Again::No }),
        }
    }
}
