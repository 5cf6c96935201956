//! In which order the services of a release come up: what is needed before what needs it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Need, Release, ReleaseService, ServiceName};

/// Services that need each other in a circle, each the next one and the last one the first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} need each other in a circle", names(.0))]
pub struct Circle(pub Vec<ServiceName>);

fn names(services: &[ServiceName]) -> String {
    services.iter().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(" -> ")
}

/// Services in layers: those of each need none but those of the layers before. `needs` says what each of them needs;
/// what is no service of these does not count.
///
/// # Errors
/// A circle, if there is one.
pub fn layers(needs: &BTreeMap<ServiceName, BTreeSet<ServiceName>>) -> Result<Vec<Vec<ServiceName>>, Circle> {
    let mut left: BTreeMap<&ServiceName, BTreeSet<&ServiceName>> =
        needs.iter().map(|(s, n)| (s, n.iter().filter(|n| needs.contains_key(*n)).collect())).collect();
    let callers = callers(&left);
    let mut ready: Vec<&ServiceName> = left.iter().filter(|(_, n)| n.is_empty()).map(|(s, _)| *s).collect();
    let mut layers = Vec::new();
    while !ready.is_empty() {
        let mut next = Vec::new();
        for service in &ready {
            left.remove(service);
            for caller in callers.get(service).into_iter().flatten() {
                let needed = left.get_mut(caller);
                if needed.is_some_and(|needed| needed.remove(service) && needed.is_empty()) {
                    next.push(*caller);
                }
            }
        }
        next.sort_unstable();
        layers.push(std::mem::replace(&mut ready, next).into_iter().cloned().collect());
    }
    if left.is_empty() { Ok(layers) } else { Err(circle(&left)) }
}

/// Who needs each.
fn callers<'a>(
    needs: &BTreeMap<&'a ServiceName, BTreeSet<&'a ServiceName>>,
) -> BTreeMap<&'a ServiceName, Vec<&'a ServiceName>> {
    let mut callers: BTreeMap<&ServiceName, Vec<&ServiceName>> = BTreeMap::new();
    for (service, needed) in needs {
        needed.iter().for_each(|n| callers.entry(n).or_default().push(service));
    }
    callers
}

/// Follows what everybody in `left` still needs until somebody comes up again.
fn circle(left: &BTreeMap<&ServiceName, BTreeSet<&ServiceName>>) -> Circle {
    let mut path: Vec<&ServiceName> = Vec::new();
    let mut next = left.keys().next().copied();
    while let Some(service) = next {
        if let Some(first) = path.iter().position(|s| *s == service) {
            return Circle(path[first..].iter().map(|s| (*s).clone()).collect());
        }
        path.push(service);
        next = left.get(service).and_then(|needed| needed.first().copied());
    }
    Circle(path.into_iter().cloned().collect())
}

impl ReleaseService {
    /// The services of the same release that it reaches.
    pub fn needed_services(&self) -> BTreeSet<ServiceName> {
        let services = self.needs.iter().filter(|(_, need)| matches!(need, Need::Service { .. }));
        // What a spec resolved to is the name of a service.
        services.filter_map(|(name, _)| name.as_str().parse().ok()).collect()
    }
}

impl Release {
    /// Its services in the order in which they come up, and who needs each. (A circle cannot come out of a spec; where
    /// one came from elsewhere, all come up at once.)
    pub fn in_order(&self) -> Vec<Vec<ServiceName>> {
        let needs = self.services.iter().map(|(name, s)| (name.clone(), s.needed_services())).collect();
        layers(&needs).unwrap_or_else(|_| vec![self.services.keys().cloned().collect()])
    }

    /// Of each service that another needs, those that do.
    pub fn needed_by(&self) -> BTreeMap<ServiceName, Vec<&ServiceName>> {
        let mut by: BTreeMap<ServiceName, Vec<&ServiceName>> = BTreeMap::new();
        for (name, service) in &self.services {
            service.needed_services().into_iter().for_each(|needed| by.entry(needed).or_default().push(name));
        }
        by
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(text: &str) -> BTreeMap<ServiceName, BTreeSet<ServiceName>> {
        let name = |s: &str| s.parse::<ServiceName>().unwrap();
        let line = |line: &str| {
            let (service, needed) = line.split_once(':').unwrap();
            (name(service), needed.split_whitespace().map(name).collect())
        };
        text.split(',').map(line).collect()
    }

    fn in_words(text: &str) -> String {
        match layers(&needs(text)) {
            Ok(layers) => {
                let layer = |l: &Vec<ServiceName>| l.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(" ");
                layers.iter().map(layer).collect::<Vec<_>>().join(" | ")
            }
            Err(circle) => circle.to_string(),
        }
    }

    #[test]
    fn what_is_needed_comes_first() {
        assert_eq!(in_words("web:"), "web");
        assert_eq!(in_words("web:api,api:auth,auth:,job:"), "auth job | api | web");
        assert_eq!(in_words("a:b c,b:d,c:d,d:"), "d | b c | a");
        assert_eq!(in_words("web:db"), "web", "a store is always up");
    }

    #[test]
    fn a_circle_is_named() {
        assert_eq!(in_words("a:b,b:a,c:"), "`a` -> `b` need each other in a circle");
        assert_eq!(in_words("x:a,a:b,b:c,c:a"), "`a` -> `b` -> `c` need each other in a circle");
        assert_eq!(in_words("w:x,x:y,y:x"), "`x` -> `y` need each other in a circle");
    }
}
