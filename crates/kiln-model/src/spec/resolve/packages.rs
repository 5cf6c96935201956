//! `packages` and `suites` of an image.

use std::collections::BTreeSet;

use super::{Place, Problems};
use crate::spec::{Base, ImageFile, RankedSuiteFile, SuiteFile, SuiteSpec};

/// The priority of a further suite of which nothing else is said: below that of the base.
const FURTHER: u16 = 100;

/// Reports what is wrong with the packages asked for.
pub(super) fn packages(
    file: &ImageFile,
    base: Option<&Base>,
    place: &Place,
    problems: &mut Problems<'_, '_>,
) {
    let place = place.key("packages");
    if base == Some(&Base::Scratch) && !file.packages.is_empty() {
        problems
            .value(&place, "an image from `scratch` has no distribution to take packages from")
            .expected("`from = \"debian:bookworm\"`, or no packages");
    }
    if matches!(base, Some(Base::Oci(_))) && !file.packages.is_empty() {
        problems
            .value(
                &place,
                "an OCI image brings what it has: Kiln does not know how it was put together, and adds no packages",
            )
            .expected(
                "no packages here (`build` can run the image's own package manager on files of the project), or \
                 `from = \"debian:bookworm\"`",
            );
    }
    if matches!(base, Some(Base::Handmade(_))) && !file.packages.is_empty() {
        problems
            .value(&place, "a handmade image is taken as it is: packages cannot be added to it")
            .expected(
                "no packages here, or `from = \"debian:bookworm\"` and what was changed by hand in `files`",
            );
    }
    let mut suites: Vec<&str> = file.suites.iter().map(|s| ranked(s).0).collect();
    if let Some(Base::Debian { suite }) = base {
        suites.push(suite);
    }
    for (index, wanted) in file.packages.iter().enumerate() {
        package(wanted, &suites, &place.item(index), problems);
    }
}

/// `name`, `name=version` or `name/suite`.
fn package(wanted: &str, suites: &[&str], place: &Place, problems: &mut Problems<'_, '_>) {
    if let Some((name, version)) = wanted.split_once('=') {
        package_name(name, place, problems);
        if !is_version(version.strip_suffix('*').unwrap_or(version)) || version == "*" {
            problems.value(place, format!("`{}` is not a version", version.escape_debug())).expected(
                "a version like `1.22.1-9`, or the beginning of one with `*` behind it like `1.22.*`",
            );
        }
    } else if let Some((name, suite)) = wanted.split_once('/') {
        package_name(name, place, problems);
        if !suites.contains(&suite) {
            problems
                .value(place, format!("the image has no suite `{}`", suite.escape_debug()))
                .expected(format!("one of its own, or a line `suites = [\"{}\"]`", suite.escape_debug()))
                .nearest(suite, suites.iter().copied());
        }
    } else {
        package_name(wanted, place, problems);
    }
}

/// The characters of Debian Policy 5.6.12.
fn is_version(version: &str) -> bool {
    version.starts_with(|c: char| c.is_ascii_digit())
        && version.bytes().all(|c| c.is_ascii_alphanumeric() || b".+-~:".contains(&c))
}

/// The rules of Debian Policy 5.6.1.
pub(super) fn package_name(name: &str, place: &Place, problems: &mut Problems<'_, '_>) {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"+-.".contains(&c);
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if name.len() < 2 || !starts_well || !name.bytes().all(allowed) {
        problems.value(place, format!("`{}` is not the name of a package", name.escape_debug())).expected(
            "a name like `nginx-light`, maybe with a version (`nginx=1.22.*`) or a suite behind it",
        );
    }
}

/// What is asked for twice is asked for once, where it comes first.
pub(super) fn without_repetition(packages: &[String]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    packages.iter().filter(|p| seen.insert(*p)).cloned().collect()
}

/// The further suites, each with its priority.
pub(super) fn suites(
    file: &ImageFile,
    base: Option<&Base>,
    place: &Place,
    problems: &mut Problems<'_, '_>,
) -> Vec<SuiteSpec> {
    if base == Some(&Base::Scratch) && !file.suites.is_empty() {
        problems.value(place, "an image from `scratch` has no distribution with suites");
    }
    let mut all: Vec<SuiteSpec> = Vec::new();
    for (index, written) in file.suites.iter().enumerate() {
        let place = place.item(index);
        let (name, priority) = ranked(written);
        if !is_suite(name) {
            problems
                .value(&place, format!("`{}` is not the name of a suite", name.escape_debug()))
                .expected("a code name like `bookworm-backports`");
        } else if all.iter().any(|s| s.name == name)
            || matches!(base, Some(Base::Debian { suite }) if suite == name)
        {
            problems.value(&place, format!("the suite `{name}` is named twice"));
        } else if !(1..1000).contains(&priority) {
            problems.value(&place, format!("the priority {priority} is out of range")).expected("1 to 999");
        }
        all.push(SuiteSpec { name: name.to_owned(), priority });
    }
    all
}

fn ranked(written: &SuiteFile) -> (&str, u16) {
    match written {
        SuiteFile::Name(name) => (name, FURTHER),
        SuiteFile::Ranked(RankedSuiteFile { name, priority }) => (name, *priority),
    }
}

pub(super) fn is_suite(suite: &str) -> bool {
    suite.starts_with(|c: char| c.is_ascii_lowercase())
        && suite.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
}
