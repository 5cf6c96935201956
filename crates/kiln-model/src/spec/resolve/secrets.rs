//! `secrets` of a service.

use std::collections::{BTreeMap, BTreeSet};

use super::{Place, Problems, parse};
use crate::SecretName;
use crate::spec::{SecretFile, ServiceFile};

/// More secrets than this for one service are a slip of the finger, and a file system of their own.
const MOST: usize = 64;

/// The secrets of a service, by name, each with its environment variable, if any.
pub(super) fn secrets(
    file: &ServiceFile,
    place: &Place,
    problems: &mut Problems<'_, '_>,
) -> BTreeMap<SecretName, Option<String>> {
    let place = place.key("secrets");
    if file.secrets.len() > MOST {
        problems.value(&place, format!("a service is given at most {MOST} secrets"));
    }
    let mut variables = BTreeSet::new();
    let mut secrets = BTreeMap::new();
    for (index, written) in file.secrets.iter().enumerate() {
        let place = place.item(index);
        let (name, variable, name_place) = match written {
            SecretFile::Name(name) => (name, None, place.clone()),
            SecretFile::Table(table) => (&table.name, table.env.clone(), place.key("name")),
        };
        if let Some(variable) = &variable {
            is_free(variable, file, &mut variables, &place.key("env"), problems);
        }
        let Some(name) = parse::<SecretName>(name, &name_place, problems) else { continue };
        if secrets.insert(name.clone(), variable).is_some() {
            problems.value(&name_place, format!("secret `{name}` is named twice"));
        }
    }
    secrets
}

/// A variable holds one thing.
fn is_free(
    variable: &str,
    file: &ServiceFile,
    taken: &mut BTreeSet<String>,
    place: &Place,
    problems: &mut Problems<'_, '_>,
) {
    let is_name = |v: &str| {
        !v.is_empty()
            && !v.starts_with(|c: char| c.is_ascii_digit())
            && v.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
    };
    if !is_name(variable) {
        problems
            .value(place, format!("`{variable}` is not the name of an environment variable"))
            .expected("A-Z, a-z, 0-9 and _, not starting with a digit");
    }
    if file.env.contains_key(variable) || !taken.insert(variable.to_owned()) {
        problems.value(place, format!("the environment variable `{variable}` is set twice"));
    }
}
