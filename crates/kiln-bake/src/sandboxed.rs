//! Programs of a tree, run inside it, and the tree with what they wrote: packages' own configuration, and build steps.
//!
//! What they see is the same on every host and at every time: the host name, the environment, the clock, which stands
//! at the tree's epoch (on x86-64). A build that asks for the host's network sees that, and the world behind it.

use kiln_model::{Tree, TreeError};
use kiln_mount::ImageFiles;
use kiln_store::{Store, StoreError};

use crate::debian::capture::{self, CaptureError};
use crate::erofs;
use crate::order::Report;
use crate::sandbox::{self, Job, Outcome, Workplace, WorkplaceError};

/// So much of what programs print is kept, from its end.
const KEPT_OUTPUT: usize = 64 << 10;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What keeps programs from being run in a tree, whatever they are.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// There is no room to run anything in.
    #[error("could not make a sandbox")]
    Workplace(#[from] WorkplaceError),
    /// The sandbox could not be started.
    #[error("could not start a sandbox")]
    Start(#[source] std::io::Error),
    /// What was written could not be read back.
    #[error("could not read what was written in the sandbox")]
    Capture(#[from] CaptureError),
    /// The tree makes no image to run them in.
    #[error("the tree is no image that anything could be run in")]
    Tree(#[from] TreeError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SandboxError {
    /// Whether the host lacks something, and neither the packages nor the spec are to blame.
    pub(crate) fn is_the_hosts(&self) -> bool {
        matches!(self, Self::Workplace(_) | Self::Start(_))
    }
}

/// `tree` with everything that the steps of `job` write, if `judge` lets it pass.
pub(crate) fn written_by<E: From<SandboxError> + Send>(
    job: &Job<'_>,
    tree: Tree,
    store: &Store,
    report: &dyn Report,
    hear: &mut (dyn FnMut(&[u8]) + Send),
    judge: impl FnOnce(&Workplace, Outcome) -> Result<(), E> + Send,
) -> Result<Tree, E> {
    let metadata = erofs::write(&tree).map_err(SandboxError::from)?.bytes;
    let file = store.scratch(&metadata).map_err(SandboxError::from)?;
    drop(metadata);
    // Nobody else sees this image, and it is gone afterwards: it needs no digest.
    let image = ImageFiles { metadata: file.path(), objects: store.objects_dir() };
    let work = || {
        let place = Workplace::new(image, job.network).map_err(SandboxError::from)?;
        let outcome =
            sandbox::run(&place.root, &place.users, job, &mut |piece| hear(piece), &|| report.cancelled())
                .map_err(SandboxError::Start)?;
        judge(&place, outcome)?;
        Ok(captured(&place, tree, store)?)
    };
    sandbox::in_private_mounts(work).map_err(SandboxError::from)?
}

fn captured(place: &Workplace, tree: Tree, store: &Store) -> Result<Tree, SandboxError> {
    let batch = store.objects().batch()?;
    let tree = capture::captured(place, tree, &batch)?;
    batch.commit()?;
    Ok(tree)
}

/// The environment that programs are given, in which `epoch` is now.
pub(crate) fn environment(epoch: i64) -> Vec<(String, String)> {
    let epoch = epoch.to_string();
    let fixed = [
        ("PATH", PATH),
        ("HOME", "/root"),
        ("LC_ALL", "C.UTF-8"),
        ("TZ", "UTC"),
        ("TERM", "dumb"),
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
        ("PYTHONHASHSEED", "0"),
        ("PERL_HASH_SEED", "0"),
        ("SOURCE_DATE_EPOCH", epoch.as_str()),
    ];
    fixed.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// The end of what programs print.
#[derive(Default)]
pub(crate) struct Tail(Vec<u8>);

impl Tail {
    pub(crate) fn hear(&mut self, piece: &[u8]) {
        self.0.extend_from_slice(piece);
        if self.0.len() > 2 * KEPT_OUTPUT {
            self.0.drain(..self.0.len() - KEPT_OUTPUT);
        }
    }

    pub(crate) fn text(&self) -> String {
        let start = self.0.len().saturating_sub(KEPT_OUTPUT);
        String::from_utf8_lossy(&self.0[start..]).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_what_is_printed_is_kept() {
        let mut tail = Tail::default();
        (0..5).for_each(|n| tail.hear(&vec![b'0' + n; KEPT_OUTPUT]));
        tail.hear(b"the end");
        assert!(tail.text().len() == KEPT_OUTPUT && tail.text().ends_with("4the end"));
    }
}
