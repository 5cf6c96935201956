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

/// A question that is asked of the keeper of a run directory again as soon as it is answered.
///
/// It is one connection however long that takes: a keeper that stands still admits nobody, and who would connect to it
/// anew each time would wait there in the end.
#[derive(Debug)]
pub struct Pulse {
    socket: PathBuf,
    asked: Option<(Instant, Begun)>,
}

/// For how long an answer is waited for each time: not at all, but for the system's own units.
const NO_TIME: Duration = Duration::from_millis(1);

impl Pulse {
    /// That of the keeper in `run_dir`, whichever works there.
    pub fn in_dir(run_dir: &Path) -> Self {
        Self { socket: run_dir.join(CONTROL_SOCKET), asked: None }
    }

    /// How it is now.
    pub fn feel(&mut self) -> Beat {
        let (since, mut asked) = match self.asked.take() {
            Some(before) => before,
            None => match self.ask() {
                Ok(asked) => (Instant::now(), asked),
                Err(_) => return Beat::Gone,
            },
        };
        match asked.wait(NO_TIME) {
            Ok(Some(_)) => Beat::Answers,
            Ok(None) => {
                self.asked = Some((since, asked));
                Beat::Silent(since.elapsed())
            }
            // It has ended, or made room for another program: who is there now is asked.
            Err(_) => match self.ask() {
                Ok(asked) => {
                    self.asked = Some((Instant::now(), asked));
                    Beat::Silent(Duration::ZERO)
                }
                Err(_) => Beat::Gone,
            },
        }
    }

    fn ask(&self) -> io::Result<Begun> {
        begin(&self.socket, Call::Who, &[])
    }
}
