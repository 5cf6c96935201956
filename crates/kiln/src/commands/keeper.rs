//! `kiln keeper`, which `kiln serve` and `kiln up` start.

use clap::Args;
use kiln_control::with_remedy;
use kiln_engine::embedded::keeper::{self, Config, KeeperError};
use kiln_model::{ExitCode, Failure};

use super::edge::USER;
use crate::context::Context;

/// The parent of all instances of a host; started by `kiln serve`, not by hand
#[derive(Debug, Args)]
pub(crate) struct Keeper {}

pub(crate) fn run(_: &Keeper, context: &Context) -> Result<(), Failure> {
    let root = context.root(None);
    let (run_dir, output_dir) = (root.join("run"), root.join("output"));
    let config = Config { run_dir, output_dir, edge_uid: Some(USER), times: None };
    keeper::run(&config).map_err(|error| {
        let of = |code| Failure::from_error(code, &error);
        match &error {
            KeeperError::Unsupported(_) => {
                of(ExitCode::Host).hint("Kiln's instances need a newer or otherwise built kernel")
            }
            KeeperError::AlreadyRunning { .. } => of(ExitCode::Busy),
            KeeperError::System { .. } => with_remedy(of(ExitCode::Host), &error),
        }
    })
}
