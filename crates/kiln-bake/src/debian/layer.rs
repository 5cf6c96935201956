//! One step of installing packages: the tree of the step before, with some more packages in it, configured.

use kiln_model::{LeftOut, Tree};
use kiln_store::Store;

use super::assemble::Assembly;
use super::configure::{self, Unpacked};
use super::package::Package;
use super::plan::plan;
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

/// The tree after `step`, and what of it belonged to one machine and was left out; `before` is the tree in which the old
/// packages are installed.
pub(crate) fn built(
    before: Option<Tree>,
    step: &Step<'_>,
    store: &Store,
    report: &dyn Report,
) -> Result<(Tree, Vec<LeftOut>), BakeError> {
    let mut assembly = match before {
        Some(before) => Assembly::over(before, step.old, step.new, step.epoch, store)?,
        None => Assembly::of_nothing(step.new, step.architecture, step.epoch)?,
    };
    let (late, others): (Vec<usize>, Vec<usize>) = (0..step.new.len()).partition(|i| is_late(step, *i));
    unpack(&mut assembly, &others, store)?;
    let unpacked = Unpacked { packages: step.new, plan: &plan(step.new, &late), epoch: step.epoch };
    if !late.is_empty() {
        let tree = configure::before_their_files(&unpacked, assembly.lend_tree(), store, report)?;
        assembly.resume(tree, store)?;
        unpack(&mut assembly, &late, store)?;
    }
    let configured = configure::configured(&unpacked, assembly.take_tree(), store, report)?;
    normalise::normalised(configured, step.epoch, store)
}

/// Whether a new package's own `preinst` must have run before its files are there, and before dpkg knows them for its own:
/// it would not move aside what it takes for a file of the package that asks for it.
fn is_late(step: &Step<'_>, new: usize) -> bool {
    let package = &step.new[new];
    let is_shared = |path: &[u8]| {
        let others = step.old.iter().chain(step.new).filter(|other| other.name() != package.name());
        others.into_iter().any(|other| other.data.get(path).is_some())
    };
    // In an empty tree there is nothing to run a script with.
    !step.old.is_empty() && package.preinst_minds_its_files(&is_shared)
}

/// Lays the files of some of the new packages, and lets dpkg know them.
fn unpack(assembly: &mut Assembly<'_>, some: &[usize], store: &Store) -> Result<(), BakeError> {
    some.iter().try_for_each(|new| assembly.lay(*new))?;
    let batch = store.objects().batch()?;
    database::enter(assembly, some, store, &batch)?;
    assembly.file(POLICY.0, 0o755, POLICY.1, &batch)?;
    batch.commit()?;
    Ok(())
}
