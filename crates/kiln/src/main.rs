//! The `kiln` command: arguments, wiring, printing, exit codes. Whatever it does lowers into one
//! [`kiln_model::Command`] that a host runs; this is the only crate that prints or exits.
//!
//! ```text
//! args ── context ── commands/* ── host over its socket, or one of our own in the foreground
//!                        │
//!                   progress/*, output, table, failure: what people and programs get to see
//! ```

mod app;
mod args;
mod commands;
mod context;
mod failure;
mod foreground;
mod live;
mod local;
mod offline;
mod output;
mod progress;
mod signals;
mod table;
mod words;

use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

fn main() -> ExitCode {
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error),
    };
    let context = context::Context::new(cli.global);
    match commands::run(cli.command, &context) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure::print(&failure, &context);
            ExitCode::from(failure.code as u8)
        }
    }
}

/// What was typed is no command, or asks for help: people are told as ever, and programs that asked for JSON as of any
/// failure.
fn not_understood(error: &clap::Error) -> ExitCode {
    // With nobody left to read it, the exit code still tells.
    let _ = error.print();
    let wants_json = std::env::args_os().any(|argument| argument == "--json");
    if error.use_stderr() && wants_json {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let failure = kiln_model::Failure::new(kiln_model::ExitCode::Usage, message);
        let _ = output::line(&json!({ "failure": failure }).to_string());
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(kiln_model::ExitCode::Usage as u8))
}
