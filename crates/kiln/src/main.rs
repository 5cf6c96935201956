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

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let context = context::Context::new(cli.global);
    match commands::run(cli.command, &context) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure::print(&failure, &context);
            ExitCode::from(failure.code as u8)
        }
    }
}
