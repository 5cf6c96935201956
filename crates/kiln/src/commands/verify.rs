//! `kiln verify`

use clap::Args;
use kiln_model::{Answer, Command, ExitCode, Failure, VerifyAnswer};

use crate::context::{Context, unexpected};
use crate::{offline, output, words};

const EXAMPLES: &str = "\
Examples:
  kiln verify             the host's store and every running instance; without a host, the store in --root
  kiln verify --repair    remove what is damaged: the next bake makes it again";

/// Whether everything is what it should be: hashes the store again, compares every instance with its release
///
/// Of each running instance the root file system is compared with its image (names, kinds, modes, owners, times, sizes),
/// its mounts, user and rights with its release. What differs is named, and the exit code is 9.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Verify {
    /// Remove damaged objects, images and packages, so that the next bake makes them again
    #[arg(long)]
    repair: bool,
}

pub(crate) fn run(args: &Verify, context: &Context) -> Result<(), Failure> {
    let answer = match context.ask(&Command::Verify { repair: args.repair }) {
        Ok(Answer::Verify(answer)) => answer,
        Ok(other) => return Err(unexpected(&other)),
        Err(no_host) if no_host.code == ExitCode::Host && context.named_root().join("version").is_file() => {
            output::aside("no host runs here: only its store is looked at");
            kiln_control::verify_store(&offline::store(&context.named_root())?, args.repair)?
        }
        Err(failure) => return Err(failure),
    };
    context.output.result(&answer, || words_for(&answer))?;
    if answer.is_well() {
        return Ok(());
    }
    // What is wrong has been told in full, to people and to programs.
    context.told.set(true);
    Err(Failure::new(ExitCode::Host, "not everything is what it should be").hint(hint(&answer, args.repair)))
}

fn words_for(answer: &VerifyAnswer) -> String {
    let mut lines: Vec<String> =
        answer.damage.iter().map(|d| format!("{}: {}", d.path.display(), d.problem)).collect();
    lines.extend(answer.removed.iter().map(|path| format!("removed {}", path.display())));
    for instance in &answer.instances {
        let differs = instance.differs.iter();
        lines.extend(differs.map(|what| format!("instance {} of {}: {what}", instance.id, instance.service)));
    }
    let well = answer.instances.iter().filter(|i| i.differs.is_empty()).count();
    lines.push(format!(
        "{} looked at again, {} damaged; {} compared, {} as released",
        words::count(answer.looked_at, "file"),
        answer.damage.len(),
        words::count(answer.instances.len() as u64, "instance"),
        well,
    ));
    lines.join("\n")
}

fn hint(answer: &VerifyAnswer, repaired: bool) -> &'static str {
    match (answer.damage.is_empty(), repaired) {
        (true, _) => "an instance that differs is replaced when it ends: `kiln instances` has its process",
        (false, true) => "run `kiln bake` for what was removed to be made again, then `kiln verify`",
        (false, false) => {
            "`kiln verify --repair` removes what is damaged, and the next `kiln bake` makes it again"
        }
    }
}
