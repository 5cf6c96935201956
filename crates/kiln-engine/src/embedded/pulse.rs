//! Whether a keeper answers, asked again and again without waiting for it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::line::{Begun, begin};
use super::wire::{CONTROL_SOCKET, Call};

/// What is known of a keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// It answers.
    Answers,
    /// It has not answered yet, for as long as this.
    Silent(Duration),
    /// Nobody is there to be asked.
    Gone,
}

/// A question that is asked of the keeper of a run directory again and again.
///
/// It is one connection as long as that lasts: a keeper that stands still, or has no descriptor left, admits nobody, and
/// who would connect to it anew each time would wait there in the end.
#[derive(Debug)]
pub struct Pulse {
    socket: PathBuf,
    /// The connection, and since when an answer is waited for on it.
    line: Option<(Begun, Option<Instant>)>,
}

/// For how long an answer is waited for each time: not at all, but for the system's own units.
const NO_TIME: Duration = Duration::from_millis(1);

impl Pulse {
    /// That of the keeper in `run_dir`, whichever works there.
    pub fn in_dir(run_dir: &Path) -> Self {
        Self { socket: run_dir.join(CONTROL_SOCKET), line: None }
    }

    /// How it is now.
    pub fn feel(&mut self) -> Beat {
        match self.line.take().map(|(line, since)| self.listen(line, since)) {
            Some(Ok(beat)) => beat,
            // It has ended, or made room for another program: who is there now is asked.
            Some(Err(_)) | None => self.begin().unwrap_or(Beat::Gone),
        }
    }

    fn begin(&mut self) -> io::Result<Beat> {
        let line = begin(&self.socket, Call::Who, &[])?;
        self.listen(line, Some(Instant::now()))
    }

    fn listen(&mut self, mut line: Begun, since: Option<Instant>) -> io::Result<Beat> {
        let since = match since {
            Some(since) => since,
            None => {
                line.ask_again(Call::Who)?;
                Instant::now()
            }
        };
        let is_answered = line.wait(NO_TIME)?.is_some();
        self.line = Some((line, (!is_answered).then_some(since)));
        Ok(if is_answered { Beat::Answers } else { Beat::Silent(since.elapsed()) })
    }
}
