//! On a terminal: a bar for every task under way, a line above them for everything that is finished.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use kiln_model::{Event, Progress, Stamped};

use super::Reporter;
use super::words::finished;
use crate::output;

pub(crate) struct Bars {
    screen: MultiProgress,
    tasks: BTreeMap<String, ProgressBar>,
}

const BYTES: &str = "  {spinner} {msg} {wide_bar:.cyan/dim} {bytes}/{total_bytes}";
const COUNTED: &str = "  {spinner} {msg} {wide_bar:.cyan/dim} {pos}/{len} {prefix}";
const OPEN: &str = "  {spinner} {msg} {prefix}";

impl Bars {
    pub(crate) fn new() -> Self {
        Self { screen: MultiProgress::new(), tasks: BTreeMap::new() }
    }

    /// The bar of a task, made if it is new.
    fn bar(&mut self, task: &str) -> &ProgressBar {
        let screen = &self.screen;
        self.tasks.entry(task.to_owned()).or_insert_with(|| {
            let bar = ProgressBar::no_length().with_style(style(OPEN)).with_message(task.to_owned());
            let bar = screen.add(bar);
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        })
    }

    fn progress(&mut self, progress: &Progress) {
        let bar = self.bar(&progress.task);
        match progress.total {
            Some(total) => {
                let is_bytes = progress.unit == "bytes";
                bar.set_style(style(if is_bytes { BYTES } else { COUNTED }));
                bar.set_prefix(progress.unit.clone());
                bar.set_length(total);
                bar.set_position(progress.done);
            }
            None if progress.done > 0 => bar.set_prefix(format!("{} {}", progress.done, progress.unit)),
            None => {}
        }
    }

    fn remove(&mut self, task: &str) {
        if let Some(bar) = self.tasks.remove(task) {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Reporter for Bars {
    fn event(&mut self, stamped: &Stamped) {
        let event = &stamped.event;
        match event {
            Event::Progress(progress) if progress.finished => self.remove(&progress.task),
            Event::Progress(progress) => self.progress(progress),
            Event::StepBegun { step } => drop(self.bar(step).clone()),
            Event::StepDone { step, .. } => self.remove(step),
            _ => {}
        }
        if let Some(line) = finished(event) {
            self.say(&line);
        }
    }

    fn say(&mut self, line: &str) {
        // Its own `println` fills the row with blanks and leaves the cursor there.
        self.screen.suspend(|| output::aside(&format!("  {line}")));
    }

    fn end(&mut self) {
        for bar in std::mem::take(&mut self.tasks).into_values() {
            bar.finish_and_clear();
        }
    }
}
