//! Build steps: commands that are run inside an image's tree, and what they write.
//!
//! The result depends on the tree, the steps and their environment alone: there is no network, host name, clock and
//! environment are fixed, and afterwards no time in the tree is after its epoch. So it is cached by just that. With
//! `build_network` the steps may fetch what they like, and nobody can say that it will be the same another time; what
//! they made is kept under the same key all the same.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use kiln_model::spec::{BuildNetwork, BuildStep};
use kiln_model::{Sha256, Tree};
use kiln_store::{Store, StoreError};

use crate::debian::normalise::clamp;
use crate::debian::unpack::has_objects;
use crate::order::{BakeOrder, Report};
use crate::report::Task;
use crate::sandbox::{Job, Network, Outcome, Step, Workplace};
use crate::sandboxed::{self, SandboxError, Tail};
use crate::tree_edit::TreeEdit;
use crate::tree_file;

/// Built trees, under a digest of all that they come from. The number changes with what is done here.
const CACHE: &str = "built-2";
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
    /// Nothing can be run in the image's tree.
    #[error("could not run build steps")]
    Sandbox(#[from] SandboxError),
    /// A step that cannot be handed to a program.
    #[error("could not put together the build steps")]
    Words(#[source] std::io::Error),
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
    if let Some(tree) = cached.filter(|tree| has_objects(store, CACHE, &key, tree)) {
        return Ok(tree);
    }
    let tree = normalised(run(order, tree, epoch, env, store, report)?, epoch);
    store.cache_put(CACHE, &key, &tree_file::encode(&tree))?;
    Ok(tree)
}

fn key(order: &BakeOrder, tree: &Tree, epoch: i64, env: &BTreeMap<String, String>) -> Sha256 {
    let tree = Sha256::of(&tree_file::encode(tree));
    let all = (tree.hex(), &order.build, order.build_network, epoch, env);
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
    let env = environment(env, epoch);
    let step = |step: &BuildStep| Step::new(&argv(step), &env);
    let steps = order.build.iter().map(step).collect::<Result<Vec<_>, _>>().map_err(BuildError::Words)?;
    let network = match order.build_network {
        BuildNetwork::None => Network::Own,
        BuildNetwork::Host => Network::Host,
    };
    let task = Task::new(report, "running build steps", "", None);
    let output = Mutex::new(Tail::default());
    let mut hear = |piece: &[u8]| output.lock().unwrap_or_else(PoisonError::into_inner).hear(piece);
    let judge = |_: &Workplace, outcome| {
        judged(order, outcome, &output.lock().unwrap_or_else(PoisonError::into_inner))
    };
    let job = Job { steps: &steps, network, now: epoch };
    let tree = sandboxed::written_by(&job, tree, store, report, &mut hear, judge)?;
    task.finish();
    Ok(tree)
}

fn judged(order: &BakeOrder, outcome: Outcome, output: &Tail) -> Result<(), BuildError> {
    match outcome {
        Outcome::Done => Ok(()),
        Outcome::Cancelled => Err(BuildError::Cancelled),
        Outcome::Failed { step, how } => Err(BuildError::Step {
            number: step + 1,
            step: order.build.get(step).map(words).unwrap_or_default(),
            how,
            output: output.text(),
        }),
    }
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
    let mut all: BTreeMap<String, String> = sandboxed::environment(epoch).into_iter().collect();
    all.extend(env.clone());
    // Not even the image's own: a time of its choice would not be the tree's.
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
