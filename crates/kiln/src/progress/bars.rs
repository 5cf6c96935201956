//! On a terminal: a bar for every task under way, a line above them for everything that is finished.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use kiln_model::{Event, Progress};

use super::Reporter;
use super::words::finished;

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
            let bar = screen.add(ProgressBar::no_length());
            bar.set_message(task.to_owned());
            bar.set_style(style(OPEN));
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
    fn event(&mut self, event: &Event) {
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
        // A terminal that went away takes nothing with it but its lines.
        let _ = self.screen.println(format!("  {line}"));
    }

    fn end(&mut self) {
        for bar in std::mem::take(&mut self.tasks).into_values() {
            bar.finish_and_clear();
        }
    }
}
