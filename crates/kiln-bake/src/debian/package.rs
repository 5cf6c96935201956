//! One package of an image: what the lock says of it, and what is in it.

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

    /// Whether what it wants done then may be to divert files of other packages: it must come before its own files.
    pub(crate) fn may_divert(&self) -> bool {
        self.control_file("preinst").is_some_and(|script| memmem::find(script, b"dpkg-divert").is_some())
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
