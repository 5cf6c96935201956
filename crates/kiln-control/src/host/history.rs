//! The operation log as people read it.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::{
    Action, AppName, Author, Ending, FleetId, Generation, HookMoment, InstanceId, LogEntry, Loss, Record,
    ReleaseId, ServiceName, Timestamp,
};

use super::successors::{Succession, Successors};

/// A fold over the log. Of operations that are over, nothing is held but what is told of them: a host that has lived for
/// years has hundreds of thousands of entries.
#[derive(Debug, Default)]
pub(crate) struct Story {
    entries: BTreeMap<Generation, LogEntry>,
    notes: Vec<LogEntry>,
    losses: Vec<(Timestamp, FleetId, Loss)>,
    lineage: Lineage,
    successors: Successors,
    switches: Switches,
}

impl Story {
    /// Operations and replacements, oldest first; these instances are `there` now.
    pub(crate) fn told(self, there: BTreeSet<InstanceId>) -> Vec<LogEntry> {
        let Self { entries, notes, losses, lineage, successors, .. } = self;
        let replaced = losses.iter().map(|(at, fleet, loss)| {
            let succession = successors.place(fleet, loss.serial, &there);
            replacement(&lineage, succession, *at, fleet, loss)
        });
        let mut all: Vec<LogEntry> = entries.into_values().chain(notes).chain(replaced).collect();
        all.sort_by_key(|entry| entry.at);
        all
    }

    /// Takes account of the next entry.
    pub(crate) fn learn(&mut self, record: &Record) {
        self.lineage.learn(record);
        self.successors.learn(record);
        self.switches.learn(record);
        match record {
            Record::Begun { at, by, plan } => {
                let entry = LogEntry {
                    operation: plan.generation.0,
                    at: *at,
                    ended: None,
                    by: by.name.clone(),
                    origin: by.origin.clone(),
                    app: plan.app.clone(),
                    what: plan.kind.to_string(),
                    from: plan.from.clone(),
                    to: plan.to.clone(),
                    outcome: "under way".into(),
                    reason: None,
                };
                self.entries.insert(plan.generation, entry);
            }
            Record::Outcome { generation, note: Some(note), .. } => {
                if let Some(entry) = self.entries.get_mut(generation) {
                    // Each step may have something to tell.
                    let before = entry.reason.take().map_or_else(String::new, |before| format!("{before}; "));
                    entry.reason = Some(before + note);
                }
            }
            Record::Ended { at, generation, ending, .. } => {
                if let Some(entry) = self.entries.get_mut(generation) {
                    entry.ended = Some(*at);
                    (entry.outcome, entry.reason) =
                        outcome(ending, self.switches.has_served(*generation), entry.reason.take());
                }
            }
            Record::Replaced { at, fleet, lost, .. } => {
                self.losses.extend(lost.iter().map(|loss| (*at, fleet.clone(), loss.clone())));
            }
            Record::Touched { at, fleet, serial, by, command } => {
                self.notes.push(touch(&self.lineage, *at, &fleet.instance(*serial), fleet, by, command));
            }
            Record::Intent { .. }
            | Record::Outcome { .. }
            | Record::Reinforced { .. }
            | Record::Renumbered { .. } => {}
            // What is no operation has a line of its own, in its place among those.
            Record::Collected { at, by, app, releases } => {
                let names: Vec<&str> = releases.iter().map(ReleaseId::short).collect();
                let entry = note(*at, by, app, "collect".into(), Some(&names.join(" ")));
                self.notes.push(entry);
            }
            Record::Committed { at, by, app, instance, name, image } => {
                let what = format!("commit {name}");
                let told = format!("image {} of {instance}", image.short());
                self.notes.push(note(*at, by, app, what, Some(&told)));
            }
            Record::Pinned { at, by, app, release } | Record::Unpinned { at, by, app, release } => {
                let what = if matches!(record, Record::Pinned { .. }) { "pin" } else { "unpin" };
                let mut entry = note(*at, by, app, what.into(), None::<&String>);
                entry.to = Some(release.clone());
                self.notes.push(entry);
            }
            Record::SchemaSet { at, by, app, schema } => {
                let what = format!("schema {schema}");
                self.notes.push(note(*at, by, app, what, Some(&"the data was brought to it by hand")));
            }
            Record::Imported { at, by, app, release } => {
                let mut entry = note(*at, by, app, "import".into(), None::<&String>);
                entry.to = Some(release.clone());
                self.notes.push(entry);
            }
            Record::Paused { at, by, app, wait } => {
                let wait = format!("requests wait at the edge, {wait} at most");
                self.notes.push(note(*at, by, app, "pause".into(), Some(&wait)));
            }
            Record::Resumed { at, by, app } => {
                self.notes.push(note(*at, by, app, "resume".into(), None::<&String>));
            }
            Record::Repaired { at, by, app, kept_as, damage } => {
                let told = format!("{}; as it was it is kept in {kept_as}", damage.join("; "));
                self.notes.push(note(*at, by, app, "repair the log".into(), Some(&told)));
            }
            Record::SecretSet { at, by, app, name, version } => {
                let what = format!("set secret {name}");
                self.notes.push(note(*at, by, app, what, version.as_ref()));
            }
            Record::SecretRemoved { at, by, app, name, version } => {
                let what = format!("remove secret {name}");
                self.notes.push(note(*at, by, app, what, version.as_ref()));
            }
        }
    }
}

fn note(at: Timestamp, by: &Author, app: &AppName, what: String, reason: Option<&impl ToString>) -> LogEntry {
    LogEntry {
        operation: 0,
        at,
        ended: Some(at),
        by: by.name.clone(),
        origin: by.origin.clone(),
        app: app.clone(),
        what,
        from: None,
        to: None,
        outcome: "done".into(),
        reason: reason.map(ToString::to_string),
    }
}

/// An entry for an instance that is no more, under the number of the operation that made its fleet.
fn replacement(
    lineage: &Lineage,
    succession: Succession,
    at: Timestamp,
    fleet: &FleetId,
    loss: &Loss,
) -> LogEntry {
    let id = fleet.instance(loss.serial);
    let release = lineage.origin(&id).map(|o| o.release);
    let (outcome, place) = match succession {
        Succession::Vacant => ("done", String::new()),
        Succession::Taken(by) => ("done", format!("; {by} took its place")),
        Succession::Promised(to) => ("under way", format!("; {to} is to take its place")),
        Succession::GivenUp(to) => {
            ("given up", format!("; {to} was to take its place when the release was given up"))
        }
        Succession::Gone(to) => ("done", format!("; {to} was to take its place")),
    };
    LogEntry {
        operation: fleet.generation.0,
        at,
        ended: (outcome != "under way").then_some(at),
        by: "kiln".into(),
        origin: None,
        app: fleet.app.clone(),
        what: "replace".into(),
        from: release.clone(),
        to: release,
        outcome: outcome.into(),
        reason: Some(format!("{id}: {}{place}", loss.cause)),
    }
}

fn touch(
    lineage: &Lineage,
    at: Timestamp,
    id: &InstanceId,
    fleet: &FleetId,
    by: &Author,
    command: &str,
) -> LogEntry {
    let release = lineage.origin(id).map(|o| o.release);
    LogEntry {
        operation: fleet.generation.0,
        at,
        ended: None,
        by: by.name.clone(),
        origin: by.origin.clone(),
        app: fleet.app.clone(),
        what: "exec".into(),
        from: release.clone(),
        to: release,
        outcome: "done".into(),
        reason: Some(format!("{id} is touched by hand: {command}")),
    }
}

/// The instances that were replaced then: when, which, and why.
pub(crate) fn losses(record: &Record) -> Vec<(Timestamp, InstanceId, String)> {
    match record {
        Record::Replaced { at, fleet, lost, .. } => {
            lost.iter().map(|l| (*at, fleet.instance(l.serial), l.cause.clone())).collect()
        }
        _ => Vec::new(),
    }
}

/// Which operations came as far as their switch, if they had one.
#[derive(Debug, Default)]
struct Switches(BTreeMap<Generation, Option<usize>>);

impl Switches {
    fn learn(&mut self, record: &Record) {
        match record {
            Record::Begun { plan, .. } => {
                let is_switch = |step: &kiln_model::Step| matches!(step.action, Action::Switch { .. });
                self.0.insert(plan.generation, plan.steps.iter().position(is_switch));
            }
            Record::Outcome { generation, step, .. } if self.0.get(generation) == Some(&Some(*step)) => {
                self.0.insert(*generation, None);
            }
            _ => {}
        }
    }

    fn has_served(&self, generation: Generation) -> bool {
        !matches!(self.0.get(&generation), Some(Some(_)))
    }
}

fn outcome(ending: &Ending, has_served: bool, note: Option<String>) -> (String, Option<String>) {
    match ending {
        Ending::Done => ("done".into(), note),
        Ending::Superseded { by } if !has_served => {
            ("superseded".into(), Some(format!("operation {by} took its place before it served")))
        }
        Ending::Superseded { by } => {
            let before = note.map_or_else(String::new, |note| format!("{note}; "));
            ("done".into(), Some(format!("{before}the drain went on in operation {by}")))
        }
        Ending::Failed { step, cause } => ("failed".into(), Some(format!("{step}: {cause}"))),
    }
}

/// Which fleet every instance that ever was belonged to, by the plan that made it.
#[derive(Debug, Default)]
pub(crate) struct Lineage(BTreeMap<Generation, (AppName, Vec<(ServiceName, ReleaseId)>)>);

/// Whose an instance was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) app: AppName,
    pub(crate) service: ServiceName,
    pub(crate) release: ReleaseId,
}

impl Lineage {
    /// Takes account of the next entry.
    pub(crate) fn learn(&mut self, record: &Record) {
        let Record::Begun { plan, .. } = record else { return };
        for step in &plan.steps {
            let (fleet, release) = match &step.action {
                Action::Provision { fleet, release, .. } => (fleet.clone(), release),
                Action::RunHook { hook, release, .. } => (hook.fleet(), release),
                _ => continue,
            };
            let (_, fleets) = self.0.entry(fleet.generation).or_insert_with(|| (fleet.app, Vec::new()));
            fleets.push((fleet.service, release.clone()));
        }
    }

    /// All services there ever were, or those of one app.
    pub(crate) fn services(&self, of: Option<&AppName>) -> BTreeSet<ServiceName> {
        let fleets = self.0.values().filter(|(app, _)| of.is_none_or(|of| of == app));
        fleets.flat_map(|(_, fleets)| fleets.iter().map(|(service, _)| service.clone())).collect()
    }

    /// Whose `id` was, if it belonged to a fleet. Names may contain dashes, so the id alone does not tell.
    pub(crate) fn origin(&self, id: &InstanceId) -> Option<Origin> {
        let (rest, serial) = id.as_str().rsplit_once('-')?;
        let (_, generation) = rest.rsplit_once('-')?;
        let (place, generation) = (Place::of(serial)?, Generation(generation.parse().ok()?));
        let (app, fleets) = self.0.get(&generation)?;
        let (service, release) = fleets.iter().find(|(service, _)| {
            place.in_fleet(&FleetId { app: app.clone(), service: service.clone(), generation }) == *id
        })?;
        Some(Origin { app: app.clone(), service: service.clone(), release: release.clone() })
    }
}

/// What the last part of an instance's id says: a member of its fleet, or where a hook of its service ran.
enum Place {
    Member(u32),
    Hook(HookMoment, u32),
}

impl Place {
    fn of(last: &str) -> Option<Self> {
        let hook = |moment: HookMoment| {
            let number = last.strip_prefix(&moment.to_string())?;
            Some(Self::Hook(moment, number.parse().ok()?))
        };
        let member = last.parse().ok().map(Self::Member);
        member.or_else(|| hook(HookMoment::Before)).or_else(|| hook(HookMoment::After))
    }

    fn in_fleet(&self, fleet: &FleetId) -> InstanceId {
        match self {
            Self::Member(serial) => fleet.instance(*serial),
            Self::Hook(moment, number) => fleet.hook(*moment, *number),
        }
    }
}
