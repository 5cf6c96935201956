//! One command a file.

pub(crate) mod audit;
pub(crate) mod bake;
pub(crate) mod cancel;
pub(crate) mod commit;
pub(crate) mod completions;
pub(crate) mod deploy;
pub(crate) mod diff;
pub(crate) mod down;
pub(crate) mod edge;
pub(crate) mod exec;
pub(crate) mod export;
pub(crate) mod gc;
pub(crate) mod image;
pub(crate) mod import;
pub(crate) mod instances;
pub(crate) mod keeper;
pub(crate) mod lock;
pub(crate) mod log;
pub(crate) mod logs;
pub(crate) mod odds;
pub(crate) mod pause;
pub(crate) mod pin;
pub(crate) mod plan;
pub(crate) mod releases;
pub(crate) mod resume;
pub(crate) mod rollback;
pub(crate) mod schema;
pub(crate) mod secret;
pub(crate) mod serve;
mod shift;
pub(crate) mod status;
pub(crate) mod up;
pub(crate) mod verify;
pub(crate) mod wait;

use kiln_model::Failure;

use crate::args::Commands;
use crate::context::Context;

/// Does what was typed.
pub(crate) fn run(command: Commands, context: &Context) -> Result<(), Failure> {
    match command {
        Commands::Up(args) => up::run(&args, context),
        Commands::Serve(args) => serve::run(&args, context),
        Commands::Bake(args) => bake::run(&args, context),
        Commands::Lock(args) => lock::run(&args, context),
        Commands::Plan(args) => plan::run(&args, context),
        Commands::Deploy(args) => deploy::run(&args, context),
        Commands::Rollback(args) => rollback::run(args, context),
        Commands::Wait(args) => wait::run(&args, context),
        Commands::Cancel(args) => cancel::run(&args, context),
        Commands::Pause(args) => pause::run(&args, context),
        Commands::Resume(args) => resume::run(&args, context),
        Commands::Status(args) => status::run(&args, context),
        Commands::Releases(args) => releases::run(args, context),
        Commands::Pin(args) => pin::pin(args, context),
        Commands::Unpin(args) => pin::unpin(args, context),
        Commands::Image(args) => image::run(&args, context),
        Commands::Instances(args) => instances::run(&args, context),
        Commands::Diff(args) => diff::run(args, context),
        Commands::Commit(args) => commit::run(args, context),
        Commands::Exec(args) => exec::run(args, context),
        Commands::Log(args) => log::run(&args, context),
        Commands::Logs(args) => logs::run(args, context),
        Commands::Export(args) => export::run(args, context),
        Commands::Import(args) => import::run(&args, context),
        Commands::Gc(args) => gc::run(&args, context),
        Commands::Secret(args) => secret::run(args, context),
        Commands::Audit(args) => audit::run(&args, context),
        Commands::Verify(args) => verify::run(&args, context),
        Commands::Down(args) => down::run(&args, context),
        Commands::Odds(args) => odds::run(&args, context),
        Commands::Keeper(args) => keeper::run(&args, context),
        Commands::Edge(args) => edge::run(&args, context),
        Commands::Schema(args) => schema::run(&args, context),
        Commands::Completions(args) => completions::run(&args),
    }
}
