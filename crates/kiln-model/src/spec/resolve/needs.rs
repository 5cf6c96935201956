//! `needs` of services, and `[store.NAME]`.

use std::collections::BTreeMap;

use super::{Place, Problems, parse, refer};
use crate::spec::{ServiceFile, SpecFile};
use crate::{BadStoreAddress, MOST_NEEDS, Need, NeedName, StoreAddress, StoreName};

/// What is wrong with stores whoever needs them.
pub(super) fn stores(file: &SpecFile, problems: &mut Problems<'_, '_>) {
    for (name, store) in &file.store {
        let place = Place::default().key("store").key(name);
        if let Err(e) = name.parse::<StoreName>() {
            problems.key(&place, e.to_string());
        }
        if file.service.contains_key(name) {
            let message = format!("`{name}` is a service, too: whoever needs it could mean either");
            problems.key(&place, message).expected("another name");
        }
        let address: Result<StoreAddress, BadStoreAddress> = store.address.parse();
        if let Err(e) = address {
            problems.value(&place.key("address"), e.to_string()).expected(
                "a host and a port, like `10.0.0.5:5432`, `db.example.com:5432` or `localhost:5432`",
            );
        }
    }
}

/// What a service of the spec `all` needs.
pub(super) fn needs(
    file: &ServiceFile,
    all: &SpecFile,
    place: &Place,
    problems: &mut Problems<'_, '_>,
) -> BTreeMap<NeedName, Need> {
    // Nobody means the service itself.
    let others =
        all.service.iter().filter(|(_, service)| !std::ptr::eq(*service, file)).map(|(name, _)| name);
    let there: Vec<&str> = all.store.keys().chain(others).map(String::as_str).collect();
    let mut needs = BTreeMap::new();
    for (index, name) in file.needs.iter().enumerate() {
        let place = place.key("needs").item(index);
        if all.service.get(name).is_some_and(|service| std::ptr::eq(service, file)) {
            problems.value(&place, "a service reaches itself anyway, at 127.0.0.1");
            continue;
        }
        if !refer(&["store", "service"], name, &there, &place, problems) {
            continue;
        }
        let need = match (all.service.get(name), all.store.get(name)) {
            (Some(service), _) => Some(Need::Service { port: service.port }),
            (None, store) => {
                store.and_then(|s| s.address.parse().ok()).map(|address| Need::Store { address })
            }
        };
        // Wrong addresses are reported where they stand.
        let (Some(need), Some(name)) = (need, parse::<NeedName>(name, &place, problems)) else { continue };
        if need.ports(file.port).is_empty() {
            let message = format!("`{name}` is reached on port {}, which is the service's own", file.port);
            problems.value(&place, message).expected("another port for one of them");
        }
        needs.insert(name, need);
    }
    if needs.len() > MOST_NEEDS {
        problems
            .value(&place.key("needs"), format!("{} needs are more than a service can have", needs.len()))
            .expected(format!("{MOST_NEEDS} at most"));
    }
    needs
}
