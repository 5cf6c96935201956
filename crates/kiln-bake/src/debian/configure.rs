//! Configuring packages: their own scripts, run by their own dpkg, inside the tree they are in.
//!
//! Scripts that dpkg runs before it unpacks a package (`preinst`) are run here, because everything is unpacked
//! already; `plan` says in which order.
//!
//! dpkg unpacks a package's control files into a directory of its own and runs its `preinst` from there, before it knows
//! the package by its name; debconf finds out by it whose questions are asked. So the same is there here.
//!
//! Nothing starts a service meanwhile (`policy-rc.d`), asks a question, or reaches a network.

use std::sync::{Mutex, PoisonError};

use kiln_model::Tree;
use kiln_store::Store;

use super::capture;
use super::package::Package;
use super::plan::{Doing, Plan};
use crate::order::Report;
use crate::report::Task;
use crate::sandbox::{Given, Job, Network, Outcome, Step, Workplace};
use crate::sandboxed::{self, SandboxError, Tail};

/// How dpkg begins to say that a package could not be configured.
const FAILED: &str = "dpkg: error processing package ";
/// Where the control files of the package are whose `preinst` runs.
const CONTROL_FILES: &str = "/var/lib/dpkg/tmp.ci";
const PREINST: &str = "preinst";
/// Whose script it is, to the script.
const OF_PACKAGE: &str = "DPKG_MAINTSCRIPT_PACKAGE";

/// Packages that were not configured.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// A step of it did not succeed.
    #[error("{} failed: `{program}` {how}", what(package))]
    Failed {
        /// The package whose script it was, as far as that shows.
        package: Option<String>,
        /// The program that did not succeed.
        program: String,
        /// How it ended.
        how: String,
        /// The end of what was printed until then.
        output: String,
    },
    /// dpkg said that all was well, and yet a package is not installed.
    #[error("configuring package `{package}` left it `{state}`")]
    Unfinished {
        /// The package.
        package: String,
        /// What dpkg says of it.
        state: String,
        /// The end of what was printed.
        output: String,
    },
    /// Nothing can be run in the packages' tree.
    #[error("could not run the packages' configuration")]
    Sandbox(#[from] SandboxError),
    /// A name that cannot be handed to a program.
    #[error("could not put together what configures the packages")]
    Step(#[source] std::io::Error),
    /// It was called off.
    #[error("called off")]
    Cancelled,
}

fn what(package: &Option<String>) -> String {
    match package {
        Some(package) => format!("configuring package `{package}`"),
        None => "configuring packages".into(),
    }
}

impl ConfigureError {
    /// The end of what the scripts printed.
    pub fn output(&self) -> Option<&str> {
        match self {
            Self::Failed { output, .. } | Self::Unfinished { output, .. } => Some(output),
            _ => None,
        }
    }
}

/// Packages and the tree that holds them.
pub(crate) struct Unpacked<'a> {
    /// Those to be configured.
    pub(crate) packages: &'a [Package<'a>],
    /// In which order.
    pub(crate) plan: &'a Plan,
    /// "Now".
    pub(crate) epoch: i64,
}

/// `tree` with what the `preinst` of the late packages wrote, whose files are not there yet.
pub(crate) fn before_their_files(
    unpacked: &Unpacked<'_>,
    tree: Tree,
    store: &Store,
    report: &dyn Report,
) -> Result<Tree, ConfigureError> {
    let steps = steps(unpacked, &unpacked.plan.before).map_err(ConfigureError::Step)?;
    written_by(&steps, &[], unpacked.epoch, tree, store, report)
}

/// `tree`, in which all packages are laid, with everything their configuration wrote.
pub(crate) fn configured(
    unpacked: &Unpacked<'_>,
    tree: Tree,
    store: &Store,
    report: &dyn Report,
) -> Result<Tree, ConfigureError> {
    let steps = steps(unpacked, &unpacked.plan.after).map_err(ConfigureError::Step)?;
    written_by(&steps, unpacked.packages, unpacked.epoch, tree, store, report)
}

/// `tree` with everything that `steps` write, after which `packages` are installed.
fn written_by(
    steps: &[Step],
    packages: &[Package<'_>],
    now: i64,
    tree: Tree,
    store: &Store,
    report: &dyn Report,
) -> Result<Tree, ConfigureError> {
    let task = Task::new(report, "configuring packages", "packages", Some(packages.len() as u64));
    let output = Mutex::new(Output::default());
    let mut hear = |piece: &[u8]| task.add(output.lock().unwrap_or_else(PoisonError::into_inner).hear(piece));
    let judge = |place: &Workplace, outcome| {
        judged(place, outcome, packages, steps, &output.lock().unwrap_or_else(PoisonError::into_inner))
    };
    let job = Job { steps, network: Network::Own, now };
    let tree = sandboxed::written_by(&job, tree, store, report, &mut hear, judge)?;
    task.finish();
    Ok(tree)
}

fn judged(
    place: &Workplace,
    outcome: Outcome,
    packages: &[Package<'_>],
    steps: &[Step],
    output: &Output,
) -> Result<(), ConfigureError> {
    match outcome {
        Outcome::Cancelled => Err(ConfigureError::Cancelled),
        Outcome::Failed { step, how } => Err(ConfigureError::Failed {
            package: output.culprit().or_else(|| steps[step].variable(OF_PACKAGE)),
            program: steps[step].program(),
            how,
            output: output.text(),
        }),
        Outcome::Done => capture::check_installed(place, packages)
            .map_err(|(package, state)| ConfigureError::Unfinished { package, state, output: output.text() }),
    }
}

fn steps(unpacked: &Unpacked<'_>, plan: &[Doing]) -> std::io::Result<Vec<Step>> {
    let (packages, epoch) = (unpacked.packages, unpacked.epoch);
    let step = |doing: &Doing| match doing {
        Doing::Preinst(i) => preinst(&packages[*i], epoch),
        Doing::ConfigureByForce(some) => dpkg(&["--force-depends"], packages, some, epoch),
        Doing::Configure(some) => dpkg(&[], packages, some, epoch),
        Doing::ConfigureTheRest => dpkg(&["--pending"], packages, &[], epoch),
    };
    plan.iter().map(step).collect()
}

fn dpkg(options: &[&str], packages: &[Package<'_>], some: &[usize], epoch: i64) -> std::io::Result<Step> {
    let names: Vec<String> = some.iter().map(|i| packages[*i].qualified_name()).collect();
    let mut argv = vec!["/usr/bin/dpkg", "--configure", "--force-unsafe-io"];
    argv.extend_from_slice(options);
    argv.extend(names.iter().map(String::as_str));
    Step::new(&argv, sandboxed::environment(epoch))
}

fn preinst(package: &Package<'_>, epoch: i64) -> std::io::Result<Step> {
    let of_dpkg = [
        (OF_PACKAGE, package.name()),
        ("DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT", "1"),
        ("DPKG_MAINTSCRIPT_ARCH", package.locked.architecture.as_str()),
        ("DPKG_MAINTSCRIPT_NAME", PREINST),
        ("DPKG_MAINTSCRIPT_DEBUG", "0"),
        ("DPKG_ADMINDIR", "/var/lib/dpkg"),
        ("DPKG_ROOT", ""),
    ];
    let of_dpkg = of_dpkg.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let environment = sandboxed::environment(epoch).into_iter().chain(of_dpkg);
    // dpkg sees to it that a script can be executed.
    let executable = |mode: u16| if mode & 0o555 == 0o555 { mode } else { 0o755 };
    let mode = |name: &str, mode| if name == PREINST { executable(mode) } else { mode };
    let files = package.control_files().map(|(name, m, bytes)| (name, mode(name, m), bytes));
    let control = ("control", 0o644, package.text.as_bytes());
    let given = Given::new(CONTROL_FILES, files.chain([control]))?;
    Ok(Step::new(&[&format!("{CONTROL_FILES}/{PREINST}"), "install"], environment)?.with(given))
}

/// What scripts print: counted for progress, its end kept for errors.
#[derive(Default)]
struct Output {
    kept: Tail,
    line: Vec<u8>,
}

impl Output {
    /// How many packages `piece` says are being set up.
    fn hear(&mut self, piece: &[u8]) -> u64 {
        self.kept.hear(piece);
        let mut set_up = 0;
        for byte in piece {
            match byte {
                b'\n' => {
                    set_up += u64::from(self.line.starts_with(b"Setting up "));
                    self.line.clear();
                }
                _ if self.line.len() < 64 => self.line.push(*byte),
                _ => {}
            }
        }
        set_up
    }

    /// What was kept, up to the first failure: dpkg goes on with other packages afterwards.
    fn text(&self) -> String {
        let text = self.kept.text();
        let end = text.find(FAILED).map(|at| {
            let lines = text[at..].match_indices('\n').take(2).last();
            lines.map_or(text.len(), |(n, _)| at + n)
        });
        text[..end.unwrap_or(text.len())].to_owned()
    }

    /// The package that dpkg names as the first it could not configure.
    fn culprit(&self) -> Option<String> {
        let text = self.text();
        let after = text.split(FAILED).nth(1)?;
        Some(after.split_whitespace().next()?.split(':').next()?.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_counted_and_its_end_kept() {
        let mut output = Output::default();
        assert_eq!(output.hear(b"Setting up libc6:amd64 (2.36) ...\nSetting "), 1);
        assert_eq!(output.hear(b"up a (1) ...\nx\n"), 1);
        output.hear(b"\ndpkg: error processing package nginx:amd64 (--configure):\n");
        assert_eq!(output.culprit().as_deref(), Some("nginx"));
    }
}
