//! Without a terminal: one plain line for everything that is finished.

use std::io::Write;

use kiln_model::Stamped;

use super::Reporter;
use super::words::finished;

pub(crate) struct Lines<W> {
    out: W,
}

impl<W: Write + Send> Lines<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out }
    }
}

impl<W: Write + Send> Reporter for Lines<W> {
    fn event(&mut self, stamped: &Stamped) {
        if let Some(line) = finished(&stamped.event) {
            self.say(&line);
        }
    }

    fn say(&mut self, line: &str) {
        // With nobody left to read it, the work still goes on.
        let _ = writeln!(self.out, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::{BakedImage, Event, ImageDigest, Progress, Sha256, Timestamp};

    use super::*;

    fn progress(done: u64, finished: bool) -> Event {
        let task = "fetching packages".to_owned();
        Event::Progress(Progress { task, done, total: Some(2 << 20), unit: "bytes".into(), finished })
    }

    #[test]
    fn only_what_is_finished_gets_a_line() {
        let digest = ImageDigest(Sha256::of(b"abc"));
        let image = |reused| BakedImage {
            digest,
            bytes: 3 << 20,
            reused,
            packages: 113,
            millis: 4200,
            left_out: Vec::new(),
        };
        let step = "switch all traffic to r-0123".to_owned();
        let events = [
            progress(1 << 20, false),
            progress(2 << 20, true),
            Event::Baked { name: "web".into(), image: image(false) },
            Event::Baked { name: "web".into(), image: image(true) },
            Event::StepBegun { step: step.clone() },
            Event::StepDone { step, millis: 12 },
        ];
        let mut written = Vec::new();
        let mut lines = Lines::new(&mut written);
        events.into_iter().for_each(|event| lines.event(&Stamped { at: Timestamp(0), event }));
        insta::assert_snapshot!(String::from_utf8(written).unwrap(), @r"
            fetching packages: 2.0 MiB
            image web is baked: ba7816bf8f01, 113 packages, 3.0 MiB (4.2s)
            image web is unchanged: ba7816bf8f01, 113 packages, 3.0 MiB
            switch all traffic to r-0123 (12ms)
            ");
    }
}
