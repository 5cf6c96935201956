//! Ctrl-C and its like.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::output;
use kiln_api::GivesUp;
use kiln_control::refused_by_system;
use kiln_model::Failure;
use tokio::signal::unix::{SignalKind, signal};

/// The exit code of a command that was ended by Ctrl-C, as shells know it.
pub(crate) const INTERRUPTED: i32 = 130;

/// What one of the signals that end a command means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Somebody wants it to end.
    Wanted,
    /// The terminal, or the connection to it, is lost.
    CutOff,
}

/// Calls `told` for every SIGINT, SIGTERM and SIGHUP from now on, on a thread of its own; they end nothing by
/// themselves any more.
pub(crate) fn watch(mut told: impl FnMut() + Send + 'static) -> Result<(), Failure> {
    watch_endings(move |_| told())
}

fn watch_endings(mut told: impl FnMut(Ending) + Send + 'static) -> Result<(), Failure> {
    let failed = |e: std::io::Error| refused_by_system("watch for Ctrl-C", &e);
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
                    _ = interrupt.recv() => told(Ending::Wanted),
                    _ = terminate.recv() => told(Ending::Wanted),
                    _ = hangup.recv() => told(Ending::CutOff),
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
    let failed =
        |e: std::io::Error| refused_by_system(&format!("watch for signal {}", kind.as_raw_value()), &e);
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

/// Says what a Ctrl-C means for a command that a host carries out, tells the host, and ends this process. Whoever is cut
/// off has not said that it is not wanted any more: the host notices, and goes on for whoever follows it.
pub(crate) fn give_up(
    saying: impl Fn() -> &'static str + Send + 'static,
    host: GivesUp,
) -> Result<GivenUp, Failure> {
    let given_up = Arc::new(AtomicBool::new(false));
    let told = given_up.clone();
    watch_endings(move |ending| {
        told.store(true, Ordering::Release);
        if ending == Ending::Wanted {
            // A host that cannot be told is on its way out, and notices.
            let _ = host.say();
        }
        leave(saying())
    })?;
    Ok(GivenUp(given_up))
}

/// Whether this process is about to end because of a Ctrl-C.
#[derive(Debug)]
pub(crate) struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    /// Returns unless it is. What the host answers to being told so is nobody's answer any more, and may come before the
    /// end does.
    pub(crate) fn wait_for_the_end(&self) {
        while self.0.load(Ordering::Acquire) {
            thread::park();
        }
    }
}

/// Ends this process because of a Ctrl-C: the exit code is the same for all commands.
#[expect(clippy::disallowed_methods, reason = "the user ends the process, in the middle of whatever it does")]
pub(crate) fn leave(saying: &str) -> ! {
    output::aside(saying);
    std::process::exit(INTERRUPTED)
}
