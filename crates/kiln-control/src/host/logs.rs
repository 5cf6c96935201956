//! What instances wrote, also those long gone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use kiln_model::{
    Answer, AppName, Event, ExitCode, Failure, InstanceId, OutputLine, OutputStream, ReleaseId, ServiceName,
    Timestamp,
};

use super::LocalHost;
use super::history::{Lineage, Origin};
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

impl From<OutputLine<'_>> for Line {
    fn from(line: OutputLine<'_>) -> Self {
        let text = String::from_utf8_lossy(line.text).into_owned();
        Self { at: Timestamp(line.at.0 / 1_000_000), stream: line.stream, text }
    }
}

/// How often a log that is followed is looked at.
const ROUND: Duration = Duration::from_millis(100);

/// The longest line that is read; instances are not trusted.
const MAX_LINE: u64 = 1 << 20;

impl LocalHost {
    pub(crate) fn logs(&self, wanted: &Wanted, events: &dyn EventSink) -> Result<Answer, Failure> {
        let asker = Asker { events, clock: &self.clock };
        if let Some(app) = &wanted.app {
            self.app(Some(app.clone()))?;
        }
        let mut reading = Reading::default();
        let mut lines = self.read_on(wanted, &mut reading)?;
        if let Some(tail) = wanted.tail {
            lines.drain(..lines.len().saturating_sub(tail as usize));
        }
        loop {
            for written in lines {
                asker.tell(event(written));
            }
            if !wanted.follow || asker.is_gone() || self.is_stopping() {
                return Ok(Answer::Done);
            }
            self.driver.pause_for(ROUND);
            lines = self.read_on(wanted, &mut reading)?;
        }
    }

    /// The last lines an instance wrote.
    pub(crate) fn tail(&self, instance: &InstanceId, count: u32) -> Vec<String> {
        let wanted = Wanted {
            app: None,
            service: None,
            instance: Some(instance.clone()),
            follow: false,
            tail: Some(count),
        };
        let lines = self.read_on(&wanted, &mut Reading::default()).unwrap_or_default();
        let skip = lines.len().saturating_sub(count as usize);
        lines.into_iter().skip(skip).map(|w| w.line.text).collect()
    }

    /// What has been written since the last call, in the order in which it was.
    fn read_on(&self, wanted: &Wanted, reading: &mut Reading) -> Result<Vec<Written>, Failure> {
        let dir = self.store.output_dir();
        let failed = |e: std::io::Error| {
            Failure::new(ExitCode::Host, format!("could not read the output in {}", dir.display()))
                .because(e.to_string())
        };
        let mut lineage = None;
        let mut lines = Vec::new();
        for (instance, path) in files(&dir).map_err(failed)? {
            if wanted.instance.as_ref().is_some_and(|i| *i != instance) {
                continue;
            }
            let origin = match reading.origins.get(&instance) {
                Some(origin) => origin.clone(),
                None => {
                    let lineage = match &mut lineage {
                        Some(lineage) => lineage,
                        none => none.insert(Lineage::of(&self.records()?)),
                    };
                    let origin = lineage.origin(&instance);
                    reading.origins.insert(instance.clone(), origin.clone());
                    origin
                }
            };
            if wanted.is_about(origin.as_ref()) {
                let new = reading.read(&path).map_err(failed)?;
                lines.extend(new.into_iter().map(|line| Written {
                    instance: instance.clone(),
                    origin: origin.clone(),
                    line,
                }));
            }
        }
        lines.sort_by_key(|w: &Written| w.line.at);
        Ok(lines)
    }
}

impl Wanted {
    /// Throwaway instances of checks belong to no app; they are shown when nothing narrower is asked for, or by id.
    fn is_about(&self, origin: Option<&Origin>) -> bool {
        let app = self.app.as_ref().is_none_or(|app| origin.is_some_and(|o| o.app == *app));
        let service = self.service.as_ref().is_none_or(|s| origin.is_some_and(|o| o.service == *s));
        app && service
    }
}

/// How far each file has been read.
#[derive(Default)]
struct Reading {
    offsets: BTreeMap<PathBuf, u64>,
    origins: BTreeMap<InstanceId, Option<Origin>>,
}

impl Reading {
    fn read(&mut self, path: &PathBuf) -> std::io::Result<Vec<Line>> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let offset = self.offsets.entry(path.clone()).or_default();
        if file.metadata()?.len() < *offset {
            // It was rotated: this is another file.
            *offset = 0;
        }
        file.seek(SeekFrom::Start(*offset))?;
        let mut reader = BufReader::new(file);
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
            // A line without its end is still being written.
            if read == 0 || (line.last() != Some(&b'\n') && read as u64 != MAX_LINE) {
                return Ok(lines);
            }
            *offset += read as u64;
            line.pop();
            lines.extend(OutputLine::parse(&line).map(Line::from));
        }
    }
}

/// The output files of all instances, older parts first.
fn files(dir: &std::path::Path) -> std::io::Result<Vec<(InstanceId, PathBuf)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let (stem, rotated) = match name.strip_suffix(".log.1") {
            Some(stem) => (stem, true),
            None => (name.strip_suffix(".log").unwrap_or_default(), false),
        };
        if let Ok(id) = stem.parse::<InstanceId>() {
            files.push((id, !rotated, path));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(id, _, path)| (id, path)).collect())
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
