//! One package of an image: what the lock says of it, and what is in it.

use std::collections::HashSet;

use memchr::memmem;

use kiln_model::{Content, LockedPackage, Node, Tree};

use super::deb::Deb;
use super::index::fields;
use super::relation;

/// A package about to be installed.
#[derive(Clone)]
pub(crate) struct Package<'a> {
    pub(crate) locked: &'a LockedPackage,
    pub(crate) data: &'a Tree,
    control: &'a Tree,
    /// The text of its control file.
    pub(crate) text: &'a str,
    pub(crate) essential: bool,
    /// Whether several architectures of it can be installed side by side; its files are then named with one.
    same: bool,
    replaces: &'a str,
    pub(crate) provides: &'a str,
    pub(crate) pre_depends: &'a str,
    pub(crate) depends: &'a str,
    pub(crate) recommends: &'a str,
}

/// A package whose control file says something else than the lock.
#[derive(Debug, thiserror::Error)]
#[error("package `{locked}` says of itself that it is `{found}`")]
pub struct Impostor {
    locked: String,
    found: String,
}

impl<'a> Package<'a> {
    pub(crate) fn new(locked: &'a LockedPackage, deb: &'a Deb) -> Result<Self, Impostor> {
        let text =
            file(&deb.control, "control").and_then(|b| std::str::from_utf8(b).ok()).unwrap_or_default();
        let field = |name: &str| fields(text).find(|(n, _)| *n == name).map_or("", |(_, v)| v);
        let found = [field("Package"), field("Version"), field("Architecture")];
        if found != [&locked.name, &locked.version, &locked.architecture] {
            return Err(Impostor {
                locked: format!("{} {} {}", locked.name, locked.version, locked.architecture),
                found: found.join(" "),
            });
        }
        Ok(Self {
            locked,
            data: &deb.data,
            control: &deb.control,
            text,
            essential: field("Essential") == "yes",
            same: field("Multi-Arch") == "same",
            replaces: field("Replaces"),
            provides: field("Provides"),
            pre_depends: field("Pre-Depends"),
            depends: field("Depends"),
            recommends: field("Recommends"),
        })
    }

    pub(crate) fn name(&self) -> &'a str {
        &self.locked.name
    }

    /// Its name as dpkg writes it where an architecture may be needed to tell packages apart.
    pub(crate) fn qualified_name(&self) -> String {
        let Self { locked, same, .. } = self;
        if *same { format!("{}:{}", locked.name, locked.architecture) } else { locked.name.clone() }
    }

    /// Its control files except `control` itself, by name, with their mode.
    pub(crate) fn control_files(&self) -> impl Iterator<Item = (&'a str, u16, &'a [u8])> {
        self.control.iter().filter_map(|(path, node)| {
            let name = std::str::from_utf8(path.get(1..)?).ok()?;
            match node {
                Node::File(meta, Content::Inline(bytes)) if name != "control" && !name.contains('/') => {
                    Some((name, meta.mode, bytes.as_slice()))
                }
                _ => None,
            }
        })
    }

    pub(crate) fn control_file(&self, name: &str) -> Option<&'a [u8]> {
        file(self.control, name)
    }

    /// Whether it wants something done before it is unpacked.
    pub(crate) fn has_preinst(&self) -> bool {
        self.control_file("preinst").is_some()
    }

    /// Whether it matters to what it wants done then that its own files are not there yet: it may divert those of other
    /// packages in their places, or names something that comes with it and, of directories, with nobody else.
    pub(crate) fn preinst_minds_its_files(&self, is_shared: &dyn Fn(&[u8]) -> bool) -> bool {
        let Some(script) = self.control_file("preinst").map(own_lines) else { return false };
        let conffiles: HashSet<&str> = self.conffiles().collect();
        let is_conffile = |path: &[u8]| std::str::from_utf8(path).is_ok_and(|path| conffiles.contains(path));
        memmem::find(&script, b"dpkg-divert").is_some()
            || self.data.iter().any(|(path, node)| {
                is_named(&script, path) && !is_conffile(path) && !(node.is_directory() && is_shared(path))
            })
    }

    /// The paths of its configuration files. Lines that begin with a flag speak of files to remove, of which a new
    /// tree has none.
    pub(crate) fn conffiles(&self) -> impl Iterator<Item = &'a str> {
        let text =
            self.control_file("conffiles").and_then(|b| std::str::from_utf8(b).ok()).unwrap_or_default();
        text.lines().map(str::trim_end).filter(|l| l.starts_with('/'))
    }

    /// Whether it may overwrite files of `other`.
    pub(crate) fn replaces(&self, other: &Package<'_>) -> bool {
        relation::list(self.replaces).any(|r| r.name == other.name() && r.accepts(&other.locked.version))
    }
}

/// What a script does itself: without its comments, and without what it leaves to dpkg's own helper, which does nothing
/// where the package was not installed before.
fn own_lines(script: &[u8]) -> Vec<u8> {
    let mut own = Vec::new();
    let mut is_the_helpers = false;
    for line in script.split_inclusive(|byte| *byte == b'\n') {
        let text = line.trim_ascii();
        let continues = is_the_helpers;
        is_the_helpers |= text.starts_with(b"dpkg-maintscript-helper");
        if !is_the_helpers && !continues && !text.starts_with(b"#") {
            own.extend_from_slice(line);
        }
        is_the_helpers &= text.ends_with(b"\\");
    }
    own
}

/// Whether `script` names `path`, and not only a longer one beside it.
fn is_named(script: &[u8], path: &[u8]) -> bool {
    let goes_on = |byte: &u8| byte.is_ascii_alphanumeric() || b"._+-~".contains(byte);
    path.len() > 1
        && memmem::find_iter(script, path).any(|at| !script.get(at + path.len()).is_some_and(goes_on))
}

fn file<'a>(control: &'a Tree, name: &str) -> Option<&'a [u8]> {
    match control.get(format!("/{name}").as_bytes()) {
        Some(Node::File(_, Content::Inline(bytes))) => Some(bytes),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::tree_edit::root_meta;
    use kiln_model::Sha256;

    /// A package with these fields in its control file and nothing in it.
    pub(crate) fn package(name: &str, fields: &str) -> (LockedPackage, Deb) {
        let locked = LockedPackage {
            name: name.into(),
            version: "1".into(),
            architecture: "all".into(),
            suite: "s".into(),
            path: "p".into(),
            size: 1,
            sha256: Sha256::of(b""),
        };
        let mut deb = Deb::default();
        add(
            &mut deb.control,
            "/control",
            &format!("Package: {name}\nVersion: 1\nArchitecture: all\n{fields}"),
        );
        (locked, deb)
    }

    /// Adds a file to a part of a package.
    pub(crate) fn add(part: &mut Tree, path: &str, text: &str) {
        part.insert(path, Node::File(root_meta(0o755, 0), Content::Inline(text.into()))).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minds(preinst: &str) -> bool {
        let (locked, mut deb) = testing::package("app", "");
        for path in ["/etc", "/usr", "/usr/share", "/usr/share/app", "/usr/share/doc"] {
            deb.data.insert(path, Node::Directory(crate::tree_edit::root_meta(0o755, 0))).unwrap();
        }
        for path in ["/etc/app.conf", "/usr/share/app/data"] {
            testing::add(&mut deb.data, path, "");
        }
        testing::add(&mut deb.control, "/conffiles", "/etc/app.conf\n");
        testing::add(&mut deb.control, "/preinst", preinst);
        let is_shared = |path: &[u8]| path != b"/usr/share/app";
        Package::new(&locked, &deb).unwrap().preinst_minds_its_files(&is_shared)
    }

    #[test]
    fn whose_preinst_minds_its_files() {
        for preinst in [
            "dpkg-divert --add --rename /bin/x",
            "rm -rf /usr/share/app",
            "rm -rf \"/usr/share/app/\"",
            "test -e /usr/share/app/data || true",
            "dpkg-maintscript-helper rm_conffile /etc/x 1 \\\n -- \"$@\"\nrm -rf /usr/share/app\n",
        ] {
            assert!(minds(preinst), "{preinst}");
        }
        for preinst in [
            "#!/bin/sh\nset -e\n# /usr/share/app is ours\nadduser app\n",
            "mkdir -p /usr/share/doc/x /usr/share/application /usr/share/app-1",
            "mv /etc/app.conf /etc/app.conf.old",
            "dpkg-maintscript-helper symlink_to_dir /usr/share/app 1 \\\n  -- /usr/share/app\n",
        ] {
            assert!(!minds(preinst), "{preinst}");
        }
    }
}
