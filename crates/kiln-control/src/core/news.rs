//! What those who asked for an operation are told.

use std::sync::mpsc::Sender;

use kiln_model::{AppName, Event, Generation, Millis, OperationKind, ReleaseId, Stamped, Timestamp};

use super::{Core, Refusal};

/// A piece of news about an operation.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// It has begun, as this plan.
    Begun(Generation),
    /// It is under way already, as this plan: how it goes on is told from here.
    Follows(Generation),
    /// Something happened.
    Event(Stamped),
    /// The release serves all new requests. Last of an operation that went well.
    Serves {
        /// The release.
        release: ReleaseId,
        /// Whether it did before.
        unchanged: bool,
        /// What did not go well after the switch.
        warnings: Vec<String>,
    },
    /// All steps are done. Last of an operation that leads to no release.
    Ended,
    /// It has failed and what it made is gone. Last of an operation that did.
    Failed {
        /// The step in words.
        step: String,
        /// Why.
        cause: String,
    },
    /// A newer one took its place before its release served. Last of an operation to which that happened.
    Superseded {
        /// The newer one.
        by: Generation,
        /// Who asked for it.
        who: String,
    },
    /// It was never begun.
    Refused(Refusal),
}

/// Where news goes. A listener that has gone is no longer told.
pub type NewsSender = Sender<News>;

/// Those who listen to an operation: whoever asked for it, and whoever came later.
pub(super) struct Audience {
    app: AppName,
    to: Vec<NewsSender>,
    /// A failure that is told when what the operation made is gone.
    pub(super) failed: Option<(String, String)>,
    /// What did not go well after the switch.
    pub(super) warnings: Vec<String>,
    /// The trouble they were told of last.
    told: Option<String>,
}

/// What is over sooner is nobody's concern, such as an edge that takes the place of another.
const SHORT_TROUBLE: Millis = Millis(1_000);

impl Core {
    /// One more listens to the operation of `generation`, which is about `app`.
    pub(super) fn join(&mut self, app: &AppName, generation: Generation, to: NewsSender) -> &mut Audience {
        let audience = self.listeners.entry(generation).or_insert_with(|| Audience {
            app: app.clone(),
            to: Vec::new(),
            failed: None,
            warnings: Vec::new(),
            told: None,
        });
        audience.to.push(to);
        // Whoever comes later has not heard of it.
        audience.told = None;
        audience
    }

    /// Has `to` told how what is under way for `app` goes on and ends, whoever asked for it; which operation it is.
    /// `None` if nobody waits for anything there.
    pub fn follow(&mut self, app: &AppName, to: NewsSender) -> Option<Generation> {
        let state = self.past.apps.get(app)?;
        let plan = state.under_way.as_ref()?.plan.clone();
        let (failure, done) = (state.last_failure.clone(), state.under_way.as_ref()?.done);
        match (plan.kind, plan.parent) {
            (OperationKind::Deploy | OperationKind::Rollback | OperationKind::Down, _) => {
                let _ = to.send(News::Follows(plan.generation));
                self.join(app, plan.generation, to);
                self.tell_if_it_serves(&plan, done);
                Some(plan.generation)
            }
            // What failed is told when its remains are gone.
            (OperationKind::Abandon, Some(failed)) => {
                let _ = to.send(News::Follows(failed));
                let audience = self.join(app, failed, to);
                audience.failed.get_or_insert((String::new(), failure.unwrap_or_default()));
                Some(failed)
            }
            (OperationKind::Abandon | OperationKind::Retire, _) => None,
        }
    }

    /// Tells whoever listens to the operation of `generation`.
    pub(super) fn tell(&mut self, generation: Generation, event: Event) {
        let at = self.now();
        if let Some(audience) = self.listeners.get(&generation) {
            for to in &audience.to {
                // Who has gone need not be told.
                let _ = to.send(News::Event(Stamped { at, event: event.clone() }));
            }
        }
    }

    /// Tells whoever waits for an operation, or for its turn, what holds it up, once, when it has for a while.
    pub(super) fn tell_trouble(&mut self, now: Timestamp) {
        let Some((since, trouble)) = self.trouble.clone() else { return };
        if since.until(now) < SHORT_TROUBLE {
            return;
        }
        let held_up = &self.held_up;
        let is_news = |audience: &&mut Audience| {
            held_up.contains(&audience.app) && audience.told.as_ref() != Some(&trouble)
        };
        for audience in self.listeners.values_mut().filter(is_news) {
            audience.told = Some(trouble.clone());
            let warning = format!("{trouble}: it is tried again until it succeeds; `kiln cancel` gives up");
            let event = Stamped { at: now, event: Event::Warned { warning } };
            audience.to.retain(|to| to.send(News::Event(event.clone())).is_ok());
        }
        for (_, pending) in self.pending.iter_mut().filter(|(app, _)| held_up.contains(*app)) {
            pending.tell_trouble(now, &trouble);
        }
    }

    /// Tells whoever listens the last there is to tell.
    pub(super) fn tell_last(&mut self, generation: Generation, news: News) {
        for to in self.listeners.remove(&generation).into_iter().flat_map(|audience| audience.to) {
            let _ = to.send(news.clone());
        }
    }

    /// Tells of instances that have become healthy.
    pub(super) fn announce(&mut self) {
        let well = self.health_view().0;
        let new: Vec<_> = well.difference(&self.announced).cloned().collect();
        for instance in &new {
            let fleet = self.members().find(|(_, id)| id == instance).map(|(fleet, _)| fleet);
            if let Some(fleet) = fleet {
                self.tell_app(&fleet.app, Event::InstanceReady { instance: instance.clone() });
            }
        }
        self.announced = well;
    }

    /// Tells whoever listens to what is under way for `app`.
    pub(super) fn tell_app(&mut self, app: &AppName, event: Event) {
        let of_app = self.listeners.iter().filter(|(_, l)| l.app == *app);
        let generations: Vec<Generation> = of_app.map(|(generation, _)| *generation).collect();
        for generation in generations {
            self.tell(generation, event.clone());
        }
    }
}
