//! `kiln up`

use clap::Args;
use kiln_model::{Answer, Command, Failure};

use super::{shift, status};
use crate::args::{Directory, EdgeArgs};
use crate::context::{Context, require_root, unexpected};
use crate::foreground::{Already, Ended};
use crate::live::Live;
use crate::local::Local;
use crate::progress::{self, Reporter};
use crate::{app, failure, output};

const EXAMPLES: &str = "\
Examples:
  kiln up examples/hello                     then open http://127.0.0.1:8080
  kiln up --listen 0.0.0.0:80                for others, too
  kiln deploy, kiln rollback, kiln status    work beside it, from another terminal";

/// The whole thing in the foreground: a host of its own, bake, check, deploy, live status; Ctrl-C removes all of it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Up {
    #[command(flatten)]
    directory: Directory,
    #[command(flatten)]
    edge: EdgeArgs,
}

const IMPATIENT: &str =
    "still taking everything down; this is not interrupted, so that nothing is left behind";

pub(crate) fn run(args: &Up, context: &Context) -> Result<(), Failure> {
    let dir = app::checked_directory(&args.directory.directory)?;
    require_root("kiln up")?;
    let root = context.root(Some(dir.join(".kiln")));
    let reporter: Box<dyn Reporter> = match context.output.json {
        true => Box::new(progress::Stream),
        false => progress::reporter(context.output),
    };
    let mut local = Local::start(context, root, &args.edge, reporter)?;
    let deployed = local.foreground.run(Command::Deploy { dir, locked: false, supersede: false }, IMPATIENT);
    let (result, already) = match deployed {
        Ended { result: Ok(Answer::Deployed(deployed)), interrupted: false } => {
            if !context.output.json {
                let _ = output::line(&format!("{}\nCtrl-C removes all of it", shift::summary(&deployed)));
            }
            (Ok(()), local.foreground.watch(Live::new(), status::picture(context.output)))
        }
        Ended { result: Ok(Answer::Deployed(_)), .. } => (Ok(()), Already::Serving),
        Ended { result: Ok(other), .. } => (Err(unexpected(&other)), Already::Serving),
        Ended { result: Err(failure), .. } => (Err(failure), Already::Serving),
    };
    take_down(local, already, result)
}

/// Leaves nothing behind, and says so; `result` is how it went before.
fn take_down(mut local: Local, already: Already, result: Result<(), Failure>) -> Result<(), Failure> {
    if already == Already::Down {
        local.leave();
        output::aside("everything is down, as `kiln down` asked for");
        return result;
    }
    output::aside("taking everything down");
    let down = local.foreground.run(Command::Down, IMPATIENT).result;
    local.leave();
    match (result, down) {
        (result, Ok(answer)) => {
            if let Answer::Unrecorded(why) = answer {
                output::warn(&[super::down::warning(&why)]);
            }
            output::aside("everything is down");
            result
        }
        (Ok(()), Err(down)) => Err(down),
        (Err(first), Err(down)) => {
            // The one that came first decides the exit code; the other is told as well.
            failure::tell(&down);
            Err(first)
        }
    }
}
