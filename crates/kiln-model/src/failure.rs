//! Failures as people and other programs see them.

use serde::{Deserialize, Serialize};

use crate::SpecProblem;

/// The exit codes of the `kiln` command; their meaning is a promise to scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitCode {
    /// A bug in Kiln.
    Bug = 1,
    /// Wrong usage.
    Usage = 2,
    /// The spec or the lock is invalid.
    Spec = 3,
    /// A bake failed.
    Bake = 4,
    /// A check of the image failed.
    Check = 5,
    /// The deploy failed; the previous release still serves.
    Deploy = 6,
    /// Refused by policy.
    Policy = 7,
    /// Someone else is deploying this app.
    Busy = 8,
    /// The host could not be reached, or lacks what is needed.
    Host = 9,
}

/// Why a command did not do what it was asked. Every crate has its own error types; at the surface each becomes
/// one of these, with one exhaustive match per crate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The exit code it leads to.
    pub code: ExitCode,
    /// What was attempted, on what, and what went wrong; one sentence without its cause.
    pub message: String,
    /// The causes, outermost first; none repeats another.
    pub causes: Vec<String>,
    /// What to do about it, if that can be said.
    pub hint: Option<String>,
    /// If the spec is at fault: where, one by one. `causes` says the same in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<SpecProblem>,
}

impl Failure {
    /// A failure with its message; causes and hint are added with the methods below.
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), causes: Vec::new(), hint: None, problems: Vec::new() }
    }

    /// A failure from an error and the errors behind it.
    pub fn from_error(code: ExitCode, error: &dyn std::error::Error) -> Self {
        let mut failure = Self::new(code, error.to_string());
        let mut source = error.source();
        while let Some(cause) = source {
            failure.causes.push(cause.to_string());
            source = cause.source();
        }
        failure
    }

    /// The same with a cause added below the ones it has.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// The same with a next step for the reader.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
