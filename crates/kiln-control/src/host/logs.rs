//! What instances wrote, also those long gone.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::time::Duration;

use kiln_model::{
    Answer, AppName, Event, ExitCode, Failure, InstanceId, OutputStream, ReleaseId, ServiceName, Timestamp,
    WholeLine,
};

use super::LocalHost;
use super::history::Origin;
use super::output_files::{OutputFiles, files, merge};
use super::serve::Asker;
use crate::contract::EventSink;

/// Whose output is wanted.
pub(crate) struct Wanted {
    pub(crate) app: Option<AppName>,
    pub(crate) service: Option<ServiceName>,
    pub(crate) instance: Option<InstanceId>,
    pub(crate) follow: bool,
    pub(crate) tail: Option<u32>,
}

/// One line with whose it is.
struct Written {
    instance: InstanceId,
    origin: Option<Origin>,
    line: Line,
}

/// A line as it is told.
struct Line {
    at: Timestamp,
    stream: OutputStream,
    text: String,
}

impl From<WholeLine> for Line {
    fn from(line: WholeLine) -> Self {
        let text = String::from_utf8_lossy(&line.text).into_owned();
        Self { at: Timestamp(line.at.0 / 1_000_000), stream: line.stream, text }
    }
}

/// How often a log that is followed is looked at.
const ROUND: Duration = Duration::from_millis(100);

impl LocalHost {
    pub(crate) fn logs(&self, wanted: &Wanted, events: &dyn EventSink) -> Result<Answer, Failure> {
        let asker = Asker { events, clock: &self.clock };
        if let Some(app) = &wanted.app {
            self.app(Some(app.clone()))?;
        }
        self.is_known(wanted)?;
        let mut reading = Reading::default();
        let mut last = wanted.tail.map(|most| Last { most: most as usize, lines: VecDeque::new() });
        loop {
            self.read_on(wanted, &mut reading, &mut |written| {
                match &mut last {
                    Some(last) => last.push(written),
                    None => asker.tell(event(written)),
                }
                if asker.is_gone() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            // From now on, all that is new.
            for written in last.take().into_iter().flat_map(|last| last.lines) {
                asker.tell(event(written));
            }
            if !wanted.follow || asker.is_gone() || self.is_stopping() {
                return Ok(Answer::Done);
            }
            self.driver.pause_for(ROUND);
        }
    }

    /// Refuses to look for the output of what never was: nothing would ever come.
    fn is_known(&self, wanted: &Wanted) -> Result<(), Failure> {
        if wanted.service.is_none() && wanted.instance.is_none() {
            return Ok(());
        }
        let lineage = self.lineage()?;
        let unknown = |what: String, hint: String| Err(Failure::new(ExitCode::Usage, what).hint(hint));
        if let Some(service) = &wanted.service {
            let there = lineage.services(wanted.app.as_ref());
            if !there.contains(service) {
                let names: Vec<&str> = there.iter().map(|s| s.as_str()).collect();
                let known = match names.as_slice() {
                    [] => "nothing has been deployed".to_owned(),
                    names => format!("the services here are: {}", names.join(", ")),
                };
                return unknown(format!("there never was a service {service}"), known);
            }
        }
        let Some(instance) = &wanted.instance else { return Ok(()) };
        // Those of checks are of no service, and known by what they wrote.
        let wrote = files(&self.store.output_dir()).is_ok_and(|files| files.contains_key(instance));
        if wrote || lineage.origin(instance).is_some() {
            return Ok(());
        }
        unknown(
            format!("there never was an instance {instance}, or nothing of it is kept"),
            "`kiln instances --all` lists those that run and those that were replaced".into(),
        )
    }

    /// The last lines an instance wrote.
    pub(crate) fn tail(&self, instance: &InstanceId, count: u32) -> Vec<String> {
        let files = files(&self.store.output_dir()).unwrap_or_default();
        let Some(paths) = files.get(instance) else { return Vec::new() };
        let mut reading = OutputFiles::default();
        let mut last = Last { most: count as usize, lines: VecDeque::new() };
        let sources = reading.begin(vec![(instance.clone(), paths.clone())], false).unwrap_or_default();
        // What cannot be read any more is not told.
        let _ = merge(sources, &mut |_, line| {
            last.push(line);
            ControlFlow::Continue(())
        });
        last.lines.into_iter().map(|line| Line::from(line).text).collect()
    }

    /// Tells what has been written since the last call, in the order in which it was, until whoever is told has enough.
    fn read_on(
        &self,
        wanted: &Wanted,
        reading: &mut Reading,
        tell: &mut dyn FnMut(Written) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let dir = self.store.output_dir();
        let failed = |e: std::io::Error| {
            Failure::new(ExitCode::Host, format!("could not read the output in {}", dir.display()))
                .because(e.to_string())
        };
        let mut lineage = None;
        let mut of_interest = Vec::new();
        for (instance, paths) in files(&dir).map_err(failed)? {
            if wanted.instance.as_ref().is_some_and(|i| *i != instance) {
                continue;
            }
            if !reading.origins.contains_key(&instance) {
                let lineage = match &mut lineage {
                    Some(lineage) => lineage,
                    none => none.insert(self.lineage()?),
                };
                reading.origins.insert(instance.clone(), lineage.origin(&instance));
            }
            if wanted.is_about(reading.origins[&instance].as_ref()) {
                of_interest.push((instance, paths));
            }
        }
        let sources = reading.files.begin(of_interest, wanted.follow).map_err(failed)?;
        let origins = &reading.origins;
        let mut with_origin = |instance: &InstanceId, line: WholeLine| {
            tell(Written { instance: instance.clone(), origin: origins[instance].clone(), line: line.into() })
        };
        merge(sources, &mut with_origin).map_err(failed)
    }
}

/// The last lines there are: no more than asked for are ever held.
struct Last<T> {
    most: usize,
    lines: VecDeque<T>,
}

impl<T> Last<T> {
    fn push(&mut self, line: T) {
        self.lines.push_back(line);
        if self.lines.len() > self.most {
            self.lines.pop_front();
        }
    }
}

/// How far the output of each instance has been read, and whose they are.
#[derive(Default)]
struct Reading {
    files: OutputFiles,
    origins: BTreeMap<InstanceId, Option<Origin>>,
}

impl Wanted {
    /// Throwaway instances of checks belong to no app; they are shown when nothing narrower is asked for, or by id.
    fn is_about(&self, origin: Option<&Origin>) -> bool {
        let app = self.app.as_ref().is_none_or(|app| origin.is_some_and(|o| o.app == *app));
        let service = self.service.as_ref().is_none_or(|s| origin.is_some_and(|o| o.service == *s));
        app && service
    }
}

fn event(written: Written) -> Event {
    let (app, service, release): (Option<AppName>, Option<ServiceName>, Option<ReleaseId>) =
        match written.origin {
            Some(o) => (Some(o.app), Some(o.service), Some(o.release)),
            None => (None, None, None),
        };
    let Line { at, stream, text } = written.line;
    Event::Output { app, service, release, instance: written.instance, stream, written: at, line: text }
}
