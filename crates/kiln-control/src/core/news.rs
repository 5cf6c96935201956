//! What those who asked for an operation are told.

use std::sync::mpsc::Sender;

use kiln_model::{AppName, Event, Generation, ReleaseId, Stamped};

use super::{Core, Refusal};

/// A piece of news about an operation.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// It has begun, as this plan.
    Begun(Generation),
    /// Something happened.
    Event(Stamped),
    /// The release serves all new requests. Last of an operation that went well.
    Serves {
        /// The release.
        release: ReleaseId,
        /// Whether it did before.
        unchanged: bool,
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
    /// It was never begun.
    Refused(Refusal),
}

/// Where news goes. A listener that has gone is no longer told.
pub type NewsSender = Sender<News>;

/// Somebody who listens to an operation.
pub(super) struct Listener {
    pub(super) app: AppName,
    pub(super) to: NewsSender,
    /// A failure that is told when what the operation made is gone.
    pub(super) failed: Option<(String, String)>,
}

impl Core {
    /// Tells whoever listens to the operation of `generation`.
    pub(super) fn tell(&mut self, generation: Generation, event: Event) {
        let at = self.now();
        if let Some(listener) = self.listeners.get(&generation) {
            // Who has gone need not be told.
            let _ = listener.to.send(News::Event(Stamped { at, event }));
        }
    }

    /// Tells whoever listens the last there is to tell.
    pub(super) fn tell_last(&mut self, generation: Generation, news: News) {
        if let Some(listener) = self.listeners.remove(&generation) {
            let _ = listener.to.send(news);
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
