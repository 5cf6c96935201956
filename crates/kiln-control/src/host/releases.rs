//! Releases: what there is to go back to, one in full, what differs between two.

use std::collections::BTreeMap;

use kiln_model::{
    Answer, AppName, AppState, ExitCode, Failure, FleetPhase, ImageRecord, Record, Release, ReleaseAnswer,
    ReleaseDiffAnswer, ReleaseEntry, ReleaseId, ReleaseImage, ReleaseState, ServiceName,
};
use kiln_store::StoreError;

use super::{LocalHost, failure};
use crate::changes;
use crate::sync::lock;

impl LocalHost {
    pub(crate) fn releases(&self, app: Option<AppName>) -> Result<Answer, Failure> {
        let app = self.app(app)?;
        let state = lock(&self.driver.core).apps()[&app].clone();
        let entries = state.kept.iter().rev().map(|kept| {
            let (images, damage) = match self.store.release(&kept.release) {
                Ok(release) => {
                    (release.services.into_iter().map(|(name, s)| (name, s.image)).collect(), None)
                }
                Err(damaged @ (StoreError::Damaged { .. } | StoreError::NoSuchRelease(_))) => {
                    (BTreeMap::new(), Some(damaged.to_string()))
                }
                Err(error) => return Err(failure::store(&error)),
            };
            Ok(ReleaseEntry {
                damage,
                release: kept.release.clone(),
                created: kept.came.at,
                by: kept.came.by.clone(),
                images,
                state: release_state(&state, &kept.release),
                pinned: state.pinned.contains(&kept.release),
            })
        });
        Ok(Answer::Releases(entries.collect::<Result<_, Failure>>()?))
    }

    pub(crate) fn release_show(&self, app: Option<AppName>, given: &str) -> Result<Answer, Failure> {
        let app = self.app(app)?;
        let release = self.named(&app, given)?;
        let id = release.id();
        let state = lock(&self.driver.core).apps()[&app].clone();
        let first = state.kept.iter().find(|s| s.release == id).and_then(|s| s.first.as_ref());
        let (images, damaged_images) = self.images_of(&release)?;
        Ok(Answer::Release(Box::new(ReleaseAnswer {
            created: first.map(|first| first.at),
            by: first.map(|first| first.by.clone()),
            state: release_state(&state, &id),
            pinned: state.pinned.contains(&id),
            images,
            damaged_images,
            document: release,
            release: id,
        })))
    }

    pub(crate) fn release_diff(&self, app: Option<AppName>, from: &str, to: &str) -> Result<Answer, Failure> {
        let app = self.app(app)?;
        let (old, new) = (self.named(&app, from)?, self.named(&app, to)?);
        let differences = changes::in_full(&old, &new, &self.store);
        Ok(Answer::ReleaseDiff(ReleaseDiffAnswer { from: old.id(), to: new.id(), differences }))
    }

    /// The release of `app` meant by `given`, whether it ever served or not.
    pub(super) fn named(&self, app: &AppName, given: &str) -> Result<Release, Failure> {
        let ids = self.store.releases().map_err(|e| failure::store(&e))?;
        let is_its = |id: &&ReleaseId| self.store.release(id).is_ok_and(|release| release.app == *app);
        let id = match find(given, ids.iter()) {
            // Those of other apps are not meant.
            Err(NotFound::Several(_, ids)) => find(given, ids.iter().filter(is_its)),
            found => found,
        };
        let id = id.map_err(|not| self.not_found(app, not))?;
        let release = self.store.release(&id).map_err(|e| failure::store(&e))?;
        if release.app == *app { Ok(release) } else { Err(NotFound::Nothing(given.into()).of(app)) }
    }

    /// Why there is no such release to go back to, as far as the log knows.
    pub(super) fn not_found(&self, app: &AppName, not: NotFound) -> Failure {
        let NotFound::Nothing(given) = &not else { return not.of(app) };
        let mut fate = Fate::default();
        let read = self.each_record(&mut |record| fate.learn(app, given, &record));
        match (read, fate.collected.or(fate.asked_for)) {
            (Ok(()), Some(told)) => Failure::new(ExitCode::Usage, told).hint(GO_BACK),
            _ => not.of(app),
        }
    }

    /// The images of a release by service, and what is wrong with those whose records cannot be read.
    fn images_of(&self, release: &Release) -> Result<ImagesOfRelease, Failure> {
        let (mut images, mut damaged) = ImagesOfRelease::default();
        for (name, service) in &release.services {
            let record = match self.store.image(&service.image) {
                Ok(Some(record)) => record,
                Ok(None) => continue,
                Err(error @ StoreError::Damaged { .. }) => {
                    damaged.insert(name.clone(), error.to_string());
                    continue;
                }
                Err(error) => return Err(failure::store(&error)),
            };
            let (digest, bytes) = (record.digest, record.metadata_bytes + record.content_bytes);
            let ImageRecord { entries, packages, handmade, .. } = record;
            let image = ReleaseImage { digest, bytes, entries, packages, handmade };
            images.insert(name.clone(), image);
        }
        Ok((images, damaged))
    }
}

type ImagesOfRelease = (BTreeMap<ServiceName, ReleaseImage>, BTreeMap<ServiceName, String>);

const GO_BACK: &str = "`kiln releases` lists what can be gone back to";

/// What became of a release that is not there, as the log has it: the last that it says.
#[derive(Debug, Default)]
struct Fate {
    collected: Option<String>,
    asked_for: Option<String>,
}

impl Fate {
    /// Takes account of the next entry, as far as it is about the release of `app` that is meant by `given`.
    fn learn(&mut self, app: &AppName, given: &str, record: &Record) {
        match record {
            Record::Collected { at, by, releases, .. } if record.app() == app => {
                let Ok(id) = find(given, releases.iter()) else { return };
                let told =
                    format!("release {} was removed by `kiln gc` at {at}, asked for by {by}", id.short());
                self.collected = Some(told);
            }
            Record::Begun { at, by, plan } if plan.app == *app => {
                let Ok(id) = find(given, plan.to.iter()) else { return };
                let kind = plan.kind;
                self.asked_for = Some(format!(
                    "release {} never served: the {kind} to it that {by} asked for at {at} came to nothing",
                    id.short()
                ));
            }
            _ => {}
        }
    }
}

/// Why a release that was named is not known which.
pub(super) enum NotFound {
    Nothing(String),
    Several(String, Vec<ReleaseId>),
}

impl NotFound {
    pub(super) fn of(self, app: &AppName) -> Failure {
        match self {
            Self::Nothing(given) => {
                Failure::new(ExitCode::Usage, format!("app {app} never had a release {given}")).hint(GO_BACK)
            }
            Self::Several(given, ids) => {
                let message = format!("`{given}` is the beginning of {} releases of {app}", ids.len());
                let hint = format!("give more of it; `kiln releases` lists them: {}", some_of(&ids));
                Failure::new(ExitCode::Usage, message).hint(hint)
            }
        }
    }
}

/// A host that has lived for years has thousands: a few are named.
fn some_of(ids: &[ReleaseId]) -> String {
    const NAMED: usize = 5;
    let named: Vec<&str> = ids.iter().take(NAMED).map(ReleaseId::short).collect();
    let more = ids.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    named.join(", ") + &more
}

/// The one of `ids` that is meant by `given`: all of it, or its beginning, with or without `r-`.
pub(super) fn find<'a>(given: &str, ids: impl Iterator<Item = &'a ReleaseId>) -> Result<ReleaseId, NotFound> {
    let fits = |id: &&ReleaseId| id.as_str().starts_with(given) || id.as_str()[2..].starts_with(given);
    let found: Vec<&ReleaseId> = ids.filter(fits).collect();
    match found[..] {
        [one] => Ok(one.clone()),
        [] => Err(NotFound::Nothing(given.into())),
        _ => Err(NotFound::Several(given.into(), found.into_iter().cloned().collect())),
    }
}

pub(super) fn release_state(state: &AppState, release: &ReleaseId) -> ReleaseState {
    let is_up = |f: &kiln_model::Fleet| {
        f.release == *release && matches!(f.phase, FleetPhase::Warm { .. } | FleetPhase::Draining)
    };
    if state.traffic.live() == Some(release) {
        ReleaseState::Live
    } else if state.fleets.values().any(is_up) {
        ReleaseState::Warm
    } else {
        ReleaseState::Stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_of_many_names_a_few() {
        let ids: Vec<ReleaseId> = (0..9).map(|n| format!("r-{n:032x}").parse().unwrap()).collect();
        assert!(find("r-00000000000000000000000000000007", ids.iter()).is_ok());
        let Err(not) = find("", ids.iter()) else { panic!("one of nine") };
        let failure = not.of(&"hello".parse().unwrap());
        assert_eq!(failure.message, "`` is the beginning of 9 releases of hello");
        let hint = failure.hint.unwrap();
        assert!(hint.ends_with(" and 4 more") && hint.matches("r-0").count() == 5, "{hint}");
    }
}
