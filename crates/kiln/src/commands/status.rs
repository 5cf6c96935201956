//! `kiln status`

use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use kiln_api::Client;
use kiln_model::{Answer, Command, Failure, StatusAnswer, TrafficReport};

use crate::args::Named;
use crate::context::{Context, unexpected};
use crate::live::{Live, Picture};
use crate::output::Output;
use crate::table::table;
use crate::words::{count, moment, release, shown};
use crate::{app, output};

const EXAMPLES: &str = "\
Examples:
  kiln status                    once
  kiln status --watch            again whenever something changes
  kiln status --json | jq -r .address";

/// What runs: the release that serves, its instances, and what is being waited for
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Status {
    #[command(flatten)]
    named: Named,
    /// Go on, and show what changes, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
}

/// What the edge had counted at a moment.
#[derive(Clone, Copy)]
struct Look {
    at: Instant,
    requests: u64,
    failed: u64,
}

impl Look {
    /// What came since `before`, in words; another edge begins to count anew.
    fn since(self, before: Self) -> String {
        let seconds = (self.at - before.at).as_secs_f64().max(0.001);
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        let (requests, failed) = (rate(self.requests, before.requests), rate(self.failed, before.failed));
        format!("\n{requests:.0} requests a second, {failed:.0} of them failed")
    }
}

/// How often a change is looked for.
const LOOK: Duration = Duration::from_secs(1);

#[expect(
    clippy::disallowed_methods,
    reason = "a host tells nobody outside of changes: they must be looked for"
)]
pub(crate) fn run(args: &Status, context: &Context) -> Result<(), Failure> {
    let command = Command::Status { app: app::name(&args.named) };
    if !args.watch {
        let status = ask(&command, &context.client()?)?;
        return context.output.result(&status, || words_for(&status));
    }
    // The same host all the time, whichever others come and go.
    let client = context.client()?;
    let mut live = Live::new();
    let mut before: Option<Look> = None;
    loop {
        let status = ask(&command, &client)?;
        let mut picture = picture(context.output)(&status);
        let look = Look { at: Instant::now(), requests: status.requests, failed: status.failed_requests };
        if let (false, Some(before)) = (context.output.json, before.replace(look)) {
            picture.text.push_str(&look.since(before));
        }
        if let Err(e) = live.show(picture) {
            return output::given(Err(e));
        }
        thread::sleep(LOOK);
    }
}

fn ask(command: &Command, client: &Client) -> Result<StatusAnswer, Failure> {
    match client.run(command, &mut |_| {})? {
        Answer::Status(status) => Ok(status),
        other => Err(unexpected(&other)),
    }
}

/// How a status is drawn for those who go on looking.
pub(crate) fn picture(output: Output) -> fn(&StatusAnswer) -> Picture {
    if output.json {
        |status| Picture { text: output::json(status).unwrap_or_default(), steady: steady(status) }
    } else {
        |status| Picture { text: words_for(status), steady: steady(status) }
    }
}

/// A status without its counts of requests: these change as long as anybody is served.
fn steady(status: &StatusAnswer) -> String {
    words_for(&StatusAnswer { requests: 0, in_flight: 0, ..status.clone() })
}

/// A status in words: what serves, the services, and what is out of the ordinary.
pub(crate) fn words_for(status: &StatusAnswer) -> String {
    let address = &status.address;
    let mut lines = vec![match (&status.app, &status.live) {
        (Some(app), Some(live)) => format!("{app} serves {} at {address}", live.short()),
        (Some(app), None) => format!("{app} has no release that serves; its address is {address}"),
        (None, _) => format!("nothing has been deployed; what is will be at {address}"),
    }];
    if let TrafficReport::Shifting { from, to, share } = &status.traffic {
        let share = (share * 100.0).round();
        lines.push(format!("traffic is shifting from {} to {}: {share}%", from.short(), to.short()));
    }
    if let Some(previous) = &status.previous {
        lines.push(format!("`kiln rollback` goes back to {}", previous.short()));
    }
    if !status.services.is_empty() {
        let rows: Vec<[String; 4]> = status.services.iter().map(row).collect();
        lines.push(table(["SERVICE", "READY", "RELEASE", "IMAGE"], &rows));
    }
    let (requests, flying) = (count(status.requests, "request"), status.in_flight);
    let failed = status.failed_requests;
    lines.push(format!("{requests}: {failed} that no instance answered to the end, {flying} in flight"));
    for waiting in &status.waiting {
        let until = waiting.until.map_or(String::new(), |until| format!(", until {} at most", moment(until)));
        lines.push(format!("under way: {} (since {}{until})", shown(&waiting.what), moment(waiting.since)));
    }
    lines.extend(status.warnings.iter().map(|warning| format!("warning: {warning}")));
    if let Some(failure) = &status.last_failure {
        lines.push(format!("the last deploy failed: {failure}"));
    }
    lines.join("\n")
}

fn row((name, service): (&kiln_model::ServiceName, &kiln_model::ServiceStatus)) -> [String; 4] {
    let ready = format!("{}/{}", service.instances.ready, service.instances.desired);
    [name.to_string(), ready, release(Some(&service.release)).to_owned(), service.image.short()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_what_came_since_the_last_look() {
        let then = Look { at: Instant::now(), requests: 100, failed: 1 };
        let now = Look { at: then.at + Duration::from_secs(2), requests: 300, failed: 5 };
        assert_eq!(now.since(then), "\n100 requests a second, 2 of them failed");
        let another = Look { requests: 10, failed: 0, ..now };
        assert_eq!(another.since(then), "\n0 requests a second, 0 of them failed");
    }
}
