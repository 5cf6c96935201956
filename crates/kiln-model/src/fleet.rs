//! The instances of one release of one service, as the operation log has them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{FleetId, InstanceId, Loss, Millis, ReleaseId, Timestamp};

/// What a fleet is for at present. Only `Live` and `Canary` receive new requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum FleetPhase {
    /// Its turn to be brought up has not come.
    Planned,
    /// It is being brought up.
    Green,
    /// It serves some of the users, and is held against the one that serves the others.
    Canary,
    /// It serves.
    Live,
    /// It gets no new requests; those it has go on. So does a fleet while traffic is being switched to it: should the
    /// switch be given up, nobody knows whether it has had requests.
    Draining,
    /// It is up and idle until then.
    Warm {
        /// When it is removed.
        until: Timestamp,
    },
    /// It is being ended.
    Retiring,
}

impl FleetPhase {
    /// Whether members that are lost are made again. A draining fleet is, too: going back to it must be possible.
    pub fn is_kept_whole(&self) -> bool {
        !matches!(self, Self::Planned | Self::Retiring)
    }

    /// Whether the edge may hold connections to it.
    pub fn is_in_table(&self) -> bool {
        matches!(self, Self::Canary | Self::Live | Self::Draining)
    }
}

/// One fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// Which.
    pub id: FleetId,
    /// The release its members belong to.
    pub release: ReleaseId,
    /// What it is for at present.
    pub phase: FleetPhase,
    /// Serial numbers of the instances that should exist.
    pub members: BTreeSet<u32>,
    /// The highest serial number ever given.
    pub last_serial: u32,
    /// How many members were lost since it was provisioned.
    pub losses: u32,
    /// Why the last of them was.
    pub last_loss: Option<String>,
    /// Members somebody has laid hands on, by serial number.
    pub touched: BTreeMap<u32, Touch>,
    /// Those that have a stand-in among the members: of the touched ones, and one that is unwell as all are.
    pub reinforced: BTreeSet<u32>,
    /// The stand-in of the one that is unwell as all are.
    pub stand_in: Option<StandIn>,
    /// What came of the last ones of that kind, if they were no better off.
    pub futile: Option<Futile>,
    /// Serial numbers of those observed healthy when traffic was switched to it.
    pub proven: BTreeSet<u32>,
}

/// A member made because no member is well: if it is, the one it was made for goes; if not, it goes itself, for what
/// fails everywhere is no reason to end anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandIn {
    /// Its serial number.
    pub serial: u32,
    /// That of the one it was made for.
    pub member: u32,
}

/// Stand-ins that were no better off than those they were made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Futile {
    /// How many there were, one after another.
    pub count: u32,
    /// When the last one went.
    pub at: Timestamp,
    /// Why it did.
    pub cause: String,
}

impl Futile {
    /// After so long another one is the first again.
    const FORGOTTEN: Millis = Millis(3_600_000);

    fn once_more(before: Option<Self>, at: Timestamp, cause: String) -> Self {
        let before = before.filter(|futile| futile.at.after(Self::FORGOTTEN) > at);
        Self { count: before.map_or(0, |futile| futile.count).saturating_add(1), at, cause }
    }
}

/// Who has laid hands on an instance, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touch {
    /// Who.
    pub by: String,
    /// The command they ran.
    pub command: String,
}

impl fmt::Display for Touch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it was touched by hand: {} ran `{}` in it", self.by, self.command)
    }
}

impl Fleet {
    /// The ids of the instances that should exist, with their serial numbers.
    pub fn instances(&self) -> impl Iterator<Item = (u32, InstanceId)> {
        self.members.iter().map(|serial| (*serial, self.id.instance(*serial)))
    }

    /// How many instances there should be; stand-ins for members that are about to go do not count.
    pub fn size(&self) -> u32 {
        u32::try_from(self.members.len() - self.reinforced.len()).unwrap_or(u32::MAX)
    }

    /// The serial number of a member.
    pub fn serial_of(&self, id: &InstanceId) -> Option<u32> {
        self.instances().find(|(_, member)| member == id).map(|(serial, _)| serial)
    }

    /// Those of `gone` whose places are empty when they are gone, one after another: one with a stand-in leaves none, nor does
    /// a stand-in as long as the one it was made for is there.
    pub fn gaps(&self, gone: impl IntoIterator<Item = u32>) -> Vec<u32> {
        let mut rest = self.clone();
        let mut leaves_gap = |serial: &u32| {
            let before = rest.size();
            rest.give_up(*serial);
            rest.size() < before
        };
        gone.into_iter().filter(|serial| leaves_gap(serial)).collect()
    }

    pub(crate) fn planned(id: &FleetId, release: &ReleaseId, size: u32) -> Self {
        Self {
            id: id.clone(),
            release: release.clone(),
            phase: FleetPhase::Planned,
            members: (1..=size).collect(),
            last_serial: size,
            losses: 0,
            last_loss: None,
            touched: BTreeMap::new(),
            reinforced: BTreeSet::new(),
            stand_in: None,
            futile: None,
            proven: BTreeSet::new(),
        }
    }

    pub(crate) fn lose(&mut self, at: Timestamp, loss: &Loss) {
        let (serial, cause) = (loss.serial, format!("{}: {}", self.id.instance(loss.serial), loss.cause));
        let was_touched = self.touched.contains_key(&serial);
        match self.stand_in {
            // The fleet is what it was before.
            Some(stand_in) if stand_in.serial == serial => {
                self.futile = Some(Futile::once_more(self.futile.take(), at, cause));
            }
            // Nobody is at fault for what people do.
            _ if was_touched => {}
            _ => {
                self.losses += 1;
                self.last_loss = Some(cause);
            }
        }
        if self.stand_in.is_some_and(|stand_in| stand_in.member == serial) {
            self.futile = None;
        }
        self.give_up(serial);
    }

    pub(crate) fn give_up(&mut self, serial: u32) {
        self.members.remove(&serial);
        self.reinforced.remove(&serial);
        self.touched.remove(&serial);
        if let Some(over) = self.stand_in.take_if(|s| s.serial == serial || s.member == serial) {
            self.reinforced.remove(&over.member);
        }
    }

    pub(crate) fn reinforce(&mut self, members: &[u32], new: &[u32]) {
        self.reinforced.extend(members);
        self.gain(new);
        if let (&[member], &[serial]) = (members, new)
            && !self.touched.contains_key(&member)
        {
            self.stand_in = Some(StandIn { serial, member });
        }
    }

    pub(crate) fn gain(&mut self, new: &[u32]) {
        self.members.extend(new);
        self.last_serial = self.last_serial.max(new.iter().copied().max().unwrap_or(0));
    }
}
