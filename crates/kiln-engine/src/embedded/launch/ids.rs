//! Who instances are on the host.
//!
//! ```text
//!   0x1000_0000 ..= 0x4fff_ffff   users and groups of images, 65536 for each app
//!   0x7000_0000 ..= 0x700f_ffff   accounting users, one for each instance
//! ```
//! Nobody else's: distributions give out ids below 0x0010_0000, and containers of other makers stay below those of
//! systemd-nspawn (0x0008_0000 to 0x6fff_ffff), which picks unused ones.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kiln_model::{AppName, INSTANCE_IDS, Sha256};
use kiln_mount::IdRange;
use serde::{Deserialize, Serialize};

/// The users of the images of one app: user n inside is user `base` + n on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct AppIds {
    base: u32,
}

impl AppIds {
    /// How many ids an image can use.
    pub(crate) const COUNT: u32 = INSTANCE_IDS;
    const FIRST: u32 = 0x1000_0000;
    const RANGES: u32 = 0x4000;

    fn slot(number: u32) -> Self {
        Self { base: Self::FIRST + (number % Self::RANGES) * Self::COUNT }
    }

    /// The id on the host of `inside`.
    pub(super) fn outside(self, inside: u32) -> u32 {
        self.base + inside % Self::COUNT
    }

    /// As the kernel's id maps have it.
    pub(super) fn range(self) -> IdRange {
        IdRange { inside: 0, outside: self.base, count: Self::COUNT }
    }

    /// As a line of `uid_map`.
    pub(super) fn line(self) -> String {
        format!("0 {} {}\n", self.base, Self::COUNT)
    }
}

/// Which app has which ids. The same app gets the same ones again, unless another took them meanwhile.
#[derive(Debug, Default)]
pub(crate) struct IdBook {
    taken: HashMap<AppIds, AppName>,
    /// Where this keeper's accounting users begin: another keeper of the machine begins elsewhere.
    first: u32,
    instances: u32,
}

/// How many accounting users there are, and the first of them.
const ACCOUNTS: u32 = 0x10_0000;
const FIRST_ACCOUNT: u32 = 0x7000_0000;

impl IdBook {
    /// That of the keeper in a directory.
    pub(crate) fn of_keeper(run_dir: &Path) -> Self {
        let [a, b, c, d, ..] = Sha256::of(run_dir.as_os_str().as_bytes()).0;
        Self { first: u32::from_le_bytes([a, b, c, d]) % ACCOUNTS, ..Self::default() }
    }

    /// The ids of an app; none when 16384 apps have some.
    pub(crate) fn of_app(&mut self, app: &AppName) -> Option<AppIds> {
        let [a, b, c, d, ..] = Sha256::of(app.as_str().as_bytes()).0;
        let start = u32::from_le_bytes([a, b, c, d]) % AppIds::RANGES;
        let slots = (start..start + AppIds::RANGES).map(AppIds::slot);
        let ids = slots.into_iter().find(|ids| self.taken.get(ids).is_none_or(|other| other == app))?;
        self.taken.entry(ids).or_insert_with(|| app.clone());
        Some(ids)
    }

    /// A user nothing runs as, to charge one instance's namespaces to. Comes round again after a million.
    pub(crate) fn accounting_uid(&mut self) -> u32 {
        self.instances = (self.instances + 1) % ACCOUNTS;
        FIRST_ACCOUNT + (self.first + self.instances) % ACCOUNTS
    }

    /// An instance of a keeper before this one has these ids.
    pub(crate) fn restore(&mut self, app: &AppName, ids: AppIds, accounting_uid: u32) {
        self.taken.insert(ids, app.clone());
        let place = accounting_uid.saturating_sub(FIRST_ACCOUNT) % ACCOUNTS;
        self.instances = self.instances.max((place + ACCOUNTS - self.first) % ACCOUNTS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(name: &str) -> AppName {
        name.parse().unwrap()
    }

    #[test]
    fn distinct_apps_have_distinct_ids_and_keep_them() {
        let mut book = IdBook::default();
        let names: Vec<AppName> = (0..2000).map(|n| app(&format!("app-{n}"))).collect();
        let first: Vec<AppIds> = names.iter().map(|n| book.of_app(n).unwrap()).collect();
        let mut distinct: Vec<u32> = first.iter().map(|ids| ids.base).collect();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), names.len());
        assert!(names.iter().zip(&first).all(|(n, ids)| book.of_app(n) == Some(*ids)));
    }

    #[test]
    fn what_is_restored_is_not_given_out_again() {
        let (mut before, mut after) = (IdBook::default(), IdBook::default());
        let (ids, accounting) = (before.of_app(&app("first")).unwrap(), before.accounting_uid());
        after.restore(&app("second"), ids, accounting);
        assert_ne!(after.of_app(&app("first")), Some(ids), "another app has them");
        assert!(after.of_app(&app("second")).is_some());
        assert_ne!(after.accounting_uid(), accounting);
    }

    #[test]
    fn instances_of_two_keepers_are_charged_to_different_users() {
        let accounts = |dir: &str| {
            let mut book = IdBook::of_keeper(Path::new(dir));
            (0..1000).map(|_| book.accounting_uid()).collect::<Vec<_>>()
        };
        let (one, two) = (accounts("/var/lib/kiln/run"), accounts("/srv/kiln/run"));
        assert!(one.iter().all(|uid| (0x7000_0000..0x7010_0000).contains(uid) && !two.contains(uid)));
        // The next keeper there goes on behind those that live, also around the end.
        let mut last = IdBook { first: ACCOUNTS - 2, ..IdBook::default() };
        let given: Vec<u32> = (0..4).map(|_| last.accounting_uid()).collect();
        assert_eq!(given, [0x700f_ffff, 0x7000_0000, 0x7000_0001, 0x7000_0002]);
        let mut next = IdBook { first: ACCOUNTS - 2, ..IdBook::default() };
        let ids = next.of_app(&app("hello")).unwrap();
        given.iter().for_each(|uid| next.restore(&app("hello"), ids, *uid));
        assert_eq!(next.accounting_uid(), 0x7000_0003);
    }

    #[test]
    fn an_app_has_the_same_ids_on_any_host() {
        let ids = [(); 2].map(|()| IdBook::default().of_app(&app("hello")).unwrap());
        assert_eq!(ids[0], ids[1]);
    }

    #[test]
    fn the_last_id_of_the_last_range_is_below_the_accounting_users() {
        let last = AppIds::slot(AppIds::RANGES - 1);
        assert_eq!(last.outside(AppIds::COUNT - 1), 0x4fff_ffff);
        assert_eq!(IdBook::default().accounting_uid(), 0x7000_0001);
    }
}
