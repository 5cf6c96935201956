//! A picture of how things stand that is drawn again when they change: in place on a terminal, line by line
//! elsewhere.

use std::io::{self, IsTerminal, Write};

/// How things stand.
pub(crate) struct Picture {
    /// All of it.
    pub(crate) text: String,
    /// Without the figures that change all the time.
    pub(crate) steady: String,
}

pub(crate) struct Live {
    shown: String,
    steady: String,
    in_place: bool,
    out: Box<dyn Write>,
}

impl Live {
    /// On stdout.
    pub(crate) fn new() -> Self {
        Self {
            shown: String::new(),
            steady: String::new(),
            in_place: std::io::stdout().is_terminal(),
            out: Box::new(std::io::stdout()),
        }
    }

    /// Line by line on `out`.
    #[cfg(test)]
    pub(crate) fn plain(out: Box<dyn Write>) -> Self {
        Self { shown: String::new(), steady: String::new(), in_place: false, out }
    }

    /// Shows a picture, if it is not what is shown already. Where pictures come one below the other, one that
    /// differs only in what changes all the time is not worth another.
    pub(crate) fn show(&mut self, picture: Picture) -> io::Result<()> {
        let text = if self.in_place { cut(&picture.text, width()) } else { picture.text };
        let seen = if self.in_place { text == self.shown } else { picture.steady == self.steady };
        if seen {
            return Ok(());
        }
        self.steady = picture.steady;
        let erased = if self.in_place { erase(&self.shown) } else { String::new() };
        let written = writeln!(self.out, "{erased}{text}").and_then(|()| self.out.flush());
        self.shown = text;
        written
    }
}

/// How many columns the terminal has.
fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    size.map(|size| usize::from(size.ws_col)).ok().filter(|columns| *columns > 0).unwrap_or(80)
}

/// A line that wraps would take more rows than it counts for, and some would stay when it is erased.
fn cut(text: &str, columns: usize) -> String {
    let lines: Vec<String> = text.lines().map(|line| line.chars().take(columns).collect()).collect();
    lines.join("\n")
}

/// Up to where `shown` began, and nothing from there on.
fn erase(shown: &str) -> String {
    match shown.lines().count() {
        0 => String::new(),
        lines => format!("\x1b[{lines}F\x1b[0J"),
    }
}

#[cfg(test)]
mod tests {
    use super::{cut, erase};

    #[test]
    fn a_picture_takes_as_many_rows_as_it_has_lines() {
        assert_eq!(cut("größer als\nda", 6), "größer\nda");
        assert_eq!((erase("").as_str(), erase("a\nb").as_str()), ("", "\x1b[2F\x1b[0J"));
    }
}
