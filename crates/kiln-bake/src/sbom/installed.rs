//! The packages inside a tree, from dpkg's database in it: whatever the tree was made from.

use kiln_model::{Content, Node, PackageRef, Sha256, Tree};
use kiln_store::{Store, StoreError};
use serde::{Deserialize, Serialize};

use super::copyright::{self, Licences};
use crate::debian::index::fields;
use crate::tree_edit::node_at;

/// Where dpkg keeps what is installed; images without dpkg have a file per package in the directory.
const STATUS: &str = "/var/lib/dpkg/status";
const STATUS_DIRECTORY: &str = "/var/lib/dpkg/status.d";
/// What licences come to, under a digest of the copyright files. The number changes with their reading.
const CACHE: &str = "licences-1";

/// One package of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Installed {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) architecture: String,
    /// The source package it was built from.
    pub(crate) source: Source,
    pub(crate) homepage: Option<String>,
    pub(crate) licences: Licences,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) version: String,
}

impl Installed {
    pub(crate) fn as_ref(&self) -> PackageRef {
        let Self { name, version, architecture, .. } = self;
        PackageRef { name: name.clone(), version: version.clone(), architecture: architecture.clone() }
    }
}

/// The installed packages of `tree`, sorted by name.
pub(crate) fn installed(tree: &Tree, store: &Store) -> Result<Vec<Installed>, StoreError> {
    let mut packages: Vec<Installed> = Vec::new();
    for text in databases(tree, store)? {
        packages.extend(text.split("\n\n").filter_map(package));
    }
    packages.sort_by(|a, b| (&a.name, &a.architecture).cmp(&(&b.name, &b.architecture)));
    packages.dedup_by(|a, b| (&a.name, &a.architecture) == (&b.name, &b.architecture));
    let licences = licences(&packages, tree, store)?;
    packages.iter_mut().zip(licences).for_each(|(package, licences)| package.licences = licences);
    Ok(packages)
}

fn databases(tree: &Tree, store: &Store) -> Result<Vec<String>, StoreError> {
    let others = tree.below(STATUS_DIRECTORY.as_bytes()).filter(|(path, _)| !path.ends_with(b".md5sums"));
    let paths = [STATUS.as_bytes()].into_iter().chain(others.map(|(path, _)| path));
    paths.filter_map(|path| text(tree, path, store).transpose()).collect()
}

/// What one stanza of the database says, if the package is installed.
fn package(stanza: &str) -> Option<Installed> {
    let (mut name, mut version, mut architecture, mut source, mut homepage) = ("", "", "", "", None);
    for (field, value) in fields(stanza.trim_start_matches('\n')) {
        match field {
            "Package" => name = value,
            "Version" => version = value,
            "Architecture" => architecture = value,
            "Source" => source = value,
            "Homepage" => homepage = Some(value.to_owned()).filter(|url| is_address(url)),
            // Without the field it is a database that holds nothing else.
            "Status" if !value.ends_with(" installed") => return None,
            _ => {}
        }
    }
    if name.is_empty() || version.is_empty() {
        return None;
    }
    Some(Installed {
        name: name.into(),
        version: version.into(),
        architecture: architecture.into(),
        source: Source::of(source, name, version),
        homepage,
        licences: Licences::Unknown,
    })
}

/// An address that can be written into a document as it is.
fn is_address(url: &str) -> bool {
    (url.starts_with("https://") || url.starts_with("http://"))
        && url.bytes().all(|b| b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b))
}

impl Source {
    /// `glibc (2.36-9)`; a version is only named where it is another than the package's own.
    fn of(field: &str, package: &str, version: &str) -> Self {
        let (name, own) = field.split_once('(').map_or((field, None), |(name, v)| (name, Some(v)));
        let name = Some(name.trim()).filter(|n| !n.is_empty()).unwrap_or(package);
        let version = own.map_or(version, |v| v.trim_end_matches(')').trim());
        Self { name: name.into(), version: version.into() }
    }
}

/// The licences of each of `packages`. Reading a hundred copyright files takes longer than all else in a bake of a
/// changed file, so that it is done once for the same files.
fn licences(packages: &[Installed], tree: &Tree, store: &Store) -> Result<Vec<Licences>, StoreError> {
    let key = key(packages, tree);
    let cached = store.cache_get(CACHE, &key).and_then(|b| serde_json::from_slice::<Kept>(&b).ok());
    if let Some(Kept(licences)) = cached.filter(|c| c.0.len() == packages.len()) {
        return Ok(licences);
    }
    let read = |p: &Installed| {
        let text = text(tree, copyright_file(&p.name).as_bytes(), store)?;
        Ok(text.map_or(Licences::Unknown, |text| copyright::licences(&text)))
    };
    let kept = Kept(packages.iter().map(read).collect::<Result<_, StoreError>>()?);
    let bytes = serde_json::to_vec(&kept).expect("plain data that JSON can hold");
    store.cache_put(CACHE, &key, &bytes)?;
    Ok(kept.0)
}

#[derive(Serialize, Deserialize)]
struct Kept(Vec<Licences>);

/// Where a package says what it is licensed under.
pub(super) fn copyright_file(package: &str) -> String {
    format!("/usr/share/doc/{package}/copyright")
}

fn key(packages: &[Installed], tree: &Tree) -> Sha256 {
    let mut all = Vec::new();
    for package in packages {
        all.extend_from_slice(package.name.as_bytes());
        all.push(0);
        match content(tree, copyright_file(&package.name).as_bytes()) {
            Some(Content::Object { digest, .. }) => all.extend_from_slice(&digest.0.0),
            Some(Content::Inline(bytes)) => all.extend_from_slice(&Sha256::of(bytes).0),
            None => all.push(0),
        }
    }
    Sha256::of(&all)
}

/// The content at a path of a tree, links followed.
fn content<'t>(tree: &'t Tree, path: &[u8]) -> Option<&'t Content> {
    match node_at(tree, path) {
        Some(Node::File(_, content)) => Some(content),
        _ => None,
    }
}

/// The text at a path of a tree; nothing if there is no file. What is beyond all measure counts as none.
pub(crate) fn text(tree: &Tree, path: &[u8], store: &Store) -> Result<Option<String>, StoreError> {
    let bytes = match content(tree, path) {
        Some(Content::Object { size, .. }) if *size > copyright::LARGEST => return Ok(None),
        Some(Content::Inline(bytes)) => bytes.clone(),
        Some(Content::Object { digest, .. }) => store.objects().read(digest)?,
        None => return Ok(None),
    };
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas_of_the_database() {
        let text = "Package: libc6\nStatus: install ok installed\nSource: glibc (2.36-9)\nVersion: 2.36-9+b1\n\
            Architecture: amd64\nHomepage: https://www.gnu.org/libc\n";
        let found = package(text).unwrap();
        assert_eq!((found.name.as_str(), found.version.as_str()), ("libc6", "2.36-9+b1"));
        assert_eq!(found.source, Source { name: "glibc".into(), version: "2.36-9".into() });
        assert_eq!(found.homepage.as_deref(), Some("https://www.gnu.org/libc"));
        assert_eq!(package(&text.replace("ok installed", "ok config-files")), None);
        assert_eq!(package("Package: a\n"), None);
        let bare = package("Package: a\nVersion: 1\nHomepage: <none>").unwrap();
        assert_eq!((bare.source.name.as_str(), bare.source.version.as_str()), ("a", "1"));
        assert_eq!(bare.homepage, None);
    }
}
