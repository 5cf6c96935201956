//! A damaged image is not started: what its programs would do, nobody knows.

use std::collections::BTreeSet;

use kiln_model::{AppState, ExitCode, Failure, Release};
use kiln_store::Store;

use super::super::failure;
use super::new_services;

/// How much of the damage is told.
const MOST_TOLD: usize = 5;

/// Refuses a release that needs new instances of an image that is damaged here, as far as that shows without reading all
/// of it.
///
/// # Errors
/// Which file of which image is at fault.
pub(in crate::host) fn check(release: &Release, state: &AppState, store: &Store) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    for (name, service) in new_services(release, state).filter(|(_, service)| seen.insert(service.image)) {
        let damage = store.damage_of(&service.image).map_err(|e| failure::store(&e))?;
        if damage.is_empty() {
            continue;
        }
        let message =
            format!("image {} of service {name} is damaged, and none is started of it", service.image);
        let mut refusal = Failure::new(ExitCode::Host, message);
        for one in damage.iter().take(MOST_TOLD) {
            refusal = refusal.because(format!("{}: {}", one.path.display(), one.problem));
        }
        if damage.len() > MOST_TOLD {
            refusal = refusal.because(format!("and {} more", damage.len() - MOST_TOLD));
        }
        return Err(refusal.hint(
            "`kiln verify --repair` removes what is damaged; the next `kiln bake` of the spec and the lock it was made \
             from makes that again",
        ));
    }
    Ok(())
}
