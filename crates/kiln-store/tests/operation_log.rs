//! The operation log: a chain that only grows, and what damage to it looks like.

mod support;

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use kiln_store::{HostLock, OperationLog, Result};
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
        self.open().unwrap().read().unwrap()
    }

    fn damage(&self) -> String {
        self.open().unwrap_err().to_string()
    }
}

#[test]
fn entries_come_back_in_order_with_their_numbers() {
    let log = Log::of(&["a", "b"]);
    assert_eq!(log.open().unwrap().append(&"c").unwrap(), 3);
    assert_eq!(log.entries(), [(1, "a".into()), (2, "b".into()), (3, "c".into())]);
    let first = format!(r#"{{"seq":1,"prev":"{}","entry":"a"}}"#, "0".repeat(64));
    let second = format!(r#"{{"seq":2,"prev":"{}","entry":"b"}}"#, kiln_model::Sha256::of(first.as_bytes()));
    assert!(log.text().starts_with(&format!("{first}\n{second}\n")), "{}", log.text());
    log.open().unwrap().verify().unwrap();
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

#[test]
fn a_second_writer_is_noticed() {
    let log = Log::of(&["a"]);
    let open = log.open().unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(log.path()).unwrap();
    file.write_all(b"{\"seq\":2}\n").unwrap();
    assert!(open.verify().is_err());
}

#[test]
fn an_entry_of_another_shape_names_its_line() {
    let log = Log::of(&["a"]);
    let error = log.open().unwrap().read::<u32>().unwrap_err().to_string();
    assert!(error.contains("line 1 does not read as an entry: invalid type"), "{error}");
}
