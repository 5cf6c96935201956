//! Certificates that a release is to be reached with: files that can be used, or an authority to get them from.

use std::collections::BTreeSet;

use kiln_model::{Failure, Release, Spec};

use crate::host::certificate_names::Names;
use crate::host::failure;
use crate::host::processes::{inspect_certificate, names_of_certificate};
use crate::shelf::time_of_day;

/// Refuses a spec whose certificates cannot be used. Later, one that cannot be used is replaced by what it was before;
/// now there is no before.
///
/// # Errors
/// What is wrong with the first of them, or that this host knows no authority.
pub(in crate::host) fn check(spec: &Spec, knows_authority: bool) -> Result<(), Failure> {
    for paths in &spec.certificates {
        inspect_certificate(paths, time_of_day()).map_err(|problem| failure::bad_certificate(&problem))?;
    }
    if spec.automatic_tls && !knows_authority { Err(failure::no_authority()) } else { Ok(()) }
}

/// What is doubtful about those of a release: they have expired, or will soon, or there will be none for some of its
/// hosts, for which none of those at `served` is either. Whoever goes back is told of those that cannot be used at all,
/// too, and goes back.
pub(in crate::host) fn doubts(release: &Release, served: BTreeSet<String>) -> Vec<String> {
    let files = &release.certificates;
    let told = files.iter().filter_map(|at| inspect_certificate(at, time_of_day()).unwrap_or_else(Some));
    let covered = served.into_iter().chain(files.iter().flat_map(names_of_certificate)).collect();
    told.chain(Names::of(std::slice::from_ref(release), &covered).doubts()).collect()
}
