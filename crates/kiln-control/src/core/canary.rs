//! A canary under observation: evidence from the edge, a verdict from the model.
//!
//! What was looked at so far is not written down. A control plane that goes on after another one begins the step's
//! observation anew, from what the edge has counted by then, and the step's time goes on from when it was begun.

use std::collections::BTreeMap;

use kiln_model::{AppName, Evidence, FleetId, FleetPhase, Millis, Pair, Terms, Timestamp, Trial, Verdict};

use super::Core;
use super::carry_out::Came;

/// One step of a canary as it is watched.
pub(super) struct Watch {
    /// When the step began: another step is another watch.
    begun: Timestamp,
    trial: Trial,
    /// What had been seen when this watch began.
    before: BTreeMap<FleetId, Evidence>,
    /// How many members had been lost then.
    losses: u32,
    /// What was seen last, in words.
    figures: String,
}

/// How often it is looked, unless a step is so short that its warming up would be missed.
const LOOK: u64 = 1_000;

impl Core {
    pub(super) fn observe_canary(
        &mut self,
        app: &AppName,
        fleets: &[FleetId],
        terms: &Terms,
        begun: Timestamp,
    ) -> Came {
        if let Some(cause) = self.keeps_losing(app, fleets, begun) {
            return Came::Failed(cause);
        }
        let pairs = self.pairs(app, fleets, begun);
        let now = self.now();
        let Some(watch) = self.watches.get_mut(app) else { return Came::Waits(Some(now)) };
        match watch.trial.look(&pairs, terms, begun.until(now)) {
            Verdict::Worse(why) => Came::Failed(format!("the canary is given up: {why}")),
            Verdict::AsGood(figures) => Came::Done(Some(format!("as good as what serves: {figures}"))),
            Verdict::NoEvidence(figures) => Came::Done(Some(format!(
                "no difference was found, with too little evidence to be sure, in {}: {figures}",
                terms.within
            ))),
            Verdict::Open(figures) => {
                watch.figures = figures;
                let look = Millis(LOOK.min(terms.hold.0 / 8).max(50));
                Came::Waits(Some(now.after(look).min(begun.after(terms.within).max(now.after(Millis(1))))))
            }
        }
    }

    /// What has been seen of the canary and of what serves, since the step began.
    fn pairs(&mut self, app: &AppName, fleets: &[FleetId], begun: Timestamp) -> Vec<Pair> {
        let state = self.state(app);
        let serving = state.fleets.values().filter(|f| f.phase == FleetPhase::Live).map(|f| f.id.clone());
        let serving: BTreeMap<_, FleetId> = serving.map(|id| (id.service.clone(), id)).collect();
        let losses = losses(self, app, fleets);
        let all: Vec<FleetId> = fleets.iter().chain(serving.values()).cloned().collect();
        let seen = self.world.edge.evidence(&all);
        let seen: BTreeMap<FleetId, Evidence> = seen.into_iter().map(|e| (e.fleet, e.evidence)).collect();
        let is_later = |watch: &&mut Watch| {
            let zero = Evidence::default();
            watch.begun == begun
                && watch.before.iter().all(|(id, then)| seen.get(id).unwrap_or(&zero).since(then).is_some())
        };
        if self.watches.get_mut(app).filter(is_later).is_none() {
            let watch = Watch {
                begun,
                trial: Trial::default(),
                before: seen.clone(),
                losses,
                figures: String::new(),
            };
            self.watches.insert(app.clone(), watch);
        }
        let before = &self.watches[app].before;
        let of = |id: Option<&FleetId>| {
            let now = id.and_then(|id| seen.get(id)).cloned().unwrap_or_default();
            let then = id.and_then(|id| before.get(id)).cloned().unwrap_or_default();
            now.since(&then).unwrap_or_default()
        };
        let pair = |id: &FleetId| Pair {
            service: id.service.clone(),
            blue: of(serving.get(&id.service)),
            green: of(Some(id)),
        };
        // What nobody asks from outside is only seen by how it fares.
        let routed = |id: &&FleetId| self.has_route(id);
        fleets.iter().filter(routed).map(pair).collect()
    }

    fn has_route(&self, fleet: &FleetId) -> bool {
        let release = self.past.apps.get(&fleet.app).and_then(|s| s.fleets.get(fleet)).map(|f| &f.release);
        let release = release.and_then(|id| self.releases.get(id));
        release.is_some_and(|r| r.routes.values().any(|route| route.service == fleet.service))
    }

    /// Whether members of a canary are lost again and again.
    fn keeps_losing(&self, app: &AppName, fleets: &[FleetId], begun: Timestamp) -> Option<String> {
        let before = self.watches.get(app).filter(|watch| watch.begun == begun)?.losses;
        let lost = losses(self, app, fleets).saturating_sub(before);
        let state = self.state(app);
        let of = fleets.iter().filter_map(|id| state.fleets.get(id));
        let size: u32 = of.clone().map(kiln_model::Fleet::size).sum();
        let cause = of.filter_map(|f| f.last_loss.as_deref()).next_back().unwrap_or("it was lost");
        let too_many = lost >= (size / 2).max(3);
        too_many.then(|| {
            format!("the canary is given up: {lost} of its instances were lost; the last one: {cause}")
        })
    }

    /// What was seen last of a canary, in words.
    pub(super) fn figures(&self, app: &AppName) -> Option<&str> {
        let under_way = self.past.apps.get(app)?.under_way.as_ref()?;
        let watch = self.watches.get(app).filter(|watch| under_way.intent == Some(watch.begun))?;
        Some(watch.figures.as_str()).filter(|figures| !figures.is_empty())
    }
}

fn losses(core: &Core, app: &AppName, fleets: &[FleetId]) -> u32 {
    let state = core.state(app);
    fleets.iter().filter_map(|id| state.fleets.get(id)).map(|f| f.losses).sum()
}
