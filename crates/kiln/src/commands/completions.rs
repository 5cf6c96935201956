//! `kiln completions`

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use kiln_model::Failure;

use crate::args::Cli;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  kiln completions bash > /etc/bash_completion.d/kiln
  kiln completions fish > ~/.config/fish/completions/kiln.fish";

/// Completions for a shell
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completions {
    /// Which shell
    shell: Shell,
}

pub(crate) fn run(args: &Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "kiln", &mut script);
    output::given(output::line(&String::from_utf8_lossy(&script)))
}
