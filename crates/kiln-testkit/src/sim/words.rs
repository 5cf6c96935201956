//! The simulated host's history in words a person reads.

use kiln_control::{Core, News};
use kiln_model::{AppName, AppState, Audience, Ending, FleetPhase, InstanceId, Record};

use super::{FakeEdge, Sim};

/// The history in words. That a step has begun is only worth a line if it is not done at once.
pub(super) fn records(records: &[Record]) -> Vec<String> {
    let done_at_once = |i: usize| {
        matches!(records[i], Record::Intent { .. })
            && matches!(records.get(i + 1), Some(Record::Outcome { .. }))
    };
    let told = records.iter().enumerate().filter(|(i, _)| !done_at_once(*i));
    told.map(|(_, r)| record(r)).collect()
}

/// One entry in words.
pub(crate) fn record(record: &Record) -> String {
    match record {
        Record::Begun { by, plan, .. } => {
            let steps: Vec<String> = plan.steps.iter().map(|s| format!("\n      - {}", s.action)).collect();
            format!("plan {}: {} for {by}{}", plan.generation, plan.kind, steps.concat())
        }
        Record::Intent { generation, step, .. } => format!("plan {generation}: step {} begins", step + 1),
        Record::Outcome { generation, step, note, .. } => {
            let note = note.as_ref().map_or_else(String::new, |n| format!(" ({n})"));
            format!("plan {generation}: step {} is done{note}", step + 1)
        }
        Record::Ended { generation, ending, .. } => match ending {
            Ending::Done => format!("plan {generation}: done"),
            Ending::Superseded { by } => format!("plan {generation}: superseded by plan {by}"),
            Ending::Failed { step, cause } => format!("plan {generation}: failed at `{step}`: {cause}"),
        },
        Record::Committed { instance, name, .. } => format!("{instance} is committed as {name}"),
        Record::Collected { releases, .. } => format!("{} releases are collected", releases.len()),
        Record::Pinned { release, .. } => format!("release {release} is pinned"),
        Record::Unpinned { release, .. } => format!("release {release} is unpinned"),
        Record::SchemaSet { schema, .. } => format!("the data is of schema {schema}"),
        Record::Imported { release, .. } => format!("release {release} is imported"),
        Record::Paused { by, wait, .. } => format!("{} pauses it: requests wait, {wait} at most", by.name),
        Record::Resumed { by, .. } => format!("{} resumes it", by.name),
        Record::Repaired { by, .. } => format!("{} repairs the log", by.name),
        Record::SecretSet { name, .. } => format!("secret {name} is set"),
        Record::SecretRemoved { name, .. } => format!("secret {name} is removed"),
        Record::Replaced { fleet, lost, new, .. } => {
            let lost: Vec<&str> = lost.iter().map(|l| l.cause.as_str()).collect();
            format!("{fleet}: lost ({}), made {new:?}", lost.join("; "))
        }
        Record::Touched { fleet, serial, by, command, .. } => {
            format!("{fleet}: {by} runs `{command}` in {serial}")
        }
        Record::Reinforced { fleet, touched, new, .. } => {
            format!("{fleet}: made {new:?} to stand in for {touched:?}")
        }
        Record::Renumbered { fleet, gone, new, .. } => {
            format!("{fleet}: {gone:?} are not known to the engine, made {new:?}")
        }
    }
}

pub(super) fn news(news: &News) -> Option<String> {
    match news {
        News::Begun(_) | News::Event(_) => None,
        News::Follows(generation) => {
            Some(format!("ann is told: it is plan {generation}, which is under way"))
        }
        News::Superseded { by, .. } => Some(format!("ann is told: superseded by plan {by}")),
        News::Serves { unchanged: false, warnings, .. } if !warnings.is_empty() => {
            Some(format!("ann is told: it serves, but {}", warnings.join("; ")))
        }
        News::Serves { unchanged: false, .. } => Some("ann is told: it serves".into()),
        News::Serves { unchanged: true, .. } => Some("ann is told: it serves already".into()),
        News::Ended => Some("ann is told: done".into()),
        News::Failed { cause, .. } => Some(format!("ann is told: failed, {cause}")),
        News::Refused(refusal) => Some(format!("ann is told: refused, {refusal}")),
    }
}

/// A line for each app: who serves, which fleets there are, and where the edge sends requests.
pub(super) fn states(core: &Core, edge: &FakeEdge) -> Vec<String> {
    let hello = Sim::app();
    let others = core.apps().iter().filter(|(app, _)| **app != hello);
    let others = others.map(|(app, state)| format!("= {app}: {}", self::state(core, edge, app, state)));
    let first = core.apps().get(&hello).map_or("nothing".into(), |s| state(core, edge, &hello, s));
    std::iter::once(format!("= {first}")).chain(others).collect()
}

fn state(core: &Core, edge: &FakeEdge, app: &AppName, state: &AppState) -> String {
    let name = |id: &kiln_model::ReleaseId| match core.release(id) {
        Some(release) => release.services.values().next().map_or("?", |s| &s.run.argv[0][5..]).to_owned(),
        None => "?".into(),
    };
    let fleets = state.fleets.values().map(|f| {
        let phase = match &f.phase {
            FleetPhase::Planned => "planned",
            FleetPhase::Green => "green",
            FleetPhase::Canary => "canary",
            FleetPhase::Live => "live",
            FleetPhase::Draining => "draining",
            FleetPhase::Warm { .. } => "warm",
            FleetPhase::Retiring => "retiring",
        };
        format!("{}@{} {phase} {:?}", name(&f.release), f.id.generation, f.members)
    });
    let table = edge.table();
    let receivers =
        |id: &kiln_model::FleetId| table.fleets.iter().find(|f| f.id == *id).map_or(0, |f| f.instances.len());
    let to = |r: &kiln_model::EdgeRoute| {
        let share = match r.audience {
            Audience::Everybody => String::new(),
            Audience::At(n) => format!("{} to ", table.canaries[n].share),
            Audience::NotAt(_) => "the rest to ".to_owned(),
        };
        let ours = r.targets.iter().filter(|t| t.fleet.app == *app);
        ours.map(|t| format!("{share}@{} × {}", t.fleet.generation, receivers(&t.fleet))).collect::<Vec<_>>()
    };
    let targets = table.routes.iter().flat_map(to);
    let is_ours = |r: &&kiln_model::EdgeRoute| r.targets.iter().any(|t| t.fleet.app == *app);
    let held = table.routes.iter().filter(is_ours).any(|r| r.hold.is_some());
    let held = if held { " (requests wait)" } else { "" };
    let live = state.traffic.live().map_or_else(|| "nobody".into(), name);
    let (fleets, targets): (Vec<_>, Vec<_>) = (fleets.collect(), targets.collect());
    let of_app = |id: &&InstanceId| id.as_str().starts_with(&format!("{app}-"));
    let parting: Vec<String> = core.parting().iter().filter(of_app).map(ToString::to_string).collect();
    let parting =
        if parting.is_empty() { String::new() } else { format!("; leaving: {}", parting.join(", ")) };
    format!("{live} serves; fleets: {}; edge: {}{held}{parting}", fleets.join(", "), targets.join(", "))
}
