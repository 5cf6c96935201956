//! Where one request goes, and where it has been: the decisions, the same for whatever carries its bytes.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use hyper::header::HeaderValue;
use kiln_model::Circuit;
use tokio::time::{Instant, timeout_at};

use crate::balance::{Answerable, Ask, NoPick};
use crate::counts::{Ending, InFlight, Queued, Tally, Totals, Turn};
use crate::cut::Ticket;
use crate::lease::{Place, Reply};
use crate::metrics::Meter;
use crate::origin::Scheme;
use crate::random::Random;
use crate::refusal::Refusal;
use crate::upstream::{Burden, Upstream};
use crate::visitor::Visitor;
use crate::worker::Worker;

/// Connections that turn out dead after having been kept are nobody's fault, but there is an end to them.
const STALE_AT_MOST: usize = 3;
/// Instances that one request is given to.
const GIVEN_TO_AT_MOST: usize = 3;
/// Instances that are tried for it, those among them that nobody could connect to.
const TRIED_AT_MOST: usize = 100;

/// What a request is sent by.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) host: Option<&'a str>,
    pub(crate) path: &'a str,
    pub(crate) scheme: Scheme,
}

/// A request as whoever carries it holds it.
pub(crate) trait Errand {
    /// What is got for it.
    type Answer;

    /// What it is sent by.
    fn asked(&self) -> Asked<'_>;

    /// Who asks; none if that is not to be known any more.
    fn visitor(&self, random: &Random) -> Option<Visitor>;

    /// Lets its body be so large at most; if it grows larger, that is noted in `ticket`.
    ///
    /// # Errors
    /// If it is known to be larger.
    fn bound(&self, at_most: Option<u64>, ticket: &Rc<Ticket>) -> Result<(), Refusal>;

    /// Asks this instance, over a connection that was kept if there may be one.
    async fn attempt(
        &mut self,
        worker: &Rc<Worker>,
        upstream: &Rc<Upstream>,
        kept: Kept,
        ticket: &Ticket,
    ) -> Result<Self::Answer, Miss>;
}

/// What connection an attempt may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Any.
    Welcome,
    /// A fresh one: too many of those that were kept turned out dead.
    Unwanted,
}

/// An attempt that got no answer.
pub(crate) struct Miss {
    pub(crate) refusal: Refusal,
    pub(crate) again: Again,
}

/// What may follow a miss.
pub(crate) enum Again {
    /// Nothing: the instance may have carried the request out, or there is no time left.
    No,
    /// The same instance over a fresh connection: the kept one was dead.
    Fresh,
    /// Another instance.
    Elsewhere,
    /// The same from the beginning, carried by somebody else: this one does not speak the instance's language.
    Otherwise,
}

/// Why there is no answer from an instance.
pub(crate) enum Stop {
    /// The edge answers itself.
    Refused(Refusal),
    /// Somebody else is to carry it: nothing has been done that must not be done again.
    Otherwise,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What is known of a request between its head and that of its answer.
pub(crate) struct Course {
    worker: Rc<Worker>,
    turn: Turn,
    reply: Reply,
    flight: Option<InFlight>,
    tried: Vec<Rc<Upstream>>,
    /// How many of those may have got it.
    given_to: usize,
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
    /// Nowhere before there is another table, but no longer than this; that fleet answers for it.
    Held(Duration, Option<Arc<Tally>>),
}

impl Course {
    pub(crate) fn new(worker: Rc<Worker>, turn: Turn, reply: Reply) -> Self {
        worker.budget.earn();
        let begun = reply.account.begun;
        Self {
            worker,
            turn,
            reply,
            flight: None,
            tried: Vec::new(),
            given_to: 0,
            stale: 0,
            last: None,
            begun,
            asked: begun,
            blamed: Cell::new(false),
            queued: None,
            visitor: None,
            cookie: None,
        }
    }

    /// The head of an answer, from whichever instance gives one.
    ///
    /// # Errors
    /// If none does.
    pub(crate) async fn obtain<E: Errand>(&mut self, errand: &mut E) -> Result<(E::Answer, Burden), Stop> {
        loop {
            let upstream = match self.place(errand)? {
                Placed::At(upstream) => upstream,
                Placed::Full(tally, circuit) => {
                    let waited = Box::pin(self.wait_for_room(tally.clone(), circuit)).await;
                    self.waited_for(Some(&tally), waited)?;
                    continue;
                }
                Placed::Held(at_most, tally) => {
                    let waited = Box::pin(self.wait_for_a_table(at_most)).await;
                    self.waited_for(tally.as_deref(), waited)?;
                    continue;
                }
            };
            let burden = Burden::on(upstream);
            let ticket = self.reply.ticket().clone();
            let kept = if self.stale < STALE_AT_MOST { Kept::Welcome } else { Kept::Unwanted };
            let attempt = tokio::select! {
                biased;
                attempt = errand.attempt(&self.worker, burden.upstream(), kept, &ticket) => attempt,
                () = ticket.told() => return Err(Refusal::Retired.into()),
            };
            match attempt {
                Ok(answer) => return Ok((answer, burden)),
                Err(miss) => self.note(miss, burden.upstream())?,
            }
        }
    }

    /// Chooses an instance by the table in force *now* and counts the request there. There is no await in here: a
    /// new table comes either before (and is used) or after (and finds the request counted).
    fn place(&mut self, errand: &impl Errand) -> Result<Placed, Refusal> {
        if self.visitor.is_none() && self.worker.balance().tells_users_apart() {
            self.visitor = errand.visitor(&self.worker.random);
        }
        let Asked { host, path, scheme } = errand.asked();
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
                if let Err(refusal) = errand.bound(pick.bounds.body, self.reply.ticket()) {
                    self.is_meant_for(&pick.tally, pick.meter);
                    return Err(refusal);
                }
                self.reply.ticket().is_answered_within(pick.bounds.answer);
                let circuit = pick.circuit.unwrap_or(self.worker.limits.circuit());
                let Some(flight) = self.enter(&pick.tally, circuit) else {
                    self.is_meant_for(&pick.tally, pick.meter);
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
            Err(NoPick::OnlyHttps(first)) => {
                if let Some(Answerable { tally, meter }) = first {
                    self.is_meant_for(&tally, meter);
                }
                Err(Refusal::OnlyHttps)
            }
            Err(NoPick::Held(at_most, first)) => {
                let tally = first.map(|Answerable { tally, meter }| {
                    self.is_meant_for(&tally, meter);
                    tally
                });
                Ok(Placed::Held(at_most, tally))
            }
            Err(NoPick::NoTarget) => Err(Refusal::NoTarget),
            Err(NoPick::NoInstance(Answerable { tally, meter })) => {
                self.is_meant_for(&tally, meter);
                self.count_at(InFlight::at(tally));
                Err(Refusal::NoInstance)
            }
            Err(NoPick::AllTried) => Err(self.last.unwrap_or(Refusal::Unreachable)),
        }
    }

    /// Notes the fleet that answers for it if it is let in nowhere.
    fn is_meant_for(&mut self, tally: &Tally, meter: Option<Arc<Meter>>) {
        // One that was let in somewhere before is counted there.
        if self.flight.is_none() {
            self.reply.account.is_meant_for(tally.fleet(), meter);
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

    /// Counts one that has waited in vain at the fleet it has waited for, unless it is counted somewhere already.
    fn waited_for(&self, tally: Option<&Tally>, waited: Result<(), Refusal>) -> Result<(), Refusal> {
        if let (Err(_), Some(tally), None) = (waited, tally, &self.flight) {
            tally.answered_for();
        }
        waited
    }

    fn count_at(&mut self, flight: InFlight) {
        self.reply.ticket().enter_fleet(flight.tally().clone());
        // The old one is dropped after the new one counts: the request is never in flight nowhere.
        if let Some(mut left) = self.flight.replace(flight) {
            left.unwatched();
        }
    }

    /// Takes note of a miss.
    ///
    /// # Errors
    /// What follows, if no other attempt may.
    fn note(&mut self, miss: Miss, upstream: &Rc<Upstream>) -> Result<(), Stop> {
        if matches!(miss.again, Again::Otherwise) {
            return Err(Stop::Otherwise);
        }
        if miss.refusal.blames_instance()
            && !matches!(miss.again, Again::Fresh)
            && self.worker.balance().blame(upstream)
        {
            self.worker.totals.ejections.fetch_add(1, SeqCst);
        }
        // What was never sent costs nobody anything; the rest is kept within bounds.
        let is_free = miss.refusal == Refusal::Unreachable;
        match miss.again {
            Again::No | Again::Otherwise => return Err(miss.refusal.into()),
            // It would be no better with another instance.
            _ if miss.refusal.is_the_hosts() => return Err(miss.refusal.into()),
            _ if !is_free && !self.worker.budget.spend() => return Err(miss.refusal.into()),
            Again::Fresh => self.stale += 1,
            Again::Elsewhere => {
                self.tried.push(upstream.clone());
                self.given_to += usize::from(!is_free);
            }
        }
        self.worker.totals.retries.fetch_add(1, SeqCst);
        self.last = Some(miss.refusal);
        let may_go_on = self.given_to < GIVEN_TO_AT_MOST && self.tried.len() < TRIED_AT_MOST;
        if may_go_on { Ok(()) } else { Err(miss.refusal.into()) }
    }

    /// What the client is to be told so that it is known the next time.
    pub(crate) fn cookie(&mut self) -> Option<HeaderValue> {
        self.cookie.take()
    }

    /// An instance has answered: what the request holds until that answer has ended.
    /// None if it was counted nowhere, which only happens to what has gone nowhere.
    pub(crate) fn answered(mut self, status: u16, burden: Burden) -> Option<Place> {
        let Some(mut flight) = self.flight.take() else {
            self.refused(Refusal::Lost);
            return None;
        };
        flight.answered(status);
        self.reply.account.status = status;
        burden.upstream().standing.answered();
        Some(Place { burden, flight, turn: self.turn, reply: self.reply })
    }

    /// The edge answers itself: counted, and over.
    pub(crate) fn refused(mut self, refusal: Refusal) {
        if refusal.is_failure() {
            self.turn.failed();
        }
        if let Some(flight) = &mut self.flight {
            if refusal.is_the_hosts() {
                flight.unwatched();
            }
            flight.ends(if refusal.is_failure() { Ending::Failed } else { Ending::Left });
        }
        self.reply.refused(refusal);
    }

    /// Gives it back to be carried otherwise.
    pub(crate) fn given_back(mut self) -> (Turn, Reply) {
        if let Some(flight) = &mut self.flight {
            flight.unwatched();
        }
        (self.turn, self.reply)
    }

    /// Forgets it as if it had never come: whoever carries it from here begins it anew.
    pub(crate) fn forget(mut self) {
        if let Some(flight) = &mut self.flight {
            flight.unwatched();
        }
        self.reply.account.forget();
        self.turn.forget();
    }
}
