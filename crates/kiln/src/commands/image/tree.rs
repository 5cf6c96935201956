//! `kiln image tree`

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::Args;
use kiln_model::{Content, ExitCode, Failure, Meta, Node};
use serde_json::{Value, json};

use super::{AppDirectory, Wanted, find, name};
use crate::context::Context;

const EXAMPLES: &str = "\
Examples:
  kiln image tree web               every path of image `web`
  kiln image tree web /etc/nginx    only those in a directory";

/// What is in an image, path by path
///
/// Bytes of a path, or of the target of a link, that are no UTF-8 are shown as `\ooo` (octal); --json then has all
/// bytes in hexadecimal as `path_hex` or `to_hex` beside `path` or `to`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Tree {
    #[command(flatten)]
    wanted: Wanted,
    /// Only this path and what is below it
    #[arg(value_name = "PATH", default_value = "/")]
    path: OsString,
    #[command(flatten)]
    app: AppDirectory,
}

pub(crate) fn run(args: &Tree, context: &Context) -> Result<(), Failure> {
    let store = context.store()?;
    let image = find::open(&args.wanted.image, &args.app.directory, &store)?;
    let path = absolute(args.path.as_bytes());
    if image.tree.get(&path).is_none() {
        let message = format!("image {} has no {}", image.record.digest.short(), name::shown(&path));
        return Err(Failure::new(ExitCode::Usage, message));
    }
    let within = |p: &[u8]| {
        path == b"/" || p.strip_prefix(&path[..]).is_some_and(|rest| rest.first().is_none_or(|c| *c == b'/'))
    };
    let nodes: Vec<(&[u8], &Node)> = image.tree.iter().filter(|(p, _)| within(p)).collect();
    let value: Vec<Value> = nodes.iter().map(|(path, node)| entry(path, node)).collect();
    context.output.result(&value, || {
        let lines: Vec<String> = nodes.iter().map(|(path, node)| line(path, node)).collect();
        lines.join("\n")
    })
}

/// With one slash in front and none behind.
fn absolute(path: &[u8]) -> Vec<u8> {
    let is_slash = |c: &u8| *c == b'/';
    let begin = path.iter().position(|c| !is_slash(c)).unwrap_or(path.len());
    let end = path.iter().rposition(|c| !is_slash(c)).map_or(begin, |last| last + 1);
    [b"/", &path[begin..end]].concat()
}

/// A path and what is there, as an object; what is not known of a kind is absent.
fn entry(path: &[u8], node: &Node) -> Value {
    let mut entry = json!({ "kind": kind(node).1 });
    name::set(&mut entry, "path", path);
    if let Node::Symlink(_, to) | Node::Hardlink(to) = node {
        name::set(&mut entry, "to", to);
    }
    let mut set = |key: &str, value: Value| entry[key] = value;
    if let Some(Meta { mode, uid, gid, mtime, .. }) = node.meta() {
        set("mode", format!("{mode:04o}").into());
        set("uid", (*uid).into());
        set("gid", (*gid).into());
        set("mtime", (*mtime).into());
    }
    match node {
        Node::File(_, content) => {
            set("size", size(content).into());
            if let Content::Object { digest, .. } = content {
                set("object", digest.hex().into());
            }
        }
        Node::CharDevice(_, major, minor) | Node::BlockDevice(_, major, minor) => {
            set("device", format!("{major}:{minor}").into());
        }
        _ => {}
    }
    entry
}

fn kind(node: &Node) -> (char, &'static str) {
    match node {
        Node::Directory(_) => ('d', "directory"),
        Node::File(..) => ('-', "file"),
        Node::Symlink(..) => ('l', "link"),
        Node::Hardlink(_) => ('h', "hard link"),
        Node::CharDevice(..) => ('c', "character device"),
        Node::BlockDevice(..) => ('b', "block device"),
        Node::Fifo(_) => ('p', "fifo"),
        Node::Socket(_) => ('s', "socket"),
    }
}

pub(super) fn size(content: &Content) -> u64 {
    match content {
        Content::Inline(bytes) => bytes.len() as u64,
        Content::Object { size, .. } => *size,
    }
}

/// One line: kind, mode, owner, size, path, and where it leads. Names are shown so that no terminal obeys them.
pub(super) fn line(path: &[u8], node: &Node) -> String {
    let (mode, owner) = match node.meta() {
        Some(meta) => (format!("{:04o}", meta.mode), format!("{}:{}", meta.uid, meta.gid)),
        None => ("-".into(), "-".into()),
    };
    let size = match node {
        Node::File(_, content) => size(content).to_string(),
        _ => "-".into(),
    };
    let to = match node {
        Node::Symlink(_, to) => format!(" -> {}", name::shown(to)),
        Node::Hardlink(first) => format!(" = {}", name::shown(first)),
        _ => String::new(),
    };
    format!("{}{mode} {owner:>11} {size:>10} {}{to}", kind(node).0, name::shown(path))
}
