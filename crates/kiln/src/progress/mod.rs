//! What happens while a command runs, as people see it: bars on a terminal, a line for everything that is finished
//! elsewhere, nothing if they asked for quiet. Always on stderr; results are somebody else's.

mod bars;
mod lines;
mod words;

use std::io::IsTerminal;

use kiln_model::Stamped;

use crate::output::{self, Output};

pub(crate) use lines::Lines;
pub(crate) use words::output_line;

/// Somebody who is told what happens.
pub(crate) trait Reporter: Send {
    /// Something happened.
    fn event(&mut self, stamped: &Stamped);

    /// Something worth a line that is no event.
    fn say(&mut self, line: &str);

    /// Nothing more will happen: what is drawn and not finished goes.
    fn end(&mut self) {}
}

/// Who is told, given who looks on.
pub(crate) fn reporter(output: Output) -> Box<dyn Reporter> {
    if output.quiet {
        Box::new(Silent)
    } else if std::io::stderr().is_terminal() {
        Box::new(bars::Bars::new())
    } else {
        Box::new(Lines::new(std::io::stderr()))
    }
}

/// For programs that look on for as long as a host runs: every event as one line on stdout.
pub(crate) struct Stream;

impl Reporter for Stream {
    fn event(&mut self, stamped: &Stamped) {
        if let Ok(line) = output::json(stamped) {
            // With nobody left to read it, the work still goes on.
            let _ = output::line(&line);
        }
    }

    fn say(&mut self, line: &str) {
        output::aside(line);
    }
}

struct Silent;

impl Reporter for Silent {
    fn event(&mut self, _: &Stamped) {}

    fn say(&mut self, _: &str) {}
}
