//! One step of installing packages: the tree of the step before, with some more packages in it, configured.

use kiln_model::Tree;
use kiln_store::{Batch, Store};

use super::assemble::{AssembleError, Assembly};
use super::configure::{self, Unpacked};
use super::package::Package;
use super::{database, normalise};
use crate::BakeError;
use crate::order::Report;

/// Asked by packages that want to start a service: 101 is "no".
const POLICY: (&str, &[u8]) = ("/usr/sbin/policy-rc.d", b"#!/bin/sh\nexit 101\n");

/// What is installed, and what is to be.
pub(crate) struct Step<'a> {
    pub(crate) old: &'a [Package<'a>],
    pub(crate) new: &'a [Package<'a>],
    pub(crate) architecture: &'a str,
    /// "Now".
    pub(crate) epoch: i64,
}

/// The tree after `step`; `before` is the one in which the old packages are installed.
pub(crate) fn built(
    before: Option<Tree>,
    step: &Step<'_>,
    store: &Store,
    report: &dyn Report,
) -> Result<Tree, BakeError> {
    let mut assembly = match before {
        Some(before) => Assembly::over(before, step.old, step.new, step.epoch, store)?,
        None => Assembly::of_nothing(step.new, step.architecture, step.epoch)?,
    };
    // In an empty tree there is nothing to divert, and nothing to run a script with.
    let diverts = |i: &usize| !step.old.is_empty() && step.new[*i].may_divert();
    let (diverting, others): (Vec<usize>, Vec<usize>) = (0..step.new.len()).partition(diverts);
    others.iter().try_for_each(|i| assembly.lay(*i))?;
    let batch = store.objects().batch()?;
    enter(&mut assembly, store, &batch)?;
    batch.commit()?;
    let unpacked = Unpacked { packages: step.new, diverting: &diverting, epoch: step.epoch };
    if !diverting.is_empty() {
        let tree = configure::diverted(&unpacked, assembly.take_tree(), store, report)?;
        assembly.resume(tree, store)?;
        diverting.iter().try_for_each(|i| assembly.lay(*i))?;
    }
    let configured = configure::configured(&unpacked, assembly.take_tree(), store, report)?;
    normalise::normalised(configured, step.epoch, store)
}

fn enter(assembly: &mut Assembly<'_>, store: &Store, batch: &Batch) -> Result<(), AssembleError> {
    database::enter(assembly, store, batch)?;
    assembly.file(POLICY.0, 0o755, POLICY.1, batch)
}
