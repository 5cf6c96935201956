//! `kiln schema`

use clap::Args;
use kiln_model::{ExitCode, Failure};

use crate::context::Context;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  kiln schema > kiln.schema.json
  and in kiln.toml, for editors that know the convention:
  #:schema ./kiln.schema.json";

/// The JSON Schema of kiln.toml, for editors
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Schema {}

pub(crate) fn run(_: &Schema, _: &Context) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(kiln_model::spec::schema())
        .map_err(|e| Failure::from_error(ExitCode::Bug, &e))?;
    output::given(output::line(&text))
}
