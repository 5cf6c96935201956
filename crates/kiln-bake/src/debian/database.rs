//! dpkg's database between unpacking and configuring: it says `unpacked` of every new package, and knows its files
//! and who wants to be told of them.

use std::collections::{BTreeMap, BTreeSet};

use kiln_store::{Batch, Store};

use super::assemble::{AssembleError, Assembly};
use super::package::Package;
use crate::content;

const DPKG: &str = "/var/lib/dpkg";

/// Enters `some` of the new packages of `assembly`, beside those that are installed or entered already.
pub(crate) fn enter(
    assembly: &mut Assembly<'_>,
    some: &[usize],
    store: &Store,
    batch: &Batch,
) -> Result<(), AssembleError> {
    for dir in ["alternatives", "parts", "updates", "triggers", "info"] {
        assembly.ensure_directory(&format!("{DPKG}/{dir}"))?;
    }
    let (old, new) = assembly.packages();
    let entered: Vec<Package<'_>> = some.iter().map(|i| new[*i].clone()).collect();
    let (old, new) = (old.to_vec(), new.to_vec());
    entered.iter().try_for_each(|package| info(assembly, package, batch))?;
    let mut status = content::read(assembly.tree(), &format!("{DPKG}/status"), store)?;
    entered.iter().for_each(|package| status.extend_from_slice(status_stanza(package).as_bytes()));
    assembly.file(&format!("{DPKG}/status"), 0o644, &status, batch)?;
    assembly.file(&format!("{DPKG}/info/format"), 0o644, b"1\n", batch)?;
    for empty in ["available", "diversions"] {
        let path = format!("{DPKG}/{empty}");
        if assembly.tree().get(path.as_bytes()).is_none() {
            assembly.file(&path, 0o644, b"", batch)?;
        }
    }
    let mut unincorporated = content::read(assembly.tree(), &format!("{DPKG}/triggers/Unincorp"), store)?;
    unincorporated.extend_from_slice(activated(&old, &entered).as_bytes());
    assembly.file(&format!("{DPKG}/triggers/Unincorp"), 0o644, &unincorporated, batch)?;
    for (file, text) in interests(old.iter().chain(&new)) {
        assembly.file(&format!("{DPKG}/triggers/{file}"), 0o644, text.as_bytes(), batch)?;
    }
    Ok(())
}

/// What dpkg keeps of each package: its control files and the list of its paths.
fn info(assembly: &mut Assembly<'_>, package: &Package<'_>, batch: &Batch) -> Result<(), AssembleError> {
    let base = format!("{DPKG}/info/{}", package.qualified_name());
    for (name, mode, bytes) in package.control_files() {
        assembly.file(&format!("{base}.{name}"), mode, bytes, batch)?;
    }
    let mut list = Vec::new();
    for (path, _) in package.data.iter() {
        list.extend_from_slice(if path == b"/" { b"/." } else { path });
        list.push(b'\n');
    }
    assembly.file(&format!("{base}.list"), 0o644, &list, batch)
}

/// A package's control file with what dpkg adds to it: that it is unpacked, and that its configuration files are
/// new.
fn status_stanza(package: &Package<'_>) -> String {
    let mut out = String::new();
    for line in package.text.lines().filter(|l| !l.trim().is_empty()) {
        out.push_str(line);
        out.push('\n');
        if line.starts_with("Package:") {
            out.push_str("Status: install ok unpacked\n");
        }
    }
    let mut conffiles = package.conffiles().peekable();
    if conffiles.peek().is_some() {
        out.push_str("Conffiles:\n");
    }
    for path in conffiles {
        out.push_str(&format!(" {path} newconffile\n"));
    }
    out.push('\n');
    out
}

/// What a package wants to be told of: a trigger, and whether those who set it off wait for it.
fn triggers<'a>(package: &Package<'a>) -> Vec<(&'a str, bool)> {
    let bytes = package.control_file("triggers").unwrap_or_default();
    let lines = std::str::from_utf8(bytes).unwrap_or_default().lines();
    let interest = |line: &'a str| {
        let mut words = line.split_ascii_whitespace();
        let (directive, trigger) = (words.next()?, words.next()?);
        match directive {
            "interest" | "interest-await" => Some((trigger, true)),
            "interest-noawait" => Some((trigger, false)),
            _ => None,
        }
    };
    lines.filter_map(interest).collect()
}

/// Who wants to be told of what: one file for paths, and one for each other trigger.
fn interests<'p, 'a: 'p>(packages: impl Iterator<Item = &'p Package<'a>>) -> BTreeMap<String, String> {
    let mut files: BTreeMap<String, String> = BTreeMap::from([("File".into(), String::new())]);
    for package in packages {
        for (trigger, awaited) in triggers(package) {
            let who = format!("{}{}\n", package.qualified_name(), if awaited { "" } else { "/noawait" });
            if trigger.starts_with('/') {
                files.entry("File".into()).or_default().push_str(&format!("{trigger} {who}"));
            } else if !trigger.contains('/') && trigger != "." && trigger != ".." {
                files.entry(trigger.into()).or_default().push_str(&who);
            }
        }
    }
    files
}

/// The paths that installed packages want to be told of and new ones put something at: dpkg would have told them
/// while it unpacked. (New packages are configured after all are unpacked, and see everything then.)
fn activated(old: &[Package<'_>], new: &[Package<'_>]) -> String {
    let watched: BTreeSet<&str> =
        old.iter().flat_map(|p| triggers(p)).map(|(t, _)| t).filter(|t| t.starts_with('/')).collect();
    let touched = |trigger: &&&str| {
        let below = format!("{trigger}/").into_bytes();
        let mut paths = new.iter().flat_map(|p| p.data.iter()).map(|(path, _)| path);
        paths.any(|path| path.starts_with(&below) || path == trigger.as_bytes())
    };
    watched.iter().filter(touched).map(|trigger| format!("{trigger} -\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debian::package::testing::{add, package};

    #[test]
    fn installed_packages_are_told_of_the_paths_they_watch() {
        let mut watcher = package("man-db", "");
        add(
            &mut watcher.1.control,
            "/triggers",
            "interest-noawait /usr/share/man\ninterest /usr/share/mime\n",
        );
        add(&mut watcher.1.control, "/postinst", "");
        let mut new = package("curl", "");
        add(&mut new.1.data, "/usr/share/man/man1/curl.1.gz", "");
        add(&mut new.1.data, "/usr/share/mimes", "");
        let (old, new) =
            (Package::new(&watcher.0, &watcher.1).unwrap(), Package::new(&new.0, &new.1).unwrap());
        assert_eq!(activated(std::slice::from_ref(&old), &[new]), "/usr/share/man -\n");
        let files = interests([&old].into_iter());
        assert_eq!(files["File"], "/usr/share/man man-db/noawait\n/usr/share/mime man-db\n");
    }
}
