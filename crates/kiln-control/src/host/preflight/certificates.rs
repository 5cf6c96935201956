//! Certificates that a release is to be reached with: files that can be used, or an authority to get them from.

use kiln_model::{CertificatePaths, Failure, Spec};

use crate::host::failure;
use crate::host::processes::inspect_certificate;
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

/// What is doubtful about these: they have expired, or will soon. Whoever goes back is told of those that cannot be used
/// at all, too, and goes back.
pub(in crate::host) fn doubts(certificates: &[CertificatePaths]) -> Vec<String> {
    certificates
        .iter()
        .filter_map(|paths| inspect_certificate(paths, time_of_day()).unwrap_or_else(Some))
        .collect()
}
