//! A keeper for the tests of this crate: what the hidden subcommand of `kiln` is for everybody else.
//!
//! Arguments: the run directory, the output directory, and the user of the edge if there is one.

use std::path::PathBuf;
use std::process::ExitCode;

use kiln_engine::embedded::keeper::{self, Config};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let mut path = || arguments.next().map(PathBuf::from).unwrap_or_default();
    let (run_dir, output_dir) = (path(), path());
    let edge_uid = arguments.next().and_then(|uid| uid.to_str()?.parse().ok());
    match keeper::run(&Config { run_dir, output_dir, edge_uid, times: None }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let cause = std::error::Error::source(&e).map(|s| format!(": {s}")).unwrap_or_default();
            eprintln!("{e}{cause}");
            ExitCode::FAILURE
        }
    }
}
