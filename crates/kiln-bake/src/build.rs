//! Build steps: commands that are run inside an image's tree, and what they write.
//!
//! The result depends on the tree, the steps and their environment alone: there is no network, the host name and the
//! environment are fixed, and afterwards no time in the tree is after its epoch. So it is cached by just that.

use std::collections::BTreeMap;

use kiln_model::spec::BuildStep;
use kiln_model::{ImageDigest, ImageHandle, Sha256, Tree, TreeError};
use kiln_store::{Store, StoreError};

use crate::debian::capture::{self, CaptureError};
use crate::debian::normalise::clamp;
use crate::debian::unpack::has_objects;
use crate::order::{BakeOrder, Report};
use crate::report::Task;
use crate::sandbox::{self, Outcome, Step, Workplace, WorkplaceError};
use crate::tree_edit::TreeEdit;
use crate::{erofs, tree_file};

/// Built trees, under a digest of all that they come from. The number changes with what is done here.
const CACHE: &str = "built-1";
/// So much of what steps print is kept, from its end.
const KEPT_OUTPUT: usize = 64 << 10;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Emptied afterwards: an instance starts with its own.
const EMPTIED: [&str; 3] = ["/run", "/tmp", "/var/tmp"];

/// A build that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A step of it did not.
    #[error("build step {number} `{step}` {how}")]
    Step {
        /// Which, counted from 1.
        number: usize,
        /// As the spec has it.
        step: String,
        /// How it ended.
        how: String,
        /// The end of what was printed until then.
        output: String,
    },
    /// There is no room to run anything in.
    #[error("could not make the sandbox that build steps run in")]
    Workplace(#[from] WorkplaceError),
    /// The sandbox could not be started.
    #[error("could not start the sandbox that build steps run in")]
    Sandbox(#[source] std::io::Error),
    /// What was written could not be read back.
    #[error("could not read what the build steps wrote")]
    Capture(#[from] CaptureError),
    /// The tree makes no image to run them in.
    #[error("the tree that build steps should run in is no image")]
    Tree(#[from] TreeError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was called off.
    #[error("called off")]
    Cancelled,
}

impl BuildError {
    /// The end of what the steps printed.
    pub fn output(&self) -> Option<&str> {
        match self {
            Self::Step { output, .. } => Some(output),
            _ => None,
        }
    }
}

/// `tree` with everything that the steps of `order` write; its objects are in the store, and so are the new ones.
pub(crate) fn built(
    order: &BakeOrder,
    tree: Tree,
    epoch: i64,
    env: &BTreeMap<String, String>,
    store: &Store,
    report: &dyn Report,
) -> Result<Tree, BuildError> {
    if order.build.is_empty() {
        return Ok(tree);
    }
    let key = key(order, &tree, epoch, env);
    let cached = store.cache_get(CACHE, &key).and_then(|bytes| tree_file::decode(&bytes).ok());
    if let Some(tree) = cached.filter(|tree| has_objects(store, &key, tree)) {
        return Ok(tree);
    }
    let tree = normalised(run(order, tree, epoch, env, store, report)?, epoch);
    store.cache_put(CACHE, &key, &tree_file::encode(&tree))?;
    Ok(tree)
}

fn key(order: &BakeOrder, tree: &Tree, epoch: i64, env: &BTreeMap<String, String>) -> Sha256 {
    let tree = Sha256::of(&tree_file::encode(tree));
    let all = (tree.hex(), &order.build, epoch, env);
    Sha256::of(&serde_json::to_vec(&all).expect("plain data that JSON can hold"))
}

fn run(
    order: &BakeOrder,
    tree: Tree,
    epoch: i64,
    env: &BTreeMap<String, String>,
    store: &Store,
    report: &dyn Report,
) -> Result<Tree, BuildError> {
    let image = intermediate(&tree, store)?;
    let env = environment(env, epoch);
    let step = |step: &BuildStep| Step::new(&argv(step), &env);
    let steps = order.build.iter().map(step).collect::<Result<Vec<_>, _>>().map_err(BuildError::Sandbox)?;
    let task = Task::new(report, "running build steps", "", None);
    let tree = sandbox::in_private_mounts(|| {
        let place = Workplace::new(&image)?;
        run_steps(order, &place, &steps, report)?;
        let batch = store.objects().batch()?;
        let tree = capture::captured(&place, tree, &batch)?;
        batch.commit()?;
        Ok::<_, BuildError>(tree)
    })?;
    task.finish();
    Ok(tree)
}

fn run_steps(
    order: &BakeOrder,
    place: &Workplace,
    steps: &[Step],
    report: &dyn Report,
) -> Result<(), BuildError> {
    let mut output = Vec::new();
    let mut hear = |piece: &[u8]| {
        output.extend_from_slice(piece);
        if output.len() > 2 * KEPT_OUTPUT {
            output.drain(..output.len() - KEPT_OUTPUT);
        }
    };
    let outcome = sandbox::run(&place.root, &place.users, steps, &mut hear, &|| report.cancelled())
        .map_err(BuildError::Sandbox)?;
    match outcome {
        Outcome::Done => Ok(()),
        Outcome::Cancelled => Err(BuildError::Cancelled),
        Outcome::Failed { step, how } => Err(BuildError::Step {
            number: step + 1,
            step: order.build.get(step).map(words).unwrap_or_default(),
            how,
            output: String::from_utf8_lossy(&output).into_owned(),
        }),
    }
}

/// Its metadata file is kept like any file's content, until a collection of what nobody needs.
fn intermediate(tree: &Tree, store: &Store) -> Result<ImageHandle, BuildError> {
    let written = erofs::write(tree)?;
    let (digest, _) = store.objects().put_bytes(&written.bytes)?;
    Ok(ImageHandle {
        digest: ImageDigest(digest.0),
        metadata: store.objects().path(&digest),
        objects: store.objects_dir().to_owned(),
    })
}

fn argv(step: &BuildStep) -> Vec<&str> {
    match step {
        BuildStep::Line(line) => vec!["/bin/sh", "-e", "-c", line],
        BuildStep::Program(argv) => argv.iter().map(String::as_str).collect(),
    }
}

fn words(step: &BuildStep) -> String {
    match step {
        BuildStep::Line(line) => line.clone(),
        BuildStep::Program(argv) => argv.join(" "),
    }
}

/// The image's own, over what is the same on every host and at every time.
fn environment(env: &BTreeMap<String, String>, epoch: i64) -> BTreeMap<String, String> {
    let fixed = [
        ("PATH", PATH),
        ("HOME", "/root"),
        ("LC_ALL", "C.UTF-8"),
        ("TZ", "UTC"),
        ("TERM", "dumb"),
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("PYTHONHASHSEED", "0"),
        ("PERL_HASH_SEED", "0"),
    ];
    let mut all: BTreeMap<String, String> = fixed.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    all.extend(env.clone());
    all.insert("SOURCE_DATE_EPOCH".into(), epoch.to_string());
    all
}

/// Takes away what tells of the moment.
fn normalised(tree: Tree, epoch: i64) -> Tree {
    let mut edit = TreeEdit::new(tree);
    for path in EMPTIED {
        edit.clear(path.as_bytes());
    }
    let mut tree = edit.into_tree();
    clamp(&mut tree, epoch);
    tree
}
