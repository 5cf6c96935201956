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

impl Output {
    /// A result: `value` as JSON, or the words for it.
    pub(crate) fn result<T: Serialize>(
        self,
        value: &T,
        words: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let text = if self.json { json(value)? } else { words() };
        given(line(&text))
    }
}

/// One JSON document without line breaks.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|e| Failure::from_error(ExitCode::Bug, &e))
}

/// Whether what was written on stdout has arrived, or nobody wants it: whoever stops reading has seen enough. What a full
/// disk has not taken is missed by whoever looks there later, so nobody is told that all is well.
pub(crate) fn given(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            let failure = Failure::new(ExitCode::Host, "the answer could not be written to standard output");
            let hint =
                "only the answer is lost: what was asked for is done; ask again where there is room for it";
            Err(failure.because(e.to_string()).hint(hint))
        }
        _ => Ok(()),
    }
}

/// One line (or several) on stdout.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let text = text.trim_end_matches('\n');
    if text.is_empty() {
        return Ok(());
    }
    writeln!(out, "{text}").and_then(|()| out.flush())
}

/// On stdout as they are.
pub(crate) fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush())
}

/// What did not go well although the command did what it was asked.
pub(crate) fn warn(warnings: &[String]) {
    warnings.iter().for_each(|warning| aside(&format!("warning: {warning}")));
}

/// A line for people on stderr. With nobody left to read it, it is not worth ending for.
pub(crate) fn aside(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
