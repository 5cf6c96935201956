//! Handmade images as what others start from.

use std::collections::BTreeSet;

use kiln_model::{ImageRecord, LockedImage, RunSettings, Volatile};
use kiln_store::{Store, StoreError};

use super::commit::epoch_of;
use crate::BakeError;
use crate::debian::Root;
use crate::export::Stored;
use crate::order::BakeOrder;
use crate::settings::Settings;
use crate::users::{LoneGroup, Users};

/// A handmade image, or one baked over it, that another starts from.
pub(crate) struct Foundation {
    /// What is recorded of it.
    pub(crate) record: ImageRecord,
    /// What of it an instance held.
    by_hand: BTreeSet<Vec<u8>>,
}

/// The tree of the image that is pinned, how it is run, and what else is to be known of it.
pub(crate) fn root(
    order: &BakeOrder,
    locked: &LockedImage,
    store: &Store,
) -> Result<(Root, Settings, Foundation), BakeError> {
    let gone = || BakeError::HandmadeGone { image: order.image.clone(), from: order.from.to_string() };
    let digest = locked.handmade.ok_or_else(gone)?;
    let Stored { record, tree, .. } = Stored::open(store, &digest).map_err(|e| match e {
        crate::export::ExportError::Store(StoreError::NoSuchImage(_)) => gone(),
        source => BakeError::HandmadeUnreadable { image: order.image.clone(), source },
    })?;
    let run = record.run.clone();
    let user = user(&run, &Users::of(&tree, store)?);
    let settings = Settings {
        argv: run.argv,
        env: run.env,
        user: Some(user),
        lone_group: LoneGroup::Own,
        workdir: Some(run.workdir),
        stop_signal: Some(run.stop_signal),
    };
    let kept = record.handmade.iter().flat_map(|handmade| &handmade.kept);
    let below = |path: &String| tree.below(path.as_bytes()).map(|(p, _)| p.to_vec()).collect::<Vec<_>>();
    let by_hand = kept.flat_map(below).collect();
    Ok((Root { epoch: epoch_of(&tree), tree }, settings, Foundation { record, by_hand }))
}

/// Whom the image is run as, in words that mean just that: a name alone means its own group and all further ones.
fn user(run: &RunSettings, users: &Users) -> String {
    let alone = users.user(Some(&run.user), LoneGroup::Own);
    match alone.is_ok_and(|user| (user.gid, &user.groups) == (run.gid, &run.groups)) {
        true => run.user.clone(),
        false => format!("{}:{}", run.user, run.gid),
    }
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
    Foundation { record: base, by_hand }: &Foundation,
    volatile: &[Volatile],
) -> Result<(), BakeError> {
    // What is volatile in it itself hides nothing that it shows.
    let is_new = |v: &&Volatile| !base.volatile.iter().any(|old| old.path == v.path);
    let hides = |v: &&Volatile| {
        let top = v.path.as_bytes();
        let mut from_here = by_hand.range(top.to_vec()..).take_while(|path| path.starts_with(top));
        from_here.any(|path| path.get(top.len()).is_some_and(|next| *next == b'/'))
    };
    let Some(volatile) = volatile.iter().filter(is_new).find(hides) else { return Ok(()) };
    let problem = format!(
        "`{}` has what an instance held there, and as a volatile path it would be empty in every instance: \
         take it out of `volatile`",
        order.from
    );
    Err(BakeError::Place { image: order.image.clone(), path: volatile.path.clone(), problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_stays_who_it_is() {
        // Of an OCI image, whose words for it a name is not always enough for.
        let users = Users::of_text("bob:x:1000:1000::/:/bin/sh\n", "adm:x:4:bob\nbob:x:1000:\n");
        for wanted in ["bob", "bob:0", "bob:bob", "1000:4", "2000", "2000:7", "root"] {
            let whom = users.user(Some(wanted), LoneGroup::Root).unwrap();
            let run = RunSettings {
                user: whom.name.clone(),
                uid: whom.uid,
                gid: whom.gid,
                groups: whom.groups.clone(),
                workdir: "/".into(),
                stop_signal: 15,
                argv: Vec::new(),
                env: Default::default(),
                stop_grace: kiln_model::Millis(0),
            };
            assert_eq!(users.user(Some(&user(&run, &users)), LoneGroup::Own), Ok(whom), "{wanted}");
        }
    }
}
