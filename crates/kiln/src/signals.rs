//! Ctrl-C and its like.

use std::thread;

use crate::output;
use kiln_model::{ExitCode, Failure};
use tokio::signal::unix::{SignalKind, signal};

/// The exit code of a command that was ended by Ctrl-C, as shells know it.
pub(crate) const INTERRUPTED: i32 = 130;

/// Calls `told` for every SIGINT, SIGTERM and SIGHUP from now on, on a thread of its own; they end nothing by
/// themselves any more.
pub(crate) fn watch(mut told: impl FnMut() + Send + 'static) -> Result<(), Failure> {
    let failed =
        |e: std::io::Error| Failure::new(ExitCode::Host, "could not watch for Ctrl-C").because(e.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let signals = {
        let _on = runtime.enter();
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal)
    };
    let [interrupt, terminate, hangup] = signals;
    let (mut interrupt, mut terminate, mut hangup) =
        (interrupt.map_err(failed)?, terminate.map_err(failed)?, hangup.map_err(failed)?);
    let watching = move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => told(),
                    _ = terminate.recv() => told(),
                    _ = hangup.recv() => told(),
                }
            }
        });
    };
    thread::Builder::new().name("signals".into()).spawn(watching).map(drop).map_err(failed)
}

/// Calls `told` for every SIGUSR2 from now on, on a thread of its own: it asks for a newer edge.
pub(crate) fn on_renewal(told: impl FnMut() + Send + 'static) -> Result<(), Failure> {
    each(SignalKind::user_defined2(), "renewals", told)
}

/// Calls `told` whenever the terminal has another size, on a thread of its own.
pub(crate) fn watch_size(told: impl FnMut() + Send + 'static) -> Result<(), Failure> {
    each(SignalKind::window_change(), "size", told)
}

fn each(kind: SignalKind, name: &str, mut told: impl FnMut() + Send + 'static) -> Result<(), Failure> {
    let failed = |e: std::io::Error| {
        Failure::new(ExitCode::Host, format!("could not watch for signal {}", kind.as_raw_value()))
            .because(e.to_string())
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let mut signals = {
        let _on = runtime.enter();
        signal(kind).map_err(failed)?
    };
    let watching = move || {
        while runtime.block_on(signals.recv()).is_some() {
            told();
        }
    };
    thread::Builder::new().name(name.into()).spawn(watching).map(drop).map_err(failed)
}

/// Says what a Ctrl-C means for a command that a host carries out, and ends this process: the host notices.
pub(crate) fn give_up(saying: &'static str) -> Result<(), Failure> {
    watch(move || leave(saying))
}

/// Ends this process because of a Ctrl-C: the exit code is the same for all commands.
#[expect(clippy::disallowed_methods, reason = "the user ends the process, in the middle of whatever it does")]
pub(crate) fn leave(saying: &str) -> ! {
    output::aside(saying);
    std::process::exit(INTERRUPTED)
}
