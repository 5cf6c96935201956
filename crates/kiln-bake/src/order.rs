//! What is asked of a bake, and what is told while it runs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use kiln_model::spec::{BuildNetwork, BuildStep, DirSpec, LinkSpec, UserSpec};
use kiln_model::{ImageName, ImageRecord, LockRequest, Millis, OciReference, Progress, Volatile};
use serde::Serialize;

/// Everything that decides what one image holds. No choices left but those the lock answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BakeOrder {
    /// The image's name in the spec.
    pub image: ImageName,
    /// The directory that holds `kiln.toml`; `files` are found below it, and never outside.
    pub project: PathBuf,
    /// What the image starts from.
    pub from: Base,
    /// The packages asked for, in any order: a name, `name=version` where the version may end in `*`, or `name/suite`.
    pub packages: Vec<String>,
    /// Further suites that packages may come from.
    pub suites: Vec<Suite>,
    /// Whether packages that are only recommended are wanted as well.
    pub recommends: bool,
    /// The project's own files.
    pub files: Vec<FileSpec>,
    /// Directories the image is to have.
    pub dirs: Vec<DirSpec>,
    /// Symbolic links the image is to have.
    pub links: Vec<LinkSpec>,
    /// Users the image is to have.
    pub users: Vec<UserSpec>,
    /// What is run in the tree once all of the above is there.
    pub build: Vec<BuildStep>,
    /// What that can reach.
    pub build_network: BuildNetwork,
    /// Program and arguments; the program is an absolute path inside the image. Empty: those of the OCI image.
    pub run: Vec<String>,
    /// Who runs it: a name of the image's `/etc/passwd`, or a number. If absent, that of the OCI image, or root.
    pub user: Option<String>,
    /// The image's environment.
    pub env: BTreeMap<String, String>,
    /// The working directory; that of the OCI image, or `/`, if absent.
    pub workdir: Option<String>,
    /// The signal that asks the program to end; that of the OCI image, or SIGTERM, if absent.
    pub stop_signal: Option<i32>,
    /// How long it then has.
    pub stop_grace: Millis,
    /// What may be written in instances.
    pub volatile: Vec<Volatile>,
    /// Where Debian packages come from; the host's own apt sources if absent.
    pub sources: Sources,
    /// The architecture, as the distribution names it: `amd64`.
    pub architecture: String,
}

/// What an image starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// The essential packages of a Debian suite, e.g. `bookworm`.
    Debian {
        /// The suite's code name.
        suite: String,
    },
    /// Nothing.
    Scratch,
    /// An OCI image.
    Oci(OciReference),
    /// A handmade image of the store.
    Handmade(ImageName),
}

/// A suite beside that of the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suite {
    /// Its name.
    pub name: String,
    /// How much it is preferred; the suite of the base has 500.
    pub priority: u16,
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debian { suite } => write!(f, "debian:{suite}"),
            Self::Scratch => f.write_str("scratch"),
            Self::Oci(reference) => write!(f, "oci:{reference}"),
            Self::Handmade(name) => write!(f, "image:{name}"),
        }
    }
}

/// Files or a directory of the project that go into the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileSpec {
    /// Path below the project's directory; a directory is copied with all that is in it.
    pub src: String,
    /// Absolute path in the image. With a slash at its end, a file is put *into* this directory.
    pub dst: String,
    /// Permission bits of files; 0644, or 0755 where the source may be executed, if absent.
    pub mode: Option<u32>,
    /// `user` or `user:group`, names of the image or numbers; `root:root` if absent.
    pub owner: Option<String>,
}

/// `[sources.debian]` of the spec.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sources {
    /// The archive's root; its suites, updates and security updates are looked for there.
    pub mirror: Option<String>,
    /// Whether an index past its `Valid-Until` is refused; as the host's apt is configured if absent.
    pub check_valid_until: Option<bool>,
}

impl BakeOrder {
    /// The part of the order that the lock answers, in no order of its own.
    pub fn lock_request(&self) -> LockRequest {
        LockRequest {
            from: self.from.to_string(),
            architecture: self.architecture.clone(),
            requested: self.packages.clone(),
            recommends: self.recommends,
            suites: self.suites.iter().map(|s| format!("{}:{}", s.name, s.priority)).collect(),
        }
        .in_order_of(None)
    }
}

/// Who is told how a bake goes, and may call it off.
pub trait Report: Sync {
    /// Takes one piece of news.
    fn progress(&self, progress: Progress);
    /// Whether the work is no longer wanted; it then ends soon with [`crate::BakeError::Cancelled`].
    fn cancelled(&self) -> bool;
}

/// Which pins of an existing lock are let go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// None: an image whose request has not changed keeps its packages, without asking the network.
    Nothing,
    /// All: every image gets the newest versions.
    All,
    /// Those of these packages (or of images by name, which start from OCI images); the others keep their versions
    /// where the archive still offers them.
    Packages(Vec<String>),
}

/// A baked image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Baked {
    /// What is recorded of it.
    pub record: ImageRecord,
    /// Whether it was there already.
    pub reused: bool,
    /// How long it took, in milliseconds.
    pub millis: u64,
}
