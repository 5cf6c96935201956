//! Beginning operations: those asked for, and those that follow from the state.

use std::fmt;

use kiln_model::{
    AppName, AppState, Author, Desired, Ending, Event, FleetPhase, Generation, Millis, NothingToDo,
    OperationKind, Plan, Record, Release, ReleaseId, RouteConflict, Stamped, Timestamp, WrongSchema, check,
    plan, route_conflict,
};

use super::{Core, News, NewsSender, Wake, Will};
use crate::world::Trouble;

/// What becomes of a request while something else is under way that does not serve yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precedence {
    /// It is refused.
    Yields,
    /// It takes its place.
    Supersedes,
}

/// Something asked of the core for one app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// This release is to serve.
    Serve {
        /// The release; it is on the shelf already.
        release: Box<Release>,
        /// [`OperationKind::Deploy`] or [`OperationKind::Rollback`].
        kind: OperationKind,
        /// The version of the schema the data has, if it is not the one the live release left it at.
        schema: Option<u32>,
        /// Whether it takes the place of what is under way.
        precedence: Precedence,
    },
    /// Nothing of the app is to be left running.
    Down {
        /// How long what is in flight may go on.
        drain: Millis,
    },
}

impl Request {
    fn supersedes(&self) -> bool {
        matches!(self, Self::Serve { precedence: Precedence::Supersedes, .. })
    }

    fn leads_to(&self, to: Option<&ReleaseId>) -> bool {
        matches!(self, Self::Serve { release, .. } if to == Some(&release.id()))
    }
}

/// Why a request was not begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Another one waits or is carried out.
    Busy {
        /// What it is.
        with: String,
    },
    /// Its routes are another app's.
    Conflict(RouteConflict),
    /// The data is of a version it does not work with.
    Schema(WrongSchema),
    /// There is nothing to be removed.
    NothingThere,
    /// The plan would break a promise: a bug.
    Unsound(Vec<String>),
    /// It could not be written down.
    Unrecorded(String),
    /// It was given up before it was begun, for this reason.
    GivenUp(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy { with } => write!(f, "{with} is under way"),
            Self::Conflict(conflict) => conflict.fmt(f),
            Self::Schema(wrong) => wrong.fmt(f),
            Self::NothingThere => write!(f, "there is nothing to be removed"),
            Self::Unsound(findings) => write!(f, "the plan is unsound: {}", findings.join("; ")),
            Self::GivenUp(why) => f.write_str(why),
            Self::Unrecorded(cause) => write!(f, "the operation log could not be written: {cause}"),
        }
    }
}

/// A request that waits for its turn.
pub(super) struct Pending {
    request: Request,
    by: Author,
    to: NewsSender,
    will: Will,
    /// The trouble they were told of last.
    told: Option<String>,
}

impl Pending {
    /// Tells whoever waits of trouble that is in the way, once.
    pub(super) fn tell_trouble(&mut self, at: Timestamp, trouble: &str) {
        if self.told.as_deref() != Some(trouble) {
            self.told = Some(trouble.to_owned());
            let warning = format!("{trouble}: what was asked for begins when that is over");
            let _ = self.to.send(News::Event(Stamped { at, event: Event::Warned { warning } }));
        }
    }
}

impl Core {
    /// Asks for something; `to` is told all about it, the end last. Takes effect with the next turn. Who asks for the
    /// very release that is on its way follows that.
    pub fn request(&mut self, app: AppName, request: Request, by: Author, to: NewsSender) {
        self.request_as_long_as_wanted(app, request, by, to, Will::default());
    }

    /// The same of something that may be given up until it serves.
    pub fn request_as_long_as_wanted(
        &mut self,
        app: AppName,
        request: Request,
        by: Author,
        to: NewsSender,
        will: Will,
    ) {
        let refuse = |to: NewsSender, with: String| drop(to.send(News::Refused(Refusal::Busy { with })));
        let supersedes = request.supersedes();
        if let Some(waiting) = self.pending.get(&app) {
            if !supersedes {
                return refuse(to, format!("another request, of {},", waiting.by));
            }
            if let Some(waiting) = self.pending.remove(&app) {
                refuse(waiting.to, format!("a newer request, of {by},"));
            }
        }
        if let Some(u) = self.past.apps.get(&app).and_then(|s| s.under_way.as_ref())
            && u.is_for_people()
            && !u.has_switched()
        {
            if request.leads_to(u.plan.to.as_ref()) {
                self.follow(&app, to);
                return;
            }
            if !supersedes || u.plan.kind == OperationKind::Down {
                return refuse(to, format!("{} {}, asked for by {},", u.plan.kind, u.plan.generation, u.by));
            }
        }
        self.pending.insert(app, Pending { request, by, to, will, told: None });
    }

    /// Gives an operation up, if it is one that leads to a release and that does not serve yet; takes effect with the
    /// next turn. Whether it is. (What cleans up is never given up, and neither is what takes an app away.)
    pub fn cancel(&mut self, generation: Generation, why: String) -> bool {
        let under_way = self.past.apps.values().filter_map(|s| s.under_way.as_ref());
        let may_be = under_way
            .filter(|u| u.plan.generation == generation)
            .any(|u| u.plan.kind.leads_to_a_release() && !u.has_switched());
        if may_be {
            self.cancelled.entry(generation).or_insert(why);
        }
        may_be
    }

    /// Whether the routes of `release` are another app's.
    ///
    /// # Errors
    /// The first conflict found.
    pub fn conflict(&self, release: &Release) -> Result<(), RouteConflict> {
        route_conflict(release, &self.past.apps, &self.releases)
    }

    /// What would be done for `release` now, without doing it.
    ///
    /// # Errors
    /// If nothing would.
    pub fn would_do(&self, release: &Release) -> Result<Plan, NothingToDo> {
        let state = self.past.apps.get(&release.app).cloned().unwrap_or_default();
        let desired = Desired::Serve { release, kind: OperationKind::Deploy };
        plan(&release.app, &state, &desired, self.past.generation.next())
    }

    /// Begins what is next for `app`, if its turn has come. `None` if there is something to carry out.
    pub(super) fn begin_next(&mut self, app: &AppName) -> Result<Option<Wake>, Trouble> {
        if let Some(under_way) = self.past.apps.get(app).and_then(|s| s.under_way.as_ref()) {
            let wants_to = self.pending.get(app).is_some_and(|pending| pending.request.supersedes());
            let may_supersede = under_way.plan.kind == OperationKind::Retire
                || under_way.has_switched()
                || wants_to && under_way.plan.kind.leads_to_a_release();
            if let (true, false, Some(action)) = (wants_to, under_way.has_switched(), under_way.step()) {
                // Where the edge does not answer, it is tried again, and the request waits.
                self.take_back(&action.clone())?;
            }
            let pending = if may_supersede { self.pending.remove(app) } else { None };
            if let Some(pending) = pending {
                // What is under way goes on if nothing comes of the request.
                self.begin_asked(app, pending)?;
            }
            return Ok(None);
        }
        if let Some(failed) = self.past.apps.get(app).and_then(|s| s.to_abandon) {
            let (drain, _) = self.spans(app);
            return self.begin_own(app, &Desired::Abandoned { failed, drain });
        }
        if let Some(pending) = self.pending.remove(app) {
            let begun = self.begin_asked(app, pending)?;
            return Ok(if begun { None } else { Some(Wake::At(self.now())) });
        }
        let at = self.now();
        match self.next_expiry(app) {
            Some(until) if until <= at => {
                let (drain, keep_warm) = self.spans(app);
                self.begin_own(app, &Desired::Tidy { at, drain, keep_warm })
            }
            Some(until) => Ok(Some(Wake::At(until))),
            None => Ok(Some(Wake::WhenWoken)),
        }
    }

    /// How long fleets of an app drain and stay warm, as its live release has it.
    fn spans(&self, app: &AppName) -> (Millis, Millis) {
        let live =
            self.past.apps.get(app).and_then(|s| s.traffic.live()).and_then(|id| self.releases.get(id));
        live.map_or((Millis(0), Millis(0)), |r| (r.drain, r.keep_warm))
    }

    fn next_expiry(&self, app: &AppName) -> Option<Timestamp> {
        let until = |phase: &FleetPhase| match phase {
            FleetPhase::Warm { until } => Some(*until),
            // Left by an operation that was superseded.
            FleetPhase::Draining | FleetPhase::Retiring | FleetPhase::Planned | FleetPhase::Green => {
                Some(Timestamp(0))
            }
            FleetPhase::Canary | FleetPhase::Live => None,
        };
        self.past.apps.get(app)?.fleets.values().filter_map(|f| until(&f.phase)).min()
    }

    fn begin_own(&mut self, app: &AppName, desired: &Desired<'_>) -> Result<Option<Wake>, Trouble> {
        let state = self.past.apps.get(app).cloned().unwrap_or_default();
        let Ok(plan) = plan(app, &state, desired, self.past.generation.next()) else {
            return Ok(Some(Wake::WhenWoken));
        };
        let findings = check(&plan, &state);
        if !findings.is_empty() {
            let findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
            return Err(Trouble(format!("a plan of Kiln's own is unsound: {}", findings.join("; "))));
        }
        self.begin(plan, Author::kiln())?;
        Ok(None)
    }

    /// Begins a request, in the place of what is under way if need be, or tells why not. Whether it was begun.
    fn begin_asked(&mut self, app: &AppName, pending: Pending) -> Result<bool, Trouble> {
        let Pending { request, by, to, will, .. } = pending;
        if let Some(why) = will.given_up() {
            let _ = to.send(News::Refused(Refusal::GivenUp(why)));
            return Ok(false);
        }
        let plan = match self.plan_asked(app, &request) {
            Err(Refused::Already(release)) => {
                if let Err(trouble) = self.set_schema(app, &request, &by) {
                    let _ = to.send(News::Refused(Refusal::Unrecorded(trouble.0.clone())));
                    return Err(trouble);
                }
                // Whoever wants what serves to serve on wants nothing else to take its place.
                if let (true, Some(u)) = (request.supersedes(), self.past.apps[app].under_way.as_ref()) {
                    self.cancel(u.plan.generation, format!("it was superseded: {by} wants what serves"));
                }
                let _ = to.send(News::Serves { release, unchanged: true, warnings: Vec::new() });
                return Ok(false);
            }
            Err(Refused::Because(refusal)) => {
                let _ = to.send(News::Refused(refusal));
                return Ok(false);
            }
            Ok(plan) => plan,
        };
        let generation = plan.generation;
        let steps = plan.steps.iter().map(|s| s.action.to_string()).collect();
        let release = plan.to.clone();
        let ended = self.supersede(app, generation, &by.name);
        if let Err(trouble) = ended.and_then(|()| self.begin(plan, by)) {
            let _ = to.send(News::Refused(Refusal::Unrecorded(trouble.0.clone())));
            return Err(trouble);
        }
        self.wills.insert(generation, will);
        let _ = to.send(News::Begun(generation));
        self.join(app, generation, to);
        if let Some(release) = release {
            self.tell(generation, Event::Planned { release, steps });
        }
        Ok(true)
    }

    /// Whoever goes back to what serves may have brought its data back by hand, and say so.
    fn set_schema(&mut self, app: &AppName, request: &Request, by: &Author) -> Result<(), Trouble> {
        let Request::Serve { schema: Some(schema), .. } = request else { return Ok(()) };
        if self.past.apps.get(app).is_some_and(|state| state.schema != Some(*schema)) {
            let (at, by, app, schema) = (self.now(), by.clone(), app.clone(), *schema);
            self.record(&Record::SchemaSet { at, by, app, schema })?;
        }
        Ok(())
    }

    /// Ends what is under way for `app`, if anything is, in favour of the plan `by`, and tells whoever waits for it.
    fn supersede(&mut self, app: &AppName, by: Generation, who: &str) -> Result<(), Trouble> {
        let Some(old) = self.past.apps.get(app).and_then(|s| s.under_way.clone()) else { return Ok(()) };
        let generation = old.plan.generation;
        self.end(app, generation, Ending::Superseded { by })?;
        self.let_go_of_hook(app, old.step());
        match old.plan.to.clone() {
            Some(release) if old.has_switched() => {
                if let (Some((hook, _)), Some(audience)) = (old.hook(), self.listeners.get_mut(&generation)) {
                    audience.warnings.push(format!("hook {} was ended by plan {by}", hook.instance()));
                }
                self.tell_serves(generation, release);
            }
            _ => self.tell_last(generation, News::Superseded { by, who: who.to_owned() }),
        }
        Ok(())
    }

    fn plan_asked(&mut self, app: &AppName, request: &Request) -> Result<Plan, Refused> {
        // What is under way now is superseded by what is planned here.
        let state = self.past.apps.get(app).map(AppState::when_superseded).unwrap_or_default();
        let desired = match request {
            Request::Serve { release, kind, schema, .. } => {
                self.conflict(release).map_err(Refusal::Conflict)?;
                release.works_with(schema.or(state.schema)).map_err(Refusal::Schema)?;
                // At hand before any fleet of it exists, so that nothing can fail between the two.
                self.releases.insert(release.id(), Release::clone(release));
                Desired::Serve { release, kind: *kind }
            }
            Request::Down { drain } => Desired::Absent { drain: *drain },
        };
        let mut plan =
            plan(app, &state, &desired, self.past.generation.next()).map_err(|nothing| match nothing {
                NothingToDo::AlreadyLive(release) => Refused::Already(release),
                NothingToDo::NothingThere => Refused::Because(Refusal::NothingThere),
            })?;
        if let Request::Serve { kind: OperationKind::Rollback, schema, .. } = request {
            // No hook is run that would make anything else of the data.
            plan.leaves = schema.or(state.schema).or(plan.leaves);
        }
        let findings = check(&plan, &state);
        if findings.is_empty() {
            Ok(plan)
        } else {
            Err(Refusal::Unsound(findings.iter().map(ToString::to_string).collect()).into())
        }
    }

    fn begin(&mut self, plan: Plan, by: Author) -> Result<(), Trouble> {
        let at = self.now();
        self.record(&Record::Begun { at, by, plan })
    }

    /// Writes down how an operation ended.
    pub(super) fn end(
        &mut self,
        app: &AppName,
        generation: Generation,
        ending: Ending,
    ) -> Result<(), Trouble> {
        let at = self.now();
        self.record(&Record::Ended { at, app: app.clone(), generation, ending })?;
        self.cancelled.remove(&generation);
        self.wills.remove(&generation);
        Ok(())
    }
}

/// Why there is no plan for a request.
enum Refused {
    Already(kiln_model::ReleaseId),
    Because(Refusal),
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Because(refusal)
    }
}
