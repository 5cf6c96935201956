//! `[deploy] strategy = { canary = […] }`.

use super::{Place, Problems, parse, parse_or};
use crate::spec::{CanaryFile, SpecFile, StrategyFile};
use crate::{Canary, Millis, Share, Terms};

/// More steps than this are a slip of the finger.
const MOST_STEPS: usize = 100;

/// How a release takes over, if in steps.
pub(super) fn canary(file: &SpecFile, problems: &mut Problems<'_, '_>) -> Option<Canary> {
    let Some(StrategyFile::Canary(canary)) = &file.deploy.as_ref()?.strategy else { return None };
    let place = Place::default().key("deploy").key("strategy");
    let shares = shares(canary, &place.key("canary"), problems);
    let hold = parse_or(canary.hold.as_ref(), Millis(60_000), &place.key("hold"), problems);
    let ten_times = Millis(hold.0.saturating_mul(10));
    let within = parse_or(canary.within.as_ref(), ten_times, &place.key("within"), problems);
    if within < hold {
        let message = format!("`within` is {within} and `hold` is {hold}");
        problems.value(&place.key("within"), message).expected("no less time than a step takes at least");
    }
    let errors = parse_or(canary.errors.as_ref(), Share(100), &place.key("errors"), problems);
    let slower = parse_or(canary.slower.as_ref(), Share(5_000), &place.key("slower"), problems);
    let terms = Terms { hold, within, errors, slower };
    Some(Canary { shares, terms, preview: canary.preview.unwrap_or(false) })
}

fn shares(canary: &CanaryFile, place: &Place, problems: &mut Problems<'_, '_>) -> Vec<Share> {
    if canary.canary.is_empty() || canary.canary.len() > MOST_STEPS {
        problems
            .value(place, format!("a canary of {} steps", canary.canary.len()))
            .expected(format!("1 to {MOST_STEPS} shares, like `[\"5%\", \"25%\"]`"));
    }
    let mut shares: Vec<Share> = Vec::new();
    for (index, text) in canary.canary.iter().enumerate() {
        let place = place.item(index);
        let Some(share) = parse::<Share>(text, &place, problems) else { continue };
        if share >= Share::WHOLE {
            problems
                .value(&place, format!("{share} of the users are no canary"))
                .expected("less than 100%; the last step is followed by the switch");
        }
        if shares.last().is_some_and(|last| share <= *last) {
            problems
                .value(&place, format!("{share} is not more than the step before"))
                .expected("growing shares");
        }
        shares.push(share);
    }
    shares
}
