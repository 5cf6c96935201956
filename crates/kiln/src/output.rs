//! Results on stdout: a JSON document for programs, or words for people.

use std::io::{self, Write};

use kiln_model::{ExitCode, Failure};
use serde::Serialize;

/// How results are given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
}

/// Nobody reads stdout any more.
#[derive(Debug)]
pub(crate) struct Closed;

impl Output {
    /// A result: `value` as JSON, or the words for it.
    pub(crate) fn result<T: Serialize>(
        self,
        value: &T,
        words: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        all_of(&if self.json { json(value)? } else { words() })
    }
}

/// Everything that was asked for, on stdout.
///
/// # Errors
/// If not all of it could be written. Whoever stops reading has seen enough.
pub(crate) fn all_of(text: &str) -> Result<(), Failure> {
    match write(text) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            let message = "what was asked for could not be written to standard output";
            Err(Failure::new(ExitCode::Host, message).because(e.to_string()))
        }
        _ => Ok(()),
    }
}

/// One JSON document without line breaks.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|e| Failure::from_error(ExitCode::Bug, &e))
}

/// One line (or several) on stdout.
pub(crate) fn line(text: &str) -> Result<(), Closed> {
    write(text).map_err(|_| Closed)
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let text = text.trim_end_matches('\n');
    if text.is_empty() {
        return Ok(());
    }
    writeln!(out, "{text}").and_then(|()| out.flush())
}

/// What did not go well although the command did what it was asked.
pub(crate) fn warn(warnings: &[String]) {
    warnings.iter().for_each(|warning| aside(&format!("warning: {warning}")));
}

/// A line for people on stderr. With nobody left to read it, it is not worth ending for.
pub(crate) fn aside(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
