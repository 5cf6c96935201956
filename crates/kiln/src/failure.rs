//! Failures, shown: `error: …`, its causes, `hint: …`; a spec's problems with the line and a caret under the place.

use std::io::Write;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use anstyle::{AnsiColor, Style};
use kiln_model::{Failure, SpecProblem};
use serde_json::json;

use crate::context::Context;
use crate::output;
use crate::words::shown;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();

/// Tells people, and programs on stdout unless they were told in the course of a stream.
pub(crate) fn print(failure: &Failure, context: &Context) {
    tell(failure);
    if context.output.json && !context.told.get() {
        let _ = output::line(&json!({ "failure": failure }).to_string());
    }
}

/// Tells people on stderr.
pub(crate) fn tell(failure: &Failure) {
    // With nobody left to read it, the exit code still tells.
    let _ = anstream::stderr().lock().write_all(words(failure).as_bytes());
}

/// A failure in words, with colours.
fn words(failure: &Failure) -> String {
    let mut text = format!("{ERROR}error{ERROR:#}: {}\n", failure.message);
    if failure.problems.is_empty() {
        for cause in &failure.causes {
            // The last words of an instance may be among them.
            let lines: Vec<String> = cause.trim_end().lines().map(shown).collect();
            text.push_str(&format!("  because: {}\n", lines.join("\n    ")));
        }
    }
    for problem in &failure.problems {
        text.push_str(&format!("\n{}\n", snippet(problem)));
    }
    if let Some(hint) = &failure.hint {
        text.push_str(&format!("{HINT}hint{HINT:#}: {hint}\n"));
    }
    text
}

/// A problem of a spec, with its line and what would be right.
fn snippet(problem: &SpecProblem) -> String {
    let mark = AnnotationKind::Primary.span(problem.span.clone());
    let mark = match &problem.expected {
        Some(expected) => mark.label(format!("expected {expected}")),
        None => mark,
    };
    let source = Snippet::source(&problem.source)
        .line_start(problem.line as usize)
        .path(&problem.file)
        .annotation(mark);
    let mut group = Level::ERROR.no_name().primary_title(&problem.message).element(source);
    if let Some(nearest) = &problem.nearest {
        group = group.element(Level::HELP.message(format!("did you mean `{nearest}`?")));
    }
    Renderer::styled().render(&[group])
}
