//! In which order packages are configured.
//!
//! 1. What the base (the essential packages and all they need) wants done before it is unpacked (`preinst`),
//!    `base-passwd` first: the others need its users. Then the base is configured, by force, because its packages
//!    depend on each other in circles. Scripts of all other packages may use it without saying so.
//! 2. Each other package's `preinst`, after the packages it pre-depends on are configured.
//! 3. Everything that is left.

use std::collections::HashMap;

use super::package::Package;
use super::relation;

/// One thing to do; packages by their place in the list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    Preinst(usize),
    ConfigureByForce(Vec<usize>),
    Configure(Vec<usize>),
    ConfigureTheRest,
}

/// All there is to do for some packages, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// While the late ones' files are not there yet.
    pub(crate) before: Vec<Doing>,
    /// When all is there.
    pub(crate) after: Vec<Doing>,
}

/// What there is to do for `packages`; the files of the `late` ones come after their `preinst`.
pub(crate) fn plan(packages: &[Package<'_>], late: &[usize]) -> Plan {
    let count = packages.len();
    let mut planner = Planner {
        packages,
        names: names(packages),
        begun: vec![false; count],
        laid: (0..count).map(|i| !late.contains(&i)).collect(),
        configured: vec![false; count],
        todo: Vec::new(),
    };
    late.iter().for_each(|i| planner.preinst(*i));
    let before = std::mem::take(&mut planner.todo);
    planner.laid.fill(true);
    planner.base();
    (0..count).for_each(|i| planner.preinst(i));
    planner.todo.push(Doing::ConfigureTheRest);
    Plan { before, after: planner.todo }
}

/// Who goes by a name, really or by providing it.
fn names<'a>(packages: &[Package<'a>]) -> HashMap<&'a str, Vec<usize>> {
    let mut names: HashMap<&str, Vec<usize>> = HashMap::new();
    for (i, package) in packages.iter().enumerate() {
        let provided = relation::list(package.provides).map(|r| r.name);
        provided.chain([package.name()]).for_each(|name| names.entry(name).or_default().push(i));
    }
    names
}

struct Planner<'p, 'a> {
    packages: &'p [Package<'a>],
    names: HashMap<&'a str, Vec<usize>>,
    /// Whose `preinst` has been taken care of.
    begun: Vec<bool>,
    /// Whose files are there.
    laid: Vec<bool>,
    configured: Vec<bool>,
    todo: Vec<Doing>,
}

impl Planner<'_, '_> {
    fn base(&mut self) {
        let essential = (0..self.packages.len()).filter(|i| self.packages[*i].essential).collect();
        let mut base = self.with_all_needed(essential);
        if base.is_empty() {
            return;
        }
        base.retain(|i| !self.configured[*i]);
        base.sort_by_key(|i| (self.packages[*i].name() != "base-passwd", *i));
        base.iter().for_each(|i| self.configured[*i] = true);
        base.iter().for_each(|i| self.preinst(*i));
        self.todo.push(Doing::ConfigureByForce(base));
    }

    fn preinst(&mut self, package: usize) {
        if std::mem::replace(&mut self.begun[package], true) || !self.packages[package].has_preinst() {
            return;
        }
        let before = self.with_all_needed(self.meant_by(self.packages[package].pre_depends));
        let before: Vec<usize> =
            before.into_iter().filter(|i| !self.configured[*i] && *i != package).collect();
        // What is not there cannot be configured: two that are late and need each other so have to do without.
        if !before.is_empty() && before.iter().all(|i| self.laid[*i]) {
            before.iter().for_each(|i| self.preinst(*i));
            before.iter().for_each(|i| self.configured[*i] = true);
            self.todo.push(Doing::Configure(before));
        }
        self.todo.push(Doing::Preinst(package));
    }

    fn meant_by(&self, field: &str) -> Vec<usize> {
        let all = relation::groups(field).flatten().filter_map(|r| self.names.get(r.name));
        all.flatten().copied().collect()
    }

    /// `packages` and everything here that they need, sorted.
    fn with_all_needed(&self, packages: Vec<usize>) -> Vec<usize> {
        let mut found = vec![false; self.packages.len()];
        let mut todo = packages;
        while let Some(i) = todo.pop() {
            if !std::mem::replace(&mut found[i], true) {
                todo.extend(self.meant_by(self.packages[i].pre_depends));
                todo.extend(self.meant_by(self.packages[i].depends));
            }
        }
        (0..found.len()).filter(|i| found[*i]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debian::deb::Deb;
    use crate::debian::package::testing;
    use kiln_model::LockedPackage;

    fn package(name: &str, fields: &str, preinst: bool) -> (LockedPackage, Deb) {
        let (locked, mut deb) = testing::package(name, fields);
        if preinst {
            testing::add(&mut deb.control, "/preinst", "#!/bin/sh\n");
        }
        (locked, deb)
    }

    #[test]
    fn a_preinst_runs_when_what_it_pre_depends_on_is_configured() {
        let all = [
            package("base-files", "Essential: yes\nPre-Depends: awk\n", true),
            package("adduser", "Depends: passwd\n", false),
            package("base-passwd", "Essential: yes\n", true),
            package("db", "Pre-Depends: adduser\n", true),
            package("mawk", "Provides: awk\n", false),
            package("passwd", "", true),
        ];
        let packages: Vec<_> = all.iter().map(|(l, d)| Package::new(l, d).unwrap()).collect();
        let expected = [
            Doing::Preinst(2),
            Doing::Preinst(0),
            Doing::ConfigureByForce(vec![2, 0, 4]),
            Doing::Preinst(5),
            Doing::Configure(vec![1, 5]),
            Doing::Preinst(3),
            Doing::ConfigureTheRest,
        ];
        assert_eq!(plan(&packages, &[]), Plan { before: Vec::new(), after: expected.into() });
    }

    /// What a late one pre-depends on is configured before its `preinst`, and not again.
    #[test]
    fn a_preinst_that_comes_before_its_files_has_what_it_pre_depends_on() {
        let all = [
            package("adduser", "Depends: passwd\n", false),
            package("app", "", true),
            package("db", "Pre-Depends: adduser\n", true),
            package("needy", "Pre-Depends: db\n", true),
            package("passwd", "", true),
        ];
        let packages: Vec<_> = all.iter().map(|(l, d)| Package::new(l, d).unwrap()).collect();
        let before = vec![
            Doing::Preinst(4),
            Doing::Configure(vec![0, 4]),
            Doing::Preinst(2),
            // Nothing of db is there.
            Doing::Preinst(3),
        ];
        let after = vec![Doing::Preinst(1), Doing::ConfigureTheRest];
        assert_eq!(plan(&packages, &[2, 3]), Plan { before, after });
    }
}
