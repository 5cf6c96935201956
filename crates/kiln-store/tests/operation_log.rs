//! The operation log: a chain that only grows, and what damage to it looks like.

mod support;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use kiln_store::{HostLock, LogReader, Medium, OperationLog, Repair, Result};
use serde::de::DeserializeOwned;
use support::Scratch;

struct Log {
    scratch: Scratch,
}

impl Log {
    fn of(entries: &[&str]) -> Self {
        let this = Self { scratch: Scratch::new() };
        let mut log = this.open().unwrap();
        for entry in entries {
            log.append(entry).unwrap();
        }
        this
    }

    fn open(&self) -> Result<OperationLog> {
        let store = self.scratch.open();
        OperationLog::open(&store, &HostLock::take(&store)?)
    }

    fn path(&self) -> PathBuf {
        self.scratch.root().join("log/operations.jsonl")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    fn entries(&self) -> Vec<(u64, String)> {
        all(&self.open().unwrap().reader().unwrap()).unwrap()
    }

    fn damage(&self) -> String {
        self.open().unwrap_err().to_string()
    }
}

fn all<T: DeserializeOwned + Send>(reader: &LogReader) -> Result<Vec<(u64, T)>> {
    let mut entries = Vec::new();
    reader.read(&mut |number, entry| entries.push((number, entry)))?;
    Ok(entries)
}

#[test]
fn entries_come_back_in_order_with_their_numbers() {
    let log = Log::of(&["a", "b"]);
    assert_eq!(log.open().unwrap().append(&"c").unwrap(), 3);
    assert_eq!(log.entries(), [(1, "a".into()), (2, "b".into()), (3, "c".into())]);
    let first = format!(r#"{{"seq":1,"prev":"{}","entry":"a"}}"#, "0".repeat(64));
    let second = format!(r#"{{"seq":2,"prev":"{}","entry":"b"}}"#, kiln_model::Sha256::of(first.as_bytes()));
    assert!(log.text().starts_with(&format!("{first}\n{second}\n")), "{}", log.text());
    log.open().unwrap().reader().unwrap().verify().unwrap();
}

#[test]
fn whatever_a_crash_left_of_the_last_line_is_cut_off() {
    let whole = Log::of(&["a", "b", "c"]).text();
    let two = whole.lines().take(2).map(|l| l.len() + 1).sum::<usize>();
    for length in two..whole.len() {
        let log = Log::of(&["a", "b"]);
        fs::write(log.path(), &whole[..length]).unwrap();
        assert_eq!(log.open().unwrap().append(&"d").unwrap(), 3, "cut at {length}");
        assert_eq!(log.entries()[2], (3, "d".into()));
    }
    let log = Log::of(&["a"]);
    fs::write(log.path(), [log.text().as_bytes(), &[0; 4096], b"tail of an entry\"}\n"].concat()).unwrap();
    assert_eq!(log.entries(), [(1, "a".into())]);
}

#[test]
fn any_other_damage_is_an_error_that_names_the_line() {
    let log = Log::of(&["a", "b", "c"]);
    let whole = log.text();
    let lines: Vec<_> = whole.lines().collect();
    let without_second = format!("{}\n{}\n", lines[0], lines[2]);
    let swapped = format!("{}\n{}\n{}\n", lines[1], lines[0], lines[2]);
    let cases = [
        (whole.replace(r#""b""#, r#""x""#), "line 3 does not follow the line before it"),
        (whole.replace(r#""seq":2"#, r#""seq":3"#), "line 2 has the number 3"),
        (without_second, "line 2 does not follow the line before it"),
        (swapped, "line 1 does not follow the line before it"),
        (whole.replacen('{', "", 1), "line 1 does not read as an entry"),
        (format!("{whole}\n"), "line 4 does not read as an entry"),
    ];
    for (text, problem) in cases {
        fs::write(log.path(), text).unwrap();
        assert!(log.damage().contains(problem), "{} instead of {problem}", log.damage());
    }
}

/// As if it had been appended, line by line.
fn long(lines: usize) -> String {
    let (mut text, mut prev) = (String::new(), "0".repeat(64));
    for seq in 1..=lines {
        let line = format!(r#"{{"seq":{seq},"prev":"{prev}","entry":"{seq} {}"}}"#, "x".repeat(200));
        prev = kiln_model::Sha256::of(line.as_bytes()).hex();
        text += &line;
        text.push('\n');
    }
    text
}

/// It is read in stretches, by several threads: nobody can tell, whole or damaged, in whichever stretch.
#[test]
fn a_log_of_many_stretches_is_followed_from_the_first_line_to_the_last() {
    const LINES: usize = 8_000;
    let (log, whole) = (Log::of(&[]), long(LINES));
    fs::write(log.path(), &whole).unwrap();
    let entries = log.entries();
    assert_eq!(entries.len(), LINES);
    for (at, (number, entry)) in entries.iter().enumerate() {
        assert_eq!(*number, at as u64 + 1);
        assert!(entry.starts_with(&format!("{number} ")), "{entry} is number {number}");
    }
    // The line that ends the first stretch: the one behind it is looked at by another thread.
    let last = whole[..256 << 10].matches('\n').count() + 1;
    for at in [1, last, last + 1, 2_500, 4_000, 6_000, LINES - 1] {
        let edited = whole.replace(&format!("\"{at} x"), &format!("\"{at} y"));
        fs::write(log.path(), edited).unwrap();
        let says = format!("line {} does not follow the line before it", at + 1);
        assert!(log.damage().contains(&says), "{} instead of {says}", log.damage());
        // What comes first in the log is what is told, whichever is found first.
        let unreadable = whole.replace(&format!("\"seq\":{at},"), "").replace("\"seq\":7999,", "");
        fs::write(log.path(), unreadable).unwrap();
        let says = format!("line {at} does not read as an entry");
        assert!(log.damage().contains(&says), "{} instead of {says}", log.damage());
    }
    fs::write(log.path(), &whole[..whole.len() - 1]).unwrap();
    assert_eq!(log.open().unwrap().append(&"next").unwrap(), LINES as u64, "the torn line is cut off");
}

#[test]
fn a_second_writer_is_noticed() {
    let log = Log::of(&["a"]);
    let open = log.open().unwrap();
    let reader = open.reader().unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(log.path()).unwrap();
    file.write_all(b"{\"seq\":2}\n").unwrap();
    let noticed = open.reader().unwrap_err().to_string();
    assert!(noticed.ends_with("somebody else has written to it"), "{noticed}");
    let edited = log.text().replacen("\"a\"", "\"b\"", 1);
    fs::write(log.path(), edited).unwrap();
    assert!(reader.verify().is_err());
    fs::write(log.path(), "").unwrap();
    assert!(reader.verify().is_err());
}

/// A host that went on would tell of deploys that the next one has never heard of.
#[test]
fn nothing_is_appended_to_a_log_that_somebody_else_has_changed() {
    let log = Log::of(&["a", "b"]);
    let mut open = log.open().unwrap();
    let whole = log.text();
    let refused = |open: &mut OperationLog, says: &str| {
        let refusal = format!("{:?}", open.append(&"c").unwrap_err());
        assert!(refusal.contains(says) && refusal.contains("operations.jsonl"), "{refusal}");
    };

    for changed in [format!("{whole}{{}}\n"), whole[..whole.len() / 2].to_owned()] {
        fs::write(log.path(), &changed).unwrap();
        refused(&mut open, "somebody else has written to it");
        assert_eq!(log.text(), changed, "it is as it was found");
    }
    fs::write(log.path(), &whole).unwrap();

    let aside = log.path().with_extension("aside");
    fs::rename(log.path(), &aside).unwrap();
    refused(&mut open, "somebody has moved or removed it; put back");
    fs::copy(&aside, log.path()).unwrap();
    refused(&mut open, "somebody has put another file in its place; put back");
    assert_eq!((log.text(), fs::read_to_string(&aside).unwrap()), (whole.clone(), whole));

    fs::rename(&aside, log.path()).unwrap();
    assert_eq!(open.append(&"c").unwrap(), 3);
    assert_eq!(open.reader().unwrap().verify().unwrap().0, 3);
}

/// A disk of so many bytes.
#[derive(Debug)]
struct SmallDisk {
    bytes: Mutex<Vec<u8>>,
    held_back: AtomicUsize,
    free_until: AtomicUsize,
}

impl SmallDisk {
    fn has_room_for(&self, length: usize) -> io::Result<()> {
        if length <= self.free_until.load(Relaxed) { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }
}

impl Medium for SmallDisk {
    fn read(&self) -> io::Result<Vec<u8>> {
        Ok(self.bytes.lock().unwrap().clone())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (mut all, offset) = (self.bytes.lock().unwrap(), usize::try_from(offset).unwrap());
        let end = offset + bytes.len();
        if end > self.held_back.load(Relaxed) {
            self.has_room_for(end)?;
        }
        all.truncate(offset);
        all.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn hold_back(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let to = usize::try_from(offset + bytes).unwrap();
        self.has_room_for(to)?;
        self.held_back.store(to, Relaxed);
        Ok(())
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.held_back.store(0, Relaxed);
        self.bytes.lock().unwrap().truncate(usize::try_from(length).unwrap());
        Ok(())
    }
}

#[test]
fn what_keeps_a_host_running_has_room_on_a_full_disk() {
    let disk = Arc::new(SmallDisk {
        bytes: Mutex::default(),
        held_back: AtomicUsize::new(0),
        free_until: AtomicUsize::new(1 << 20),
    });
    let mut log = OperationLog::over::<String>(Path::new("log"), disk.clone(), &mut |_| {}).unwrap();
    log.append(&"a").unwrap();
    disk.free_until.store(0, Relaxed);
    let full = |e: kiln_store::StoreError| assert!(e.is_no_space(), "{e:?}");
    let asked = (0..).map_while(|_| log.append(&"asked for").map_err(full).ok()).count();
    assert!(asked < 100, "{asked}: what is held back is not for what somebody asks for");
    let needed = (0..).map_while(|_| log.append_in_need(&"needed").map_err(full).ok()).count();
    assert!(needed > 400, "{needed}");
    let (last, _) = log.reader().unwrap().verify().unwrap();
    assert_eq!(last as usize, 1 + asked + needed, "and those are there");

    disk.free_until.store(1 << 20, Relaxed);
    log.append(&"asked for").unwrap();
    disk.free_until.store(0, Relaxed);
    log.append_in_need(&"needed").unwrap();
}

/// It reads what was there when it was asked for, whatever is appended meanwhile, and whatever an append leaves.
#[test]
fn a_reader_needs_nothing_of_who_appends() {
    let log = Log::of(&["a", "b"]);
    let mut open = log.open().unwrap();
    let reader = open.reader().unwrap();
    open.append(&"c").unwrap();
    let torn = [log.text().as_bytes(), b"{\"seq\":4,\"pr"].concat();
    fs::write(log.path(), torn).unwrap();
    assert_eq!(all::<String>(&reader).unwrap(), [(1, "a".into()), (2, "b".into())]);
    assert_eq!(reader.verify().unwrap().0, 2);
}

#[test]
fn an_entry_of_another_shape_names_its_line() {
    let log = Log::of(&["a"]);
    let error = all::<u32>(&log.open().unwrap().reader().unwrap()).unwrap_err().to_string();
    assert!(error.contains("line 1 does not read as an entry: invalid type"), "{error}");
}

/// Repairs it; what was wrong with it, and its entries then.
fn repaired(log: &Log) -> (Option<Repair>, Vec<String>) {
    let store = log.scratch.open();
    let held = HostLock::take(&store).unwrap();
    let told = |repair: &Repair, entries: &[String]| {
        vec![format!("{} damaged, {} of {}", repair.damage.len(), entries.len(), repair.entries)]
    };
    let repair = OperationLog::repair::<String>(&store, &held, told).unwrap();
    drop(held);
    (repair, log.entries().into_iter().map(|(_, entry)| entry).collect())
}

#[test]
fn a_damaged_log_is_kept_as_it_is_and_one_that_can_be_continued_takes_its_place() {
    let whole = Log::of(&["a", "b", "c", "d"]).text();
    let lines: Vec<_> = whole.lines().collect();
    let joined = |lines: &[&str]| lines.iter().map(|l| format!("{l}\n")).collect::<String>();
    let letter = lines[1].replace("\"b\"", "\"c\"");
    let edited = lines[1].replace("\"b\"", "\"bb\"");
    let unreadable = lines[1].replace("\"b\"", "\"b");
    let forged = lines[2].replacen("\"prev\":\"", "\"prev\":\"0", 1).replacen("0\",\"entry", "\",\"entry", 1);
    let cases = [
        (joined(&[lines[0], &edited, lines[2], lines[3]]), "line 2 is not what was appended", "abbcd"),
        (joined(&[lines[0], &letter, lines[2], lines[3]]), "line 2 was changed in one byte", "abcd"),
        (joined(&[lines[0], &unreadable, lines[2], lines[3]]), "line 2 does not read as an entry", "acd"),
        (joined(&[lines[0], lines[2], lines[3]]), "what was between line 1 and the one behind it", "acd"),
        (joined(&[lines[1], lines[2]]), "line 1 does not follow the line before it", "bc"),
        (joined(&[lines[0], lines[1], &forged, lines[3]]), "line 3 ", "ab"),
    ];
    for (damaged, says, left) in cases {
        let log = Log::of(&[]);
        fs::write(log.path(), &damaged).unwrap();
        let (repair, entries) = repaired(&log);
        let repair = repair.unwrap_or_else(|| panic!("it is damaged:\n{damaged}"));
        assert!(repair.damage.len() == 1 && repair.damage[0].contains(says), "{:?}", repair.damage);
        assert_eq!(fs::read_to_string(&repair.kept_as).unwrap(), damaged, "the evidence");
        assert!(entries.concat().starts_with(left), "{entries:?}");
        let told = entries.last().unwrap();
        assert_eq!(*told, format!("1 damaged, {0} of {0}", entries.len() - 1));
        assert_eq!(log.open().unwrap().append(&"e").unwrap(), entries.len() as u64 + 1);
        assert_eq!(repaired(&log).0, None, "nothing is wrong with it any more");
    }
}
