//! In which steps the packages of an image are installed.
//!
//! First the base: the essential packages and all they need, the same for every image of a suite. Then, in the order
//! of the lock, what each package asked for needs beside. Each step is configured over the one before it, and kept:
//! images share the base. The lock keeps its order when something is added, and puts that behind: so everything before
//! it stays as it was. How the spec lists packages does not matter.
//!
//! The steps follow from the lock alone, never from what happens to be cached: the same lock gives the same image.

use std::collections::HashMap;

use super::choice::{MERGED, Wish};
use super::package::Package;
use super::relation;

/// So many packages asked for get a step of their own; those behind share steps, because each costs a start of dpkg.
const ALONE: usize = 8;
/// So many of those share one.
const TOGETHER: usize = 4;

/// The steps, each the places of its packages in `packages`, in order. Every package is in exactly one.
pub(crate) fn layers(packages: &[Package<'_>], requested: &[String], recommends: bool) -> Vec<Vec<usize>> {
    let needs = Needs { packages, names: names(packages), recommends };
    let mut taken = vec![false; packages.len()];
    let essential = |p: &Package<'_>| p.essential || p.name() == MERGED;
    let base = (0..packages.len()).filter(|i| essential(&packages[*i])).collect();
    let mut layers = vec![needs.not_yet(base, &mut taken)];
    for some in steps(requested) {
        let asked = some.iter().filter_map(|r| packages.iter().position(|p| p.name() == Wish::new(r).name));
        layers.push(needs.not_yet(asked.collect(), &mut taken));
    }
    // What only a way out of the resolver's brought in, and nothing here is seen to need.
    layers.push((0..packages.len()).filter(|i| !taken[*i]).collect());
    layers.retain(|layer| !layer.is_empty());
    layers
}

fn steps(requested: &[String]) -> impl Iterator<Item = &[String]> {
    let (alone, others) = requested.split_at(requested.len().min(ALONE));
    alone.chunks(1).chain(others.chunks(TOGETHER))
}

/// Who goes by a name, really or by providing it; the real one first.
fn names<'a>(packages: &[Package<'a>]) -> HashMap<&'a str, Vec<usize>> {
    let mut names: HashMap<&str, Vec<usize>> = HashMap::new();
    for (i, package) in packages.iter().enumerate() {
        names.entry(package.name()).or_default().insert(0, i);
        for provided in relation::list(package.provides).filter(|r| r.name != package.name()) {
            names.entry(provided.name).or_default().push(i);
        }
    }
    names
}

struct Needs<'p, 'a> {
    packages: &'p [Package<'a>],
    names: HashMap<&'a str, Vec<usize>>,
    recommends: bool,
}

impl Needs<'_, '_> {
    /// `wanted` and all they need, except what is taken; it is taken then. In order of place.
    fn not_yet(&self, wanted: Vec<usize>, taken: &mut [bool]) -> Vec<usize> {
        let (mut todo, mut found) = (wanted, Vec::new());
        while let Some(i) = todo.pop() {
            if std::mem::replace(&mut taken[i], true) {
                continue;
            }
            found.push(i);
            let package = &self.packages[i];
            let recommends = if self.recommends { package.recommends } else { "" };
            for field in [package.pre_depends, package.depends, recommends] {
                todo.extend(relation::groups(field).filter_map(|group| self.who_meets(&group, taken)));
            }
        }
        found.sort_unstable();
        found
    }

    /// The one that is there already, else the first that is meant.
    fn who_meets(&self, group: &[relation::Relation<'_>], taken: &[bool]) -> Option<usize> {
        let meets = |r: &relation::Relation<'_>, i: usize| {
            let package = &self.packages[i];
            if package.name() == r.name {
                return r.accepts(&package.locked.version);
            }
            let provided = relation::list(package.provides).find(|p| p.name == r.name);
            provided.is_some_and(|p| r.accepts_provided(p.version.map(|(_, v)| v)))
        };
        let all = || {
            group.iter().flat_map(|r| {
                let named = self.names.get(r.name).map_or(&[][..], Vec::as_slice);
                named.iter().copied().filter(move |i| meets(r, *i))
            })
        };
        all().find(|i| taken[*i]).or_else(|| all().next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debian::deb::Deb;
    use crate::debian::package::testing::package;
    use kiln_model::LockedPackage;

    fn names_of(all: &[(LockedPackage, Deb)], requested: &[&str]) -> Vec<Vec<String>> {
        let packages: Vec<_> = all.iter().map(|(l, d)| Package::new(l, d).unwrap()).collect();
        let requested: Vec<String> = requested.iter().map(|r| (*r).to_owned()).collect();
        let name = |i: usize| packages[i].name().to_owned();
        layers(&packages, &requested, false).into_iter().map(|l| l.into_iter().map(name).collect()).collect()
    }

    #[test]
    fn the_base_first_then_each_request_with_what_it_needs_beside() {
        let all = [
            package("base-files", "Essential: yes\nPre-Depends: awk\n"),
            package("curl", "Depends: libc6, libcurl | libssh\n"),
            package("libc6", ""),
            package("libcurl", "Depends: libssh\n"),
            package("libssh", ""),
            package("mawk", "Provides: awk\nDepends: libc6\n"),
            package("nginx", "Depends: libc6, libssh\n"),
            package("stray", ""),
        ];
        let base = ["base-files", "libc6", "mawk"];
        assert_eq!(
            names_of(&all, &["nginx=1.*", "curl"]),
            [&base[..], &["libssh", "nginx"], &["curl"], &["libcurl", "stray"]]
        );
        assert_eq!(
            names_of(&all, &["curl", "nginx/trixie", "mawk"]),
            [&base[..], &["curl", "libcurl", "libssh"], &["nginx"], &["stray"]]
        );
    }

    #[test]
    fn many_requests_share_steps() {
        let requested: Vec<String> = (0..18).map(|n| n.to_string()).collect();
        let lengths: Vec<usize> = steps(&requested).map(<[_]>::len).collect();
        assert_eq!(lengths, [1, 1, 1, 1, 1, 1, 1, 1, 4, 4, 2]);
    }
}
