//! Those who asked for something, and whether what they are told is true.

use std::sync::mpsc::Receiver;

use kiln_control::{News, Request};
use kiln_model::{AppName, Generation, InstanceState, ReleaseId};

use super::ground::Truth;
use super::judge::Ended;
use super::life::Storm;

/// Somebody who asked for something.
pub(super) struct Listener {
    app: AppName,
    asked: Option<ReleaseId>,
    news: Receiver<News>,
    generation: Option<Generation>,
    told: bool,
}

impl Listener {
    pub(super) fn new(app: AppName, request: Request, news: Receiver<News>) -> Self {
        let asked = match request {
            Request::Serve { release, .. } => Some(release.id()),
            Request::Down { .. } => None,
        };
        Self { app, asked, news, generation: None, told: false }
    }

    /// Why what is told is not true.
    fn hear(&mut self, news: &News, truth: &Truth) -> Option<String> {
        let last = !matches!(news, News::Begun(_) | News::Follows(_) | News::Event(_));
        if last && std::mem::replace(&mut self.told, true) {
            return Some(format!("ann is told the last twice: {news:?}"));
        }
        let end = self.generation.and_then(|g| truth.judge.ends.get(&g)).copied();
        let live = truth.judge.apps.get(&self.app).and_then(|ledger| ledger.live.as_ref());
        let is_true = match news {
            News::Begun(generation) | News::Follows(generation) => {
                self.generation = Some(*generation);
                true
            }
            News::Event(_) => true,
            News::Serves { release, unchanged: true, .. } => {
                self.asked.as_ref() == Some(release) && live == Some(release)
            }
            News::Serves { release, unchanged: false, .. } => {
                self.asked.as_ref() == Some(release) && matches!(end, Some(Ended::Switched | Ended::Done))
            }
            News::Ended => end == Some(Ended::Done),
            News::Failed { .. } => end == Some(Ended::Failed) && !truth.is_anything_left_of(self.generation),
            News::Superseded { .. } => end == Some(Ended::Superseded),
            News::Refused(_) => self.generation.is_none(),
        };
        (!is_true)
            .then(|| format!("ann is told {news:?} of {:?}, and it is not so: {end:?}", self.generation))
    }
}

impl Truth {
    fn is_anything_left_of(&self, generation: Option<Generation>) -> bool {
        let Some(generation) = generation else { return false };
        let of = |id: &str| id.rsplit('-').nth(1) == Some(generation.to_string().as_str());
        // One that was asked to end may take the grace its image gives it.
        let runs = |m: &&super::ground::Machine| matches!(m.status.state, InstanceState::Running { .. });
        self.machines.values().filter(runs).any(|m| of(m.status.id.as_str()))
    }
}

impl Storm {
    /// Hears what everybody is told.
    pub(super) fn hear(&mut self) {
        let ground = self.ground.clone();
        for listener in &mut self.listeners {
            while let Ok(news) = listener.news.try_recv() {
                ground.with(|truth| {
                    if !matches!(news, News::Event(_)) {
                        truth.note(|| format!("ann is told: {news:?}"));
                    }
                    if let Some(lie) = listener.hear(&news, truth) {
                        truth.judge.find(lie);
                    }
                });
            }
        }
    }

    /// Somebody who waits for an end that was not told.
    pub(super) fn who_waits(&self) -> Option<String> {
        let waits = self.listeners.iter().find(|l| !l.told)?;
        Some(format!("ann was never told how {:?} of {} ended", waits.generation, waits.app))
    }
}
