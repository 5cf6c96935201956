//! What is wrong with a spec, and where.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::document::{Document, Place};
use crate::{ExitCode, Failure, ImageName};

/// A spec that cannot be used: everything that was found wrong with it, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{file}` is not a valid spec")]
pub struct SpecError {
    /// The file's name as it was given.
    pub file: String,
    /// What is wrong; never empty.
    pub problems: Vec<SpecProblem>,
}

impl SpecError {
    /// What is wrong with the `src` of one of an image's `files`, the `index`th, in a spec that reads: only who looks into
    /// the project's directory sees it. The spec was read from `text`, which people know as `file`.
    pub fn of_file((file, text): (&str, &str), image: &ImageName, index: usize, problem: &str) -> Self {
        let place = Place::default().key("image").key(image.as_str()).key("files").item(index).key("src");
        let span = Document::parse(text).map_or(0..0, |document| document.value(&place));
        located(file, text, vec![Found::new(span, problem)])
    }
}

/// One thing wrong with a spec. It carries the line it is about, so that whoever shows it needs no file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecProblem {
    /// The file's name.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// That line's text, without its end.
    pub source: String,
    /// The part of `source` that is meant, in bytes.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What would be right, if that can be said in a few words.
    pub expected: Option<String>,
    /// The valid name nearest to the one that was given.
    pub nearest: Option<String>,
}

impl fmt::Display for SpecProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        if let Some(expected) = &self.expected {
            write!(f, "; expected {expected}")?;
        }
        if let Some(nearest) = &self.nearest {
            write!(f, "; did you mean `{nearest}`?")?;
        }
        Ok(())
    }
}

impl From<SpecError> for Failure {
    fn from(error: SpecError) -> Self {
        let mut failure = Failure::new(ExitCode::Spec, error.to_string());
        failure.causes = error.problems.iter().map(ToString::to_string).collect();
        failure.problems = error.problems;
        failure
    }
}

/// A problem before its line has been looked up.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) span: Range<usize>,
    pub(super) message: String,
    pub(super) expected: Option<String>,
    pub(super) nearest: Option<String>,
}

impl Found {
    pub(super) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), expected: None, nearest: None }
    }

    pub(super) fn expected(&mut self, expected: impl Into<String>) -> &mut Self {
        self.expected = Some(expected.into());
        self
    }

    /// Names the one of `valid` that is near enough to `given` to have been meant.
    pub(super) fn nearest<'a>(&mut self, given: &str, valid: impl IntoIterator<Item = &'a str>) -> &mut Self {
        self.nearest = nearest(given, valid);
        self
    }

    /// The problem with its line, found in `text`.
    fn locate(self, file: &str, text: &str) -> SpecProblem {
        let at = visible(text, self.span.start);
        let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
        let source = text[start..end].trim_end_matches('\r');
        let within = |offset: usize| offset.clamp(start, start + source.len()) - start;
        let span = within(at)..within(self.span.end).max(within(at));
        let count = |s: &str, what: char| u32::try_from(s.matches(what).count()).unwrap_or(u32::MAX);
        SpecProblem {
            file: file.to_owned(),
            line: count(&text[..start], '\n').saturating_add(1),
            column: u32::try_from(source[..span.start].chars().count() + 1).unwrap_or(u32::MAX),
            source: source.to_owned(),
            span,
            message: self.message,
            expected: self.expected,
            nearest: self.nearest,
        }
    }
}

/// Where a problem at `offset` is shown: the end of the text is no place people can see, so what is wrong there is
/// shown behind the last thing that is written.
fn visible(text: &str, offset: usize) -> usize {
    if offset >= text.len() { text.trim_end().len() } else { text.floor_char_boundary(offset) }
}

/// Sorted by place, with their lines.
pub(super) fn located(file: &str, text: &str, mut found: Vec<Found>) -> SpecError {
    found.sort_by_key(|f| (f.span.start, f.span.end));
    let problems = found.into_iter().map(|f| f.locate(file, text)).collect();
    SpecError { file: file.to_owned(), problems }
}

/// The name nearest to `given`, if it is near enough to have been meant: most letters agree, or a slip of the
/// finger or two leads from one to the other.
pub(super) fn nearest<'a>(given: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let given = given.to_lowercase();
    let closeness = |name: &str| strsim::jaro_winkler(&given, &name.to_lowercase());
    let slips = |name: &str| strsim::osa_distance(&given, &name.to_lowercase());
    valid
        .into_iter()
        .map(|name| (closeness(name), name))
        .filter(|(closeness, name)| *closeness > 0.8 || slips(name) <= name.len().min(6) / 2)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.to_owned())
}
