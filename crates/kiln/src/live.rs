//! A picture of how things stand that is drawn again when they change: in place on a terminal, line by line
//! elsewhere.

use std::io::{IsTerminal, Write};

use crate::output::Closed;

pub(crate) struct Live {
    shown: String,
    in_place: bool,
    out: Box<dyn Write>,
}

impl Live {
    /// On stdout.
    pub(crate) fn new() -> Self {
        Self {
            shown: String::new(),
            in_place: std::io::stdout().is_terminal(),
            out: Box::new(std::io::stdout()),
        }
    }

    /// Line by line on `out`.
    pub(crate) fn plain(out: Box<dyn Write>) -> Self {
        Self { shown: String::new(), in_place: false, out }
    }

    /// Shows `text`, if it is not what is shown already.
    pub(crate) fn show(&mut self, text: &str) -> Result<(), Closed> {
        if text == self.shown {
            return Ok(());
        }
        let erased = if self.in_place { erase(&self.shown) } else { String::new() };
        let written = writeln!(self.out, "{erased}{text}").and_then(|()| self.out.flush());
        text.clone_into(&mut self.shown);
        written.map_err(|_| Closed)
    }
}

/// Up to where `shown` began, and nothing from there on.
fn erase(shown: &str) -> String {
    match shown.lines().count() {
        0 => String::new(),
        lines => format!("\x1b[{lines}F\x1b[0J"),
    }
}
