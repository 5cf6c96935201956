//! What differs between two releases.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ImageDigest, PackageRef, Part, Parts, Release, ReleaseService, ServiceName};

/// One difference. `old` is absent where something is new, `new` where it is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The service, if it is one's.
    pub service: Option<ServiceName>,
    /// Which part.
    pub part: Part,
    /// What of it: a package, a path, a variable; empty if there is only one of its kind.
    pub name: String,
    /// What it was.
    pub old: Option<String>,
    /// What it is.
    pub new: Option<String>,
}

impl Difference {
    /// The difference in words, without values of the environment: for those who may see that something changes
    /// and need not see to what.
    pub fn discreetly(&self) -> String {
        if self.part == Part::Env { format!("{}{}", self.subject(), self.how()) } else { self.to_string() }
    }

    fn how(&self) -> &'static str {
        match (&self.old, &self.new) {
            (Some(_), Some(_)) => "changed",
            (None, Some(_)) => "added",
            _ => "removed",
        }
    }

    fn subject(&self) -> String {
        let mut words = String::new();
        if let Some(service) = &self.service {
            words.push_str(&format!("service {service}: "));
        }
        words.push_str(&self.part.to_string());
        words.push(' ');
        if !self.name.is_empty() {
            words.push_str(&format!("{} ", self.name));
        }
        words
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (subject, how) = (self.subject(), self.how());
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => write!(f, "{subject}{old} → {new}"),
            (None, Some(new)) if !new.is_empty() => write!(f, "{subject}{new} {how}"),
            _ => write!(f, "{subject}{how}"),
        }
    }
}

/// What is in an image, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// Its packages.
    pub packages: Vec<PackageRef>,
    /// Its paths, each with what it is in a few words (kind, mode, owner, digest).
    pub files: BTreeMap<String, String>,
}

/// The differences from `old` to `new`; `contents` finds what is known of an image. Not empty if they are not the same.
pub fn differences(
    old: &Release,
    new: &Release,
    contents: &dyn Fn(&ImageDigest) -> Option<Contents>,
) -> Vec<Difference> {
    let mut found = Found { service: None, differences: Vec::new() };
    for name in both(&old.services, &new.services) {
        found.service = Some(name.clone());
        match (old.services.get(name), new.services.get(name)) {
            (Some(a), Some(b)) => service(&mut found, a, b, contents),
            (a, b) => {
                let image = |s: &ReleaseService| s.image.short();
                found.note(Part::Service, "", a.map(image), b.map(image));
            }
        }
    }
    found.service = None;
    found.parts(&Parts::of_release(old), &Parts::of_release(new));
    if found.differences.is_empty() {
        // The order of a list, and nothing else.
        found.note(Part::Release, "encoding", Some(old.id().to_string()), Some(new.id().to_string()));
    }
    found.differences
}

struct Found {
    service: Option<ServiceName>,
    differences: Vec<Difference>,
}

impl Found {
    fn note(&mut self, part: Part, name: &str, old: Option<String>, new: Option<String>) {
        if old != new {
            let (service, name) = (self.service.clone(), name.to_owned());
            self.differences.push(Difference { service, part, name, old, new });
        }
    }

    fn parts(&mut self, old: &Parts, new: &Parts) {
        for (part, name, was, is) in old.changes(new) {
            self.note(part, name, was.cloned(), is.cloned());
        }
    }

    fn maps(&mut self, part: Part, old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) {
        for key in both(old, new) {
            self.note(part, key, old.get(key).cloned(), new.get(key).cloned());
        }
    }
}

fn both<'a, K: Ord, V>(a: &'a BTreeMap<K, V>, b: &'a BTreeMap<K, V>) -> BTreeSet<&'a K> {
    a.keys().chain(b.keys()).collect()
}

fn service(
    found: &mut Found,
    a: &ReleaseService,
    b: &ReleaseService,
    contents: &dyn Fn(&ImageDigest) -> Option<Contents>,
) {
    let (image_a, image_b) = (a.image, b.image);
    if image_a != image_b {
        found.note(Part::Image, "", Some(image_a.short()), Some(image_b.short()));
        if let (Some(a), Some(b)) = (contents(&image_a), contents(&image_b)) {
            let versions = |c: &Contents| -> BTreeMap<String, String> {
                c.packages.iter().map(|p| (p.name.clone(), p.version.clone())).collect()
            };
            found.maps(Part::Package, &versions(&a), &versions(&b));
            found.maps(Part::File, &a.files, &b.files);
        }
    }
    // What has been said of the image is not said again.
    found.parts(&Parts::of_service(a), &Parts::of_service(&ReleaseService { image: image_a, ..b.clone() }));
}
