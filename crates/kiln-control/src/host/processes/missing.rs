//! A process beside control that is gone and cannot be started again: said where people look.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use kiln_model::Failure;

use crate::sync::lock;

/// A process that may be missing, and what that means.
pub(super) struct Kind {
    name: &'static str,
    meanwhile: &'static str,
}

/// Those that are, and why.
pub(super) struct Missing {
    run_dir: PathBuf,
    why: Mutex<BTreeMap<&'static str, String>>,
}

impl Missing {
    pub(super) const KEEPER: Kind = Kind {
        name: "keeper",
        meanwhile: "instances run on; until then none is made, ended or replaced, and nobody connects to them anew",
    };
    pub(super) const EDGE: Kind =
        Kind { name: "edge", meanwhile: "instances run on; until then requests wait" };

    pub(super) fn in_dir(run_dir: &Path) -> Self {
        Self { run_dir: run_dir.to_owned(), why: Mutex::default() }
    }

    /// Takes account of an attempt to start one again if it is gone; whether it was started. What is new is written down
    /// beside its own complaints, once.
    pub(super) fn heed(&self, kind: Kind, revived: Result<bool, Failure>) -> bool {
        let mut why = lock(&self.why);
        match revived {
            Ok(was_started) => {
                why.remove(kind.name);
                was_started
            }
            Err(failure) => {
                let words = kind.words(&failure);
                if why.get(kind.name) != Some(&words) {
                    super::complain(&self.run_dir.join(format!("{}.log", kind.name)), &words);
                    why.insert(kind.name, words);
                }
                false
            }
        }
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        lock(&self.why).values().cloned().collect()
    }
}

impl Kind {
    fn words(&self, failure: &Failure) -> String {
        let Self { name, meanwhile } = self;
        let why: Vec<&str> =
            std::iter::once(&failure.message).chain(&failure.causes).map(String::as_str).collect();
        let next = failure.hint.as_deref().unwrap_or("it is tried again ten times a second");
        format!("the {name} has ended and cannot be started again ({}); {meanwhile}; {next}", why.join(": "))
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::ExitCode;

    use super::*;

    #[test]
    fn what_is_missing_is_said_until_it_is_back_and_written_down_once() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Missing::in_dir(dir.path());
        let refused =
            || Err(Failure::new(ExitCode::Host, "could not fork").because("no room").hint("make room"));
        assert!(!missing.heed(Missing::KEEPER, refused()) && !missing.heed(Missing::KEEPER, refused()));
        assert!(missing.heed(Missing::EDGE, Ok(true)));
        let said = "the keeper has ended and cannot be started again (could not fork: no room); instances run on; until \
                    then none is made, ended or replaced, and nobody connects to them anew; make room";
        assert_eq!(missing.warnings(), [said]);
        let log = std::fs::read_to_string(dir.path().join("keeper.log")).unwrap();
        assert!(log.ends_with(&format!("{said}\n")) && log.lines().count() == 1, "{log}");
        assert!(!missing.heed(Missing::KEEPER, Ok(false)));
        assert_eq!(missing.warnings(), [""; 0]);
    }
}
