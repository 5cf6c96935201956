//! How an image's program is run: what the spec says, over what the OCI image it starts from says.

use std::collections::BTreeMap;

use kiln_model::{Node, Tree};

use crate::order::BakeOrder;
use crate::tree_edit::node_at;
use crate::users::LoneGroup;

const SIGTERM: i32 = 15;
/// Where programs are looked for if the environment does not say, as OCI runtimes do.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How a program is run, its user still by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) user: Option<String>,
    pub(crate) lone_group: LoneGroup,
    pub(crate) workdir: Option<String>,
    pub(crate) stop_signal: Option<i32>,
}

impl Settings {
    /// Those of `order` over `base`.
    pub(crate) fn of(order: &BakeOrder, base: Self) -> Self {
        let mut env = base.env;
        env.extend(order.env.clone());
        Self {
            argv: if order.run.is_empty() { base.argv } else { order.run.clone() },
            env,
            lone_group: if order.user.is_some() { LoneGroup::Own } else { base.lone_group },
            user: order.user.clone().or(base.user),
            workdir: order.workdir.clone().or(base.workdir),
            stop_signal: order.stop_signal.or(base.stop_signal),
        }
    }

    pub(crate) fn workdir(&self) -> &str {
        self.workdir.as_deref().unwrap_or("/")
    }

    pub(crate) fn stop_signal(&self) -> i32 {
        self.stop_signal.unwrap_or(SIGTERM)
    }

    /// The program by an absolute path, found as `execvp` would find it in the tree. What cannot be found stays as
    /// it is written.
    pub(crate) fn find_program(&mut self, tree: &Tree) {
        let Some(program) = self.argv.first() else { return };
        if program.starts_with('/') {
            return;
        }
        let path = self.env.get("PATH").map_or(PATH, String::as_str);
        let below = |dir: &str| format!("{}/{program}", dir.trim_end_matches('/'));
        let found = if program.contains('/') {
            Some(below(self.workdir()))
        } else {
            let dirs = path.split(':').filter(|dir| dir.starts_with('/'));
            dirs.map(below).find(|place| is_program(tree, place))
        };
        if let Some(found) = found {
            self.argv[0] = found;
        }
    }
}

/// Whether there is something that can be executed.
pub(crate) fn is_program(tree: &Tree, path: &str) -> bool {
    path.starts_with('/')
        && matches!(node_at(tree, path.as_bytes()), Some(Node::File(meta, _)) if meta.mode & 0o111 != 0)
}

/// Why nobody can execute what is there; nothing if nothing is.
pub(crate) fn why_no_program(tree: &Tree, path: &str) -> Option<String> {
    Some(match node_at(tree, path.as_bytes())? {
        Node::File(meta, _) => format!("its mode is {:04o}", meta.mode & 0o7777),
        Node::Directory(_) => "it is a directory".into(),
        _ => "it is no file".into(),
    })
}
