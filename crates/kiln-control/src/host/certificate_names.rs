//! The names that a host gets certificates for itself, and those it cannot get one for.
//!
//! Whoever writes `preview = true` is promised `preview.HOST`, so that is a name to get one for as well. It comes last: it
//! may well be a name that leads nowhere, and must hold up no other.

use std::collections::BTreeSet;

use kiln_model::{HostPattern, Release};

/// What the host of a preview begins with.
const PREVIEW: &str = "preview.";

/// What is wanted by releases that serve.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// Hosts of routes.
    hosts: BTreeSet<String>,
    /// Hosts of previews.
    previews: BTreeSet<String>,
    /// Those that stand for all names below another.
    wild: BTreeSet<String>,
}

impl Names {
    /// `files`: what certificates that are files of the host are for.
    pub(super) fn of(releases: &[Release], files: &BTreeSet<String>) -> Self {
        let automatic = || releases.iter().filter(|release| release.automatic_tls);
        let with_previews = |release: &&Release| release.canary.as_ref().is_some_and(|c| c.preview);
        let previews = automatic().filter(with_previews).flat_map(names);
        let taken: BTreeSet<&str> = releases.iter().flat_map(names).collect();
        // What a route names is no preview, and what a file covers is served already. A name may get too long.
        let is_wanted = |name: &String| {
            let is_name = name.parse::<HostPattern>().is_ok();
            is_name && !taken.contains(name.as_str()) && !is_covered(name, files)
        };
        let is_wild = |host: &&str| host.starts_with("*.") && !is_covered(host, files);
        Self {
            hosts: automatic().flat_map(names).map(str::to_owned).collect(),
            previews: previews.map(|host| format!("{PREVIEW}{host}")).filter(is_wanted).collect(),
            wild: automatic().flat_map(hosts).filter(is_wild).map(str::to_owned).collect(),
        }
    }

    /// Those to be got, in this order.
    pub(super) fn to_get(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().chain(&self.previews).map(String::as_str)
    }

    /// Whether it is to be got because there may be previews.
    pub(super) fn is_preview(&self, name: &str) -> bool {
        self.previews.contains(name)
    }

    /// What people should know of names that none can be got for.
    pub(super) fn doubts(&self) -> impl Iterator<Item = String> {
        let doubt = |host: &String| {
            format!(
                "`[tls] automatic` gets no certificate for {host}: that takes a proof in the DNS, and this host \
                 proves itself by answering; name a file that covers it in `certificates` of [tls], or give each \
                 name below it a route"
            )
        };
        self.wild.iter().map(doubt)
    }
}

fn hosts(release: &Release) -> impl Iterator<Item = &str> {
    release.routes.values().filter_map(|route| route.host.as_ref()).map(HostPattern::as_str)
}

/// The hosts that are whole names.
fn names(release: &Release) -> impl Iterator<Item = &str> {
    hosts(release).filter(|host| !host.starts_with("*."))
}

/// Whether one of these is this name, or stands for it.
fn is_covered(name: &str, files: &BTreeSet<String>) -> bool {
    files.contains(name)
        || name.split_once('.').is_some_and(|(_, parent)| files.contains(&format!("*.{parent}")))
}

#[cfg(test)]
mod tests {
    use kiln_model::{Canary, HttpsRule, Millis, ReleaseRoute, Share, Terms};

    use super::*;

    fn release(hosts: &[&str], preview: bool) -> Release {
        let text = include_str!("../../../kiln-model/tests/fixtures/release-2.json");
        let release = Release::decode(text.trim_end().as_bytes()).unwrap();
        let route = |(number, host): (usize, &&str)| {
            let (host, path, service) = (Some(host.parse().unwrap()), "/".into(), "web".parse().unwrap());
            let (https, max_body, timeout) = (HttpsRule::Optional, None, None);
            let route = ReleaseRoute { host, path, service, https, max_body, timeout };
            (format!("r{number}").parse().unwrap(), route)
        };
        let routes = hosts.iter().enumerate().map(route).collect();
        let terms = Terms { hold: Millis(1), within: Millis(1), errors: Share(1), slower: Share(1) };
        let canary = Some(Canary { shares: vec![Share(1)], terms, preview });
        Release { routes, canary, automatic_tls: true, ..release }
    }

    fn files(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn to_get(releases: &[Release], covered: &[&str]) -> Vec<String> {
        Names::of(releases, &files(covered)).to_get().map(str::to_owned).collect()
    }

    #[test]
    fn previews_have_names_of_their_own_behind_all_others() {
        let long = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(57));
        let releases = [release(&["b.com", "a.com", "*.c.com", &long], true), release(&["z.com"], false)];
        let hosts = ["a.com", &long, "b.com", "z.com"];
        assert_eq!(to_get(&releases, &[]), [&hosts[..], &["preview.a.com", "preview.b.com"]].concat());
        assert_eq!(
            to_get(&releases, &["*.a.com", "preview.b.com"]),
            hosts,
            "what a file covers needs no other"
        );
        assert_eq!(
            to_get(&[release(&["a.com", "preview.a.com"], true)], &[]),
            ["a.com", "preview.a.com", "preview.preview.a.com"]
        );
        // Somebody else's host is nobody's preview, whether or not it gets a certificate here.
        let other = Release { automatic_tls: false, ..release(&["preview.a.com"], false) };
        assert_eq!(to_get(&[release(&["a.com"], true), other], &[]), ["a.com"]);
        let manual = Release { automatic_tls: false, ..release(&["a.com"], true) };
        assert_eq!(to_get(&[manual], &[]), [""; 0]);
    }

    #[test]
    fn a_name_for_all_below_it_is_told_of_unless_a_file_covers_it() {
        let releases = [release(&["a.com", "*.c.com"], true)];
        let told = |releases: &[Release], covered: &[&str]| -> Vec<String> {
            Names::of(releases, &files(covered)).doubts().collect()
        };
        let doubts = told(&releases, &["c.com", "*.a.com"]);
        assert!(doubts.len() == 1 && doubts[0].contains("no certificate for *.c.com"), "{doubts:?}");
        assert_eq!(told(&releases, &["*.c.com"]), [""; 0]);
        let manual = Release { automatic_tls: false, ..releases[0].clone() };
        assert_eq!(told(&[manual], &[]), [""; 0]);
    }
}
