//! What instances wrote, also those long gone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use kiln_model::{
    Answer, AppName, Event, ExitCode, Failure, InstanceId, OutputLine, OutputStream, ReleaseId, ServiceName,
    Timestamp, WholeLine, WholeLines,
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

impl From<WholeLine> for Line {
    fn from(line: WholeLine) -> Self {
        let text = String::from_utf8_lossy(&line.text).into_owned();
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
        self.is_known(wanted)?;
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

    /// Refuses to look for the output of what never was: nothing would ever come.
    fn is_known(&self, wanted: &Wanted) -> Result<(), Failure> {
        if wanted.service.is_none() && wanted.instance.is_none() {
            return Ok(());
        }
        let lineage = Lineage::of(&self.records()?);
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
        let mut lines = Reading::default().read(instance, paths, false).unwrap_or_default();
        lines.sort_by_key(|line| line.at);
        let skip = lines.len().saturating_sub(count as usize);
        lines.into_iter().skip(skip).map(|line| line.text).collect()
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
        for (instance, paths) in files(&dir).map_err(failed)? {
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
                let new = reading.read(&instance, &paths, wanted.follow).map_err(failed)?;
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

/// How far the output of each instance has been read.
#[derive(Default)]
struct Reading {
    files: BTreeMap<InstanceId, Files>,
    origins: BTreeMap<InstanceId, Option<Origin>>,
}

/// The files of one instance, by what they are: when one is set aside it gets another name.
#[derive(Default)]
struct Files {
    offsets: BTreeMap<u64, u64>,
    lines: WholeLines,
}

impl Reading {
    /// What there is to read of an instance. A line that was begun is waited for, but not for long.
    fn read(&mut self, instance: &InstanceId, paths: &[PathBuf], waits: bool) -> std::io::Result<Vec<Line>> {
        let files = self.files.entry(instance.clone()).or_default();
        let mut lines = Vec::new();
        let mut bytes = 0;
        for path in paths {
            bytes += files.read(path, &mut lines)?;
        }
        if !waits || bytes == 0 {
            lines.extend(files.lines.rest());
        }
        Ok(lines.into_iter().map(Line::from).collect())
    }
}

impl Files {
    /// How many bytes were new.
    fn read(&mut self, path: &PathBuf, lines: &mut Vec<WholeLine>) -> std::io::Result<u64> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(e) => return Err(e),
        };
        let meta = file.metadata()?;
        let offset = self.offsets.entry(meta.ino()).or_default();
        if meta.len() < *offset {
            // Another file, to which the number of one that is gone was given.
            *offset = 0;
        }
        let before = *offset;
        file.seek(SeekFrom::Start(*offset))?;
        let mut reader = BufReader::new(file);
        loop {
            let mut line = Vec::new();
            let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
            // A line without its end is still being written.
            if read == 0 || (line.last() != Some(&b'\n') && read as u64 != MAX_LINE) {
                return Ok(*offset - before);
            }
            *offset += read as u64;
            line.pop();
            lines.extend(OutputLine::parse(&line).and_then(|line| self.lines.take(&line)));
        }
    }
}

/// The output files of each instance, older parts first.
fn files(dir: &std::path::Path) -> std::io::Result<BTreeMap<InstanceId, Vec<PathBuf>>> {
    let mut files: BTreeMap<InstanceId, Vec<PathBuf>> = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let stem = name.strip_suffix(".log.1").or_else(|| name.strip_suffix(".log"));
        if let Some(Ok(id)) = stem.map(str::parse) {
            files.entry(id).or_default().push(path);
        }
    }
    // By name, `.log` comes before `.log.1`.
    files.values_mut().for_each(|paths| paths.sort_by(|a, b| b.cmp(a)));
    Ok(files)
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn line(at: u64, is_partial: bool, text: &str) -> Vec<u8> {
        let mut line = Vec::new();
        let (at, text) = (kiln_model::OutputTime(at), text.as_bytes());
        OutputLine { at, stream: OutputStream::Stdout, is_partial, text }.encode(&mut line);
        line
    }

    #[test]
    fn a_log_that_is_followed_is_told_once_also_when_it_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let (log, old) = (dir.path().join("a.log"), dir.path().join("a.log.1"));
        let id: InstanceId = "a".parse().unwrap();
        let mut reading = Reading::default();
        let mut read = || {
            let files = files(dir.path()).unwrap();
            let lines = reading.read(&id, &files[&id], true).unwrap();
            lines.into_iter().map(|l| l.text).collect::<Vec<_>>()
        };
        fs::write(&log, [line(1, false, "one"), line(2, true, "tw")].concat()).unwrap();
        assert_eq!(read(), ["one"]);
        let more = [fs::read(&log).unwrap(), line(3, false, "o")].concat();
        fs::write(&log, more).unwrap();
        fs::rename(&log, &old).unwrap();
        fs::write(&log, line(4, true, "three, slowly")).unwrap();
        assert_eq!(read(), ["two"]);
        assert_eq!(read(), ["three, slowly"], "nobody waits for ever");
        assert_eq!(read(), [""; 0]);
    }
}
