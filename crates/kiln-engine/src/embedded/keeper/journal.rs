//! What a keeper writes down, so that another one can go on where it was killed.
//!
//! ```text
//!   <run dir>/keeper.state    one record a line, in JSON; gone when the keeper has ended properly
//! ```
//! It need not survive the machine, and is not synchronised: the instances would not either. What it says of another
//! boot is nothing. It names descriptors by their marks; whether the processes behind them still run, they tell.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use kiln_model::{
    AppName, ByteSize, Exit, Inside, InstanceId, InstanceState, InstanceStatus, Millis, StoreHost, Volatile,
};
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, fallocate, open, openat, renameat, unlinkat};
use serde::{Deserialize, Serialize};

use super::super::boot;
use super::super::launch::AppIds;
use super::descriptors::Mark;

/// Something that happened.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Record<'a> {
    /// The first: the version of this format, and the boot the rest is true in.
    Begun { version: u32, boot: String },
    /// An instance has its first process.
    Launched(Cow<'a, Trace>),
    /// That process has ended.
    Exited(Cow<'a, InstanceId>, Cow<'a, Exit>),
    /// The status of an instance, as it was told.
    Told(Cow<'a, InstanceStatus>),
    /// An ended one need not be remembered.
    Forgotten(Cow<'a, InstanceId>),
    /// Where the stores are that go by a name.
    Located(Cow<'a, BTreeMap<StoreHost, SocketAddr>>),
    /// The keeper is to be continued by this program.
    Successor(PathBuf),
}

const VERSION: u32 = 1;

/// What another keeper must know of an instance to go on with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trace {
    pub(super) id: InstanceId,
    pub(super) app: AppName,
    pub(super) ids: AppIds,
    pub(super) accounting_uid: u32,
    pub(super) stop_signal: i32,
    pub(super) stop_grace: Millis,
    pub(super) memory: ByteSize,
    pub(super) pid: u32,
    pub(super) process: Mark,
    /// Standard output and standard error.
    pub(super) outputs: [Mark; 2],
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) volatile: Vec<Volatile>,
    /// What it needs, and what listens for that; written down again when it does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) needs: Vec<Inside>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) listeners: Vec<Mark>,
}

/// The file, being written.
#[derive(Debug)]
pub(super) struct Journal {
    dir: OwnedFd,
    file: OwnedFd,
    /// How long it is, and how long it was when it was written anew.
    bytes: u64,
    bytes_anew: u64,
    /// At which length more room is to be held back.
    room_at: u64,
    /// Whether a record is missing from it.
    is_torn: bool,
}

const NAME: &str = "keeper.state";
const NEW_NAME: &str = "keeper.state.new";
/// Below this it is not worth writing anew.
const SHORT: u64 = 4 << 20;
/// How much of the disk is held back behind the last record: what has died is replaced on a full one, too. An instance
/// takes about a kilobyte from its launch to its being forgotten.
const RESERVE: u64 = 256 << 10;
/// Which part of it is used before more is asked for.
const SLACK: u64 = 16 << 10;

impl Journal {
    /// A file in `run_dir`, which is written when it is first renewed; until then the one there is stays.
    pub(super) fn open(run_dir: &Path) -> io::Result<Self> {
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = open(run_dir, directory, Mode::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
        let file = openat(&dir, NAME, flags, Mode::from_raw_mode(0o600))?;
        Ok(Self { dir, file, bytes: 0, bytes_anew: 0, room_at: 0, is_torn: true })
    }

    /// Writes a record down.
    ///
    /// # Errors
    /// As the system says; then it is missing until the file is written anew.
    pub(super) fn write(&mut self, record: &Record<'_>) -> io::Result<()> {
        let mut line = Vec::with_capacity(512);
        encode(record, &mut line)?;
        let written = rustix::io::write(&self.file, &line);
        self.bytes += line.len() as u64;
        self.hold_back();
        match written {
            Ok(length) if length == line.len() => Ok(()),
            other => {
                self.is_torn = true;
                Err(other.map_or_else(Into::into, |_| io::ErrorKind::StorageFull.into()))
            }
        }
    }

    /// If there is no room, what there is must do; asking is dear then, and is not done for each record.
    fn hold_back(&mut self) {
        if self.bytes >= self.room_at {
            self.room_at = self.bytes + SLACK;
            let _ = fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.bytes, RESERVE);
        }
    }

    /// Whether it should be written anew: it has become long, or lacks something.
    pub(super) fn is_worn(&self) -> bool {
        self.is_torn || self.bytes > SHORT.max(4 * self.bytes_anew)
    }

    /// Writes it anew with these records only.
    pub(super) fn renew<'a>(&mut self, records: impl Iterator<Item = Record<'a>>) -> io::Result<()> {
        let (file, bytes) = write_new(&self.dir, records)?;
        (self.file, self.bytes, self.bytes_anew, self.is_torn) = (file, bytes, bytes, false);
        self.room_at = bytes;
        self.hold_back();
        Ok(())
    }

    /// Takes the file in `run_dir` away, if it is there.
    pub(super) fn remove(run_dir: &Path) {
        // One that cannot be removed is empty, and says nothing.
        let _ = fs::remove_file(run_dir.join(NAME));
    }

    /// Takes the file away: there is nothing to go on with.
    pub(super) fn end(&self) {
        // If it cannot be removed, the next keeper finds that nothing in it is there any more.
        let _ = unlinkat(&self.dir, NAME, AtFlags::empty());
    }
}

fn encode(record: &Record<'_>, line: &mut Vec<u8>) -> io::Result<()> {
    serde_json::to_writer(&mut *line, record)?;
    line.push(b'\n');
    Ok(())
}

fn write_new<'a>(dir: &OwnedFd, records: impl Iterator<Item = Record<'a>>) -> io::Result<(OwnedFd, u64)> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::APPEND | OFlags::CLOEXEC;
    let file = openat(dir, NEW_NAME, flags, Mode::from_raw_mode(0o600))?;
    let mut text = Vec::new();
    encode(&Record::Begun { version: VERSION, boot: boot().unwrap_or_default() }, &mut text)?;
    for record in records {
        encode(&record, &mut text)?;
    }
    let mut left = &text[..];
    while !left.is_empty() {
        left = &left[rustix::io::write(&file, left)?..];
    }
    renameat(dir, NEW_NAME, dir, NAME)?;
    Ok((file, text.len() as u64))
}

/// What a keeper has left in writing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// Instances whose end was not told, with how their process ended if that is known.
    pub(super) traces: BTreeMap<InstanceId, (Trace, Option<Exit>)>,
    /// The last status told of each, in the order in which they came about.
    pub(super) statuses: Vec<InstanceStatus>,
    /// Where stores are that go by a name, as it was said last.
    pub(super) places: BTreeMap<StoreHost, SocketAddr>,
    /// Who is to go on.
    pub(super) successor: Option<PathBuf>,
}

/// What is left of the last keeper.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// It has ended properly, or there was none.
    Nothing,
    /// It was killed, or wants another one to go on.
    Unfinished(Past),
}

impl Left {
    /// Reads the file in `run_dir`.
    pub(super) fn read(run_dir: &Path) -> io::Result<Self> {
        match fs::read(run_dir.join(NAME)) {
            Ok(text) => Ok(Left::Unfinished(Past::parse(&text, &boot().unwrap_or_default()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Left::Nothing),
            Err(e) => Err(e),
        }
    }
}

impl Past {
    /// Lines that cannot be read were torn by a full disk or a kill, and are passed over.
    fn parse(text: &[u8], boot: &str) -> Self {
        let mut lines = text.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
        let is_ours = matches!(lines.next(), Some(Record::Begun { version: VERSION, boot: b }) if b == boot);
        let mut past = Self::default();
        let mut statuses: BTreeMap<InstanceId, (usize, InstanceStatus)> = BTreeMap::new();
        for (n, record) in lines.enumerate().take_while(|_| is_ours) {
            match record {
                Record::Begun { .. } => {}
                Record::Launched(trace) => {
                    past.traces.insert(trace.id.clone(), (trace.into_owned(), None));
                }
                Record::Exited(id, exit) => {
                    if let Some((_, how)) = past.traces.get_mut(&*id) {
                        *how = Some(exit.into_owned());
                    }
                }
                Record::Told(status) => {
                    if matches!(status.state, InstanceState::Ended { .. }) {
                        past.traces.remove(&status.id);
                    }
                    statuses.insert(status.id.clone(), (n, status.into_owned()));
                }
                Record::Forgotten(id) => drop(statuses.remove(&*id)),
                Record::Located(places) => past.places = places.into_owned(),
                Record::Successor(program) => past.successor = Some(program),
            }
        }
        let mut statuses: Vec<(usize, InstanceStatus)> = statuses.into_values().collect();
        statuses.sort_by_key(|(n, _)| *n);
        past.statuses = statuses.into_iter().map(|(_, status)| status).collect();
        past
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::Timestamp;

    use super::*;

    fn mark(n: u64) -> Mark {
        serde_json::from_value(serde_json::json!([1, n])).unwrap()
    }

    fn trace(id: &str) -> Trace {
        Trace {
            id: id.parse().unwrap(),
            app: "app".parse().unwrap(),
            ids: serde_json::from_value(serde_json::json!(0x1000_0000)).unwrap(),
            accounting_uid: 7,
            stop_signal: 15,
            stop_grace: Millis(10),
            memory: ByteSize(1),
            pid: 4,
            process: mark(1),
            outputs: [mark(2), mark(3)],
            volatile: vec![],
            needs: vec![],
            listeners: vec![],
        }
    }

    fn told(id: &str, state: InstanceState) -> Record<'static> {
        let status = InstanceStatus {
            id: id.parse().unwrap(),
            state,
            since: Timestamp(0),
            shortage: kiln_model::Shortage::default(),
        };
        Record::Told(Cow::Owned(status))
    }

    const RUNNING: InstanceState = InstanceState::Running { pid: 4 };
    const ENDED: InstanceState = InstanceState::Ended { exit: Exit::Code { code: 0 } };

    fn text(records: &[Record<'_>]) -> Vec<u8> {
        let mut text = Vec::new();
        encode(&Record::Begun { version: VERSION, boot: "this".into() }, &mut text).unwrap();
        records.iter().for_each(|record| encode(record, &mut text).unwrap());
        text
    }

    fn places(last: u8) -> BTreeMap<StoreHost, SocketAddr> {
        BTreeMap::from([("db.example.com:5432".parse().unwrap(), ([10, 0, 0, last], 5432).into())])
    }

    fn history() -> Vec<u8> {
        text(&[
            Record::Launched(Cow::Owned(trace("a"))),
            Record::Launched(Cow::Owned(trace("b"))),
            told("b", RUNNING),
            told("a", RUNNING),
            told("b", ENDED),
            told("never-ran", ENDED),
            Record::Exited(Cow::Owned("a".parse().unwrap()), Cow::Owned(Exit::Code { code: 3 })),
            Record::Located(Cow::Owned(places(1))),
            Record::Located(Cow::Owned(places(2))),
            Record::Forgotten(Cow::Owned("never-ran".parse().unwrap())),
        ])
    }

    #[test]
    fn what_was_told_and_what_was_not_is_known_again() {
        let past = Past::parse(&history(), "this");
        let names: Vec<&str> = past.statuses.iter().map(|s| s.id.as_str()).collect();
        assert_eq!(names, ["a", "b"], "in the order in which they came about");
        assert_eq!(past.places, places(2), "only the last counts");
        let left: Vec<_> = past.traces.into_values().collect();
        assert_eq!(left, [(trace("a"), Some(Exit::Code { code: 3 }))]);
    }

    #[test]
    fn another_boot_says_nothing() {
        assert_eq!(Past::parse(&history(), "another"), Past::default());
        assert_eq!(Past::parse(b"", "this"), Past::default());
    }

    #[test]
    fn a_torn_line_takes_nothing_else_with_it() {
        let whole = history();
        for end in 0..whole.len() {
            let mut torn = whole[..end].to_vec();
            torn.extend(b"\n{\"launched\":");
            let past = Past::parse(&torn, "this");
            assert!(past.statuses.len() <= 3 && past.traces.len() <= 2);
        }
        let mut torn = b"{\"begun\":{\"version\":1,\"boot\":\"this\"}}\n\xff\xfe{{{\n".to_vec();
        torn.extend(text(&[told("a", RUNNING)]));
        assert_eq!(Past::parse(&torn, "this").statuses.len(), 1);
    }

    #[test]
    fn it_is_written_anew_when_it_lacks_something_or_is_long() {
        let dir = std::env::temp_dir().join(format!("kiln-journal-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let mut journal = Journal::open(&dir).unwrap();
        assert!(journal.is_worn(), "it has not been begun");
        journal.renew(std::iter::empty()).unwrap();
        let record = Record::Launched(Cow::Owned(trace("a")));
        while !journal.is_worn() {
            journal.write(&record).unwrap();
        }
        journal.renew(std::iter::once(record)).unwrap();
        assert!(!journal.is_worn() && fs::metadata(dir.join(NAME)).unwrap().len() < 1000);
        let Left::Unfinished(past) = Left::read(&dir).unwrap() else { panic!("it is there") };
        assert_eq!(past.traces.len(), 1);
        journal.end();
        assert_eq!(Left::read(&dir).unwrap(), Left::Nothing);
        fs::remove_dir_all(&dir).unwrap();
    }
}
