//! Handmade images as what others start from.

use kiln_model::{ImageRecord, LockedImage, Tree, Volatile};
use kiln_store::{Store, StoreError};

use super::commit::epoch_of;
use crate::BakeError;
use crate::debian::Root;
use crate::export::Stored;
use crate::order::BakeOrder;
use crate::settings::Settings;

/// The tree of the image that is pinned, how it is run, and what is recorded of it.
pub(crate) fn root(
    order: &BakeOrder,
    locked: &LockedImage,
    store: &Store,
) -> Result<(Root, Settings, ImageRecord), BakeError> {
    let gone = || BakeError::HandmadeGone { image: order.image.clone(), from: order.from.to_string() };
    let digest = locked.handmade.ok_or_else(gone)?;
    let Stored { record, tree, .. } = Stored::open(store, &digest).map_err(|e| match e {
        crate::export::ExportError::Store(StoreError::NoSuchImage(_)) => gone(),
        source => BakeError::HandmadeUnreadable { image: order.image.clone(), source },
    })?;
    let run = record.run.clone();
    let settings = Settings {
        argv: run.argv,
        env: run.env,
        user: Some(run.user),
        workdir: Some(run.workdir),
        stop_signal: Some(run.stop_signal),
    };
    Ok((Root { epoch: epoch_of(&tree), tree }, settings, record))
}

/// The order with what is volatile in the image it starts from.
pub(crate) fn over(order: &BakeOrder, base: &ImageRecord) -> BakeOrder {
    let mut order = order.clone();
    let missing: Vec<Volatile> =
        base.volatile.iter().filter(|v| !order.volatile.iter().any(|o| o.path == v.path)).cloned().collect();
    order.volatile.extend(missing);
    order.volatile.sort();
    order
}

/// Whether what was kept by hand can be seen under `volatile`, each path of which is where links have led.
///
/// # Errors
/// If some of it would be hidden under an empty directory.
pub(crate) fn check_hides_nothing(
    order: &BakeOrder,
    base: &ImageRecord,
    tree: &Tree,
    volatile: &[Volatile],
) -> Result<(), BakeError> {
    let kept: Vec<&str> = base.handmade.iter().flat_map(|h| &h.kept).map(String::as_str).collect();
    let hides = |v: &&Volatile| {
        let path = v.path.as_str();
        let is_full = || tree.below(path.as_bytes()).next().is_some();
        kept.iter().any(|kept| is_in(kept, path) || (is_in(path, kept) && is_full()))
    };
    let Some(volatile) = volatile.iter().find(hides) else { return Ok(()) };
    let problem = format!(
        "`{}` has what an instance held there, and as a volatile path it would be empty in every instance: \
         take it out of `volatile`",
        order.from
    );
    Err(BakeError::Place { image: order.image.clone(), path: volatile.path.clone(), problem })
}

/// Whether a path is another one or below it.
fn is_in(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
