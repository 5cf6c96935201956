//! What instances wrote, also those long gone.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
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
        let mut tell = |written| {
            asker.tell(event(written));
            if asker.is_gone() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        match wanted.tail {
            Some(most) => self.read_last(wanted, &mut reading, most as usize, &mut tell)?,
            None => self.read_on(wanted, &mut reading, &mut tell)?,
        }
        // From now on, all that is new.
        while wanted.follow && !asker.is_gone() && !self.is_stopping() {
            self.driver.pause_for(ROUND);
            self.read_on(wanted, &mut reading, &mut tell)?;
        }
        Ok(Answer::Done)
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
        let one = vec![(instance.clone(), paths.clone())];
        // What cannot be read any more is not told.
        let last = OutputFiles::default().last(one, count as usize, false).unwrap_or_default();
        last.into_iter().map(|(_, line)| Line::from(line).text).collect()
    }

    /// Tells the last lines, in the order in which they were written.
    fn read_last(
        &self,
        wanted: &Wanted,
        reading: &mut Reading,
        most: usize,
        tell: &mut dyn FnMut(Written) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let of_interest = self.of_interest(wanted, reading)?;
        let last = reading.files.last(of_interest, most, wanted.follow).map_err(|e| self.unread(&e))?;
        let mut written =
            last.into_iter().map(|(instance, line)| Written::of(&instance, &reading.origins, line));
        let _ = written.try_for_each(tell);
        Ok(())
    }

    /// Tells what has been written since the last call, in the order in which it was, until whoever is told has enough.
    fn read_on(
        &self,
        wanted: &Wanted,
        reading: &mut Reading,
        tell: &mut dyn FnMut(Written) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let of_interest = self.of_interest(wanted, reading)?;
        let Reading { files, origins } = reading;
        let sources = files.begin(of_interest, wanted.follow).map_err(|e| self.unread(&e))?;
        let mut with_origin =
            |instance: &InstanceId, line: WholeLine| tell(Written::of(instance, origins, line));
        merge(sources, &mut with_origin).map_err(|e| self.unread(&e))
    }

    fn unread(&self, error: &std::io::Error) -> Failure {
        super::failure::system(&format!("read the output in {}", self.store.output_dir().display()), error)
    }

    /// The files of those whose output is wanted.
    fn of_interest(
        &self,
        wanted: &Wanted,
        reading: &mut Reading,
    ) -> Result<Vec<(InstanceId, Vec<PathBuf>)>, Failure> {
        let mut lineage = None;
        let mut of_interest = Vec::new();
        for (instance, paths) in files(&self.store.output_dir()).map_err(|e| self.unread(&e))? {
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
        Ok(of_interest)
    }
}

impl Written {
    fn of(instance: &InstanceId, origins: &BTreeMap<InstanceId, Option<Origin>>, line: WholeLine) -> Self {
        Self { instance: instance.clone(), origin: origins[instance].clone(), line: line.into() }
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
