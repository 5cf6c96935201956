//! What deploy and rollback have in common: a stream of events that ends with the truth.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_model::{Answer, Command, DeployedAnswer, Event, Failure, Stamped, Timestamp};

use crate::context::{Context, unexpected};
use crate::output;
use crate::progress::reporter;
use crate::{signals, words};

/// Has a host carry out `command`, shows how it goes, and says how it ended.
pub(crate) fn run(command: &Command, context: &Context) -> Result<(), Failure> {
    let result = carry_out(command, context);
    if let Err(failure) = &result {
        tell_programs(failure, context);
    }
    let deployed = result?;
    if !context.output.json {
        let _ = output::line(&summary(&deployed));
    }
    output::warn(&deployed.warnings);
    Ok(())
}

fn carry_out(command: &Command, context: &Context) -> Result<DeployedAnswer, Failure> {
    let client = context.client()?;
    let serves = Arc::new(AtomicBool::new(false));
    let told = serves.clone();
    let saying = move || match told.load(Ordering::Relaxed) {
        true => "the new release serves and stays; what is left to do goes on (`kiln wait` follows it)",
        false => "given up: the host throws away what does not serve yet",
    };
    let given_up = signals::give_up(saying, client.gives_up())?;
    let mut reporter = reporter(context.output);
    let answer = client.run(command, &mut |stamped| {
        if context.output.json {
            stream(&stamped, context);
        }
        if matches!(stamped.event, Event::Switched { .. }) {
            serves.store(true, Ordering::Relaxed);
        }
        reporter.event(&stamped);
    });
    given_up.wait_for_the_end();
    reporter.end();
    match answer? {
        Answer::Deployed(deployed) => Ok(deployed),
        other => Err(unexpected(&other)),
    }
}

/// One event as one line. What a stream ends with is on it even if nobody reads on.
fn stream(stamped: &Stamped, context: &Context) {
    if matches!(stamped.event, Event::Failed { .. }) {
        context.told.set(true);
    }
    if let Ok(line) = output::json(stamped) {
        let _ = output::line(&line);
    }
}

/// Ends the stream with a failure that the host did not tell of, because it came before it was asked or it left.
fn tell_programs(failure: &Failure, context: &Context) {
    if !context.output.json || context.told.get() {
        return;
    }
    let sentence = std::iter::once(&failure.message).chain(&failure.causes);
    let cause = sentence.cloned().collect::<Vec<_>>().join(": ");
    let (step, failure) = ("ask the host".to_owned(), failure.clone());
    let event = Event::Failed { release: None, serving: None, step, cause, failure };
    stream(&Stamped { at: now(), event }, context);
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The end of a deploy or rollback that went well.
pub(crate) fn summary(deployed: &DeployedAnswer) -> String {
    let DeployedAnswer { release, address, unchanged, switched_millis, .. } = deployed;
    if *unchanged {
        format!("{} serves already at {address}; nothing to do", release.short())
    } else {
        format!("{} serves at {address}, switched after {}", release.short(), words::span(*switched_millis))
    }
}
