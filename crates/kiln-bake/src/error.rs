//! What keeps an image from being baked, and what that means to who asked for it.

use std::io;
use std::path::{Path, PathBuf};

use kiln_model::{BadLock, ExitCode, Failure, ImageName, TreeError};
use kiln_store::{Damage, StoreError, has_no_space};

use crate::accounts::AccountError;
use crate::build::BuildError;
use crate::debian::archive::ArchiveError;
use crate::debian::assemble::AssembleError;
use crate::debian::configure::ConfigureError;
use crate::debian::deb::DebError;
use crate::debian::package::Impostor;
use crate::debian::resolver::Unresolvable;
use crate::debian::sources::SourcesError;
use crate::export::ExportError;
use crate::fetch::FetchError;
use crate::files::FilesError;
use crate::machine_own::MachineOwn;
use crate::oci::OciError;
use crate::order::BakeOrder;
use crate::sandboxed::SandboxError;
use crate::users::UserError;

/// A lock that does not answer an order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LockProblem {
    /// It does not know the image.
    #[error("kiln.lock has no entry for it")]
    Missing,
    /// It answers another request.
    #[error("kiln.lock answers an earlier form of its spec")]
    Stale,
    /// It names a package for other machines, as earlier versions of Kiln could choose one.
    #[error("kiln.lock names `{package}` for {architecture}, and the image is for {wanted}")]
    Foreign {
        /// The package.
        package: String,
        /// What it is for.
        architecture: String,
        /// What the image is for.
        wanted: String,
    },
}

/// An image that was not baked, or a lock that was not made. Nothing half-done is left behind.
#[derive(Debug, thiserror::Error)]
pub enum BakeError {
    /// It was called off.
    #[error("called off")]
    Cancelled,
    /// The lock file cannot be used.
    #[error("could not use the lock {}", path.display())]
    BadLock {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: BadLock,
    },
    /// The lock does not answer the order.
    #[error("image `{image}` cannot be baked from its lock")]
    Lock {
        /// The image.
        image: ImageName,
        /// Why not.
        #[source]
        problem: LockProblem,
    },
    /// Packages without a base that could hold them.
    #[error("image `{0}` is made from scratch, and packages need a Debian base")]
    ScratchWithPackages(ImageName),
    /// The archive's indexes cannot be used.
    #[error(transparent)]
    Archive(ArchiveError),
    /// The packages asked for cannot be had together.
    #[error("the packages of image `{image}` cannot be resolved")]
    Unresolvable {
        /// The image.
        image: ImageName,
        /// Why not.
        source: Unresolvable,
    },
    /// A package cannot be fetched.
    #[error("could not fetch package `{package}`")]
    Fetch {
        /// The package.
        package: String,
        /// Why not.
        source: FetchError,
    },
    /// A package comes from a suite that has no source any more.
    #[error("package `{package}` is locked from `{suite}`, and no source of that suite is known")]
    NoSourceOfPackage {
        /// The package.
        package: String,
        /// The suite.
        suite: String,
    },
    /// A package was in the store a moment ago.
    #[error("package `{0}` has gone from the store while it was needed")]
    PackageGone(String),
    /// A package cannot be unpacked.
    #[error("could not unpack package `{package}`")]
    Deb {
        /// The package.
        package: String,
        /// Why not.
        source: DebError,
    },
    /// A package is not the one that is locked.
    #[error("a package is not the one in the lock")]
    Impostor(#[from] Impostor),
    /// Packages do not fit together.
    #[error("could not put the packages together")]
    Assemble(#[from] AssembleError),
    /// Packages were not configured.
    #[error(transparent)]
    Configure(ConfigureError),
    /// The project's files cannot be added.
    #[error("could not add files to image `{image}`")]
    Files {
        /// The image.
        image: ImageName,
        /// Why not.
        source: FilesError,
    },
    /// A user of the spec cannot be added.
    #[error("could not add users to image `{image}`")]
    Account {
        /// The image.
        image: ImageName,
        /// Why not.
        source: AccountError,
    },
    /// A directory or link of the spec cannot be made.
    #[error("image `{image}` cannot have {path}: {problem}")]
    Place {
        /// The image.
        image: ImageName,
        /// The path.
        path: String,
        /// Why not.
        problem: String,
    },
    /// It would hold what belongs to one machine.
    #[error("image `{image}` cannot be baked")]
    MachineOwn {
        /// The image.
        image: ImageName,
        /// What that is.
        source: MachineOwn,
    },
    /// A build step failed.
    #[error(transparent)]
    Build(BuildError),
    /// The OCI image an image starts from cannot be used.
    #[error(transparent)]
    Oci(Box<OciError>),
    /// The handmade image an image starts from is not there.
    #[error(
        "image `{image}` starts from `{from}`, and this host has no handmade image of that name and content"
    )]
    HandmadeGone {
        /// The image.
        image: ImageName,
        /// What it starts from.
        from: String,
    },
    /// The handmade image an image starts from cannot be read.
    #[error("the handmade image that `{image}` starts from cannot be read")]
    HandmadeUnreadable {
        /// The image.
        image: ImageName,
        /// Why not.
        source: ExportError,
    },
    /// Neither the spec nor the OCI image says what is to be run.
    #[error("neither the spec nor the OCI image that `{0}` starts from says what it runs")]
    NoProgram(ImageName),
    /// A user of the spec, or its own, is none that it can have.
    #[error("image `{image}` has no such user")]
    User {
        /// The image.
        image: ImageName,
        /// Which.
        source: UserError,
    },
    /// The program to run is not in the image.
    #[error("image `{image}` has no program {program}{hint}")]
    Program {
        /// The image.
        image: ImageName,
        /// The program.
        program: String,
        /// Programs that may have been meant, or nothing.
        hint: String,
    },
    /// The program to run is in the image, and nobody may execute it.
    #[error("image `{image}` has {program}, and nobody may execute it: {why}")]
    NotExecutable {
        /// The image.
        image: ImageName,
        /// The program.
        program: String,
        /// For what it is, or its mode is.
        why: String,
    },
    /// A path that no image can have.
    #[error("the image would not be a filesystem")]
    Tree(#[from] TreeError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system refused.
    #[error("could not {attempted} {}", path.display())]
    Io {
        /// What was attempted.
        attempted: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

// Calling work off is one thing, wherever it was noticed.
impl From<ArchiveError> for BakeError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Fetch { source: FetchError::Cancelled, .. } => Self::Cancelled,
            error => Self::Archive(error),
        }
    }
}

impl From<ConfigureError> for BakeError {
    fn from(error: ConfigureError) -> Self {
        match error {
            ConfigureError::Cancelled => Self::Cancelled,
            error => Self::Configure(error),
        }
    }
}

impl From<BuildError> for BakeError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Cancelled => Self::Cancelled,
            error => Self::Build(error),
        }
    }
}

impl From<OciError> for BakeError {
    fn from(error: OciError) -> Self {
        match error {
            OciError::Cancelled => Self::Cancelled,
            error => Self::Oci(Box::new(error)),
        }
    }
}

impl BakeError {
    pub(crate) fn io(attempted: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { attempted, path: path.into(), source }
    }

    /// Of the files of `order`.
    pub(crate) fn of_files(order: &BakeOrder, error: FilesError) -> Self {
        match error {
            FilesError::Cancelled => Self::Cancelled,
            source => Self::Files { image: order.image.clone(), source },
        }
    }

    /// The part of the store that is damaged, if that is behind it and a further attempt makes it again. A handmade image
    /// is never made again.
    pub(crate) fn damage(&self) -> Option<Damage> {
        let error = match self {
            Self::Store(error)
            | Self::Assemble(AssembleError::Store(error))
            | Self::Configure(ConfigureError::Sandbox(SandboxError::Store(error)))
            | Self::Account { source: AccountError::Store(error), .. }
            | Self::Build(BuildError::Store(error) | BuildError::Sandbox(SandboxError::Store(error))) => {
                error
            }
            Self::Oci(error) => error.store()?,
            _ => return None,
        };
        match error {
            StoreError::Damaged { path, problem } => {
                Some(Damage { path: path.clone(), problem: problem.clone() })
            }
            _ => None,
        }
    }

    fn exit_code(&self) -> ExitCode {
        if has_no_space(self) {
            return ExitCode::Host;
        }
        match self {
            Self::BadLock { .. } | Self::Lock { .. } | Self::ScratchWithPackages(_) => ExitCode::Spec,
            Self::Archive(ArchiveError::Sources(SourcesError::Mirror(_))) => ExitCode::Spec,
            Self::Configure(ConfigureError::Sandbox(e)) if e.is_the_hosts() => ExitCode::Host,
            Self::Build(BuildError::Sandbox(e)) if e.is_the_hosts() => ExitCode::Host,
            Self::NoProgram(_) => ExitCode::Spec,
            Self::Cancelled
            | Self::Archive(_)
            | Self::Unresolvable { .. }
            | Self::Fetch { .. }
            | Self::NoSourceOfPackage { .. }
            | Self::PackageGone(_)
            | Self::Deb { .. }
            | Self::Impostor(_)
            | Self::Assemble(_)
            | Self::Configure(_)
            | Self::Files { .. }
            | Self::Account { .. }
            | Self::Place { .. }
            | Self::MachineOwn { .. }
            | Self::Build(_)
            | Self::Oci(_)
            | Self::User { .. }
            | Self::HandmadeGone { .. }
            | Self::HandmadeUnreadable { .. }
            | Self::Program { .. }
            | Self::NotExecutable { .. }
            | Self::Tree(_)
            | Self::Store(_)
            | Self::Io { .. } => ExitCode::Bake,
        }
    }

    fn hint(&self) -> Option<String> {
        if has_no_space(self) {
            return Some(StoreError::ON_NO_SPACE.into());
        }
        let hint = match self {
            Self::BadLock { .. } => {
                "restore kiln.lock from version control, or delete it and run `kiln lock`"
            }
            Self::Lock { problem: LockProblem::Foreign { .. }, .. } => {
                "run `kiln lock --update`, which chooses packages of this architecture, and commit kiln.lock"
            }
            Self::Lock { .. } => "run `kiln lock`, and commit kiln.lock",
            Self::ScratchWithPackages(_) => "write `from = \"debian:bookworm\"`, or leave `packages` out",
            Self::Archive(ArchiveError::Sources(SourcesError::None { .. })) => {
                "add to kiln.toml:\n[sources.debian]\nmirror = \"http://your.mirror.example/debian\""
            }
            Self::Archive(ArchiveError::Fetch { .. }) => {
                "check the mirror; what kiln.lock pins already needs no index"
            }
            Self::Archive(ArchiveError::Release { .. }) => {
                "the mirror may be out of date; to use an expired index all the same, say so in kiln.toml or apt's \
                 configuration (Acquire::Check-Valid-Until)"
            }
            Self::Unresolvable { .. } => "change `packages` in kiln.toml",
            Self::Fetch { source: FetchError::NotFound { .. }, .. } => {
                "the mirror has dropped this version: run `kiln lock --update`"
            }
            Self::Fetch { .. } | Self::NoSourceOfPackage { .. } => {
                "locked packages that are in the store already need no network; the others need a mirror that answers"
            }
            Self::HandmadeGone { .. } => {
                "`kiln image list` shows which there are, `kiln commit` makes one, and `kiln lock --update` takes the one \
                 that has the name now"
            }
            Self::NoProgram(_) => "add `run` to the image in kiln.toml",
            Self::NotExecutable { .. } => {
                "`run` begins with a file; its mode is that of where it comes from, or as in kiln.toml: `{ src = …, dst = …, mode = \"0755\" }`"
            }
            Self::MachineOwn { source, .. } => return Some(source.hint().into()),
            Self::Oci(error) => return error.hint(),
            Self::Build(error) => {
                return error.output().map(|output| match last_lines(output, 30).as_str() {
                    "" => "it printed nothing".to_owned(),
                    lines => format!("it printed:\n{lines}"),
                });
            }
            Self::Configure(error) => {
                return error.output().map(|o| format!("it printed:\n{}", last_lines(o, 30)));
            }
            _ => return None,
        };
        Some(hint.into())
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

impl From<BakeError> for Failure {
    fn from(error: BakeError) -> Self {
        let failure = Self::from_error(error.exit_code(), &error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
