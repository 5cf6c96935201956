//! Routes of two apps that would take the same requests, or the same port.

use std::collections::BTreeMap;

use kiln_model::*;

fn release(app: &str, hosts: &[(Option<&str>, &str)], ports: &[u16]) -> Release {
    let service: ServiceName = "web".parse().unwrap();
    let route = |(n, (host, path)): (usize, &(Option<&str>, &str))| {
        let route = ReleaseRoute {
            host: host.map(|h| h.parse().unwrap()),
            path: (*path).to_owned(),
            service: service.clone(),
            https: HttpsRule::Optional,
            max_body: None,
            timeout: None,
        };
        (format!("r{n}").parse().unwrap(), route)
    };
    let tcp = |port: &u16| {
        (format!("t{port}").parse().unwrap(), ReleaseTcpRoute { port: *port, service: service.clone() })
    };
    Release {
        format: Release::FORMAT,
        app: app.parse().unwrap(),
        services: BTreeMap::new(),
        routes: hosts.iter().enumerate().map(route).collect(),
        tcp: ports.iter().map(tcp).collect(),
        certificates: vec![],
        drain: Millis(0),
        keep_warm: Millis(0),
        schema: None,
        automatic_tls: false,
        canary: None,
        policy: Default::default(),
    }
}

/// What is wrong with `new` where `old` serves already.
fn conflict(old: &Release, new: &Release) -> Option<String> {
    let state = AppState { traffic: Traffic::Settled { live: old.id() }, ..AppState::default() };
    let apps = BTreeMap::from([(old.app.clone(), state)]);
    let releases = BTreeMap::from([(old.id(), old.clone())]);
    route_conflict(new, &apps, &releases).err().map(|conflict| conflict.to_string())
}

#[test]
fn the_same_host_and_path_belong_to_one_app() {
    let old = release("old", &[(Some("a.example.com"), "/"), (None, "/api")], &[5432]);
    for (hosts, ports, expected) in [
        (vec![(Some("A.example.com"), "/")], vec![], Some("a route of app old takes a.example.com/ already")),
        (vec![(None, "/api")], vec![], Some("a route of app old takes /api of every host already")),
        (vec![], vec![5432], Some("a route of app old takes TCP port 5432 already")),
        // What is more or less specific is another route.
        (vec![(Some("a.example.com"), "/api")], vec![5433], None),
        (vec![(Some("*.example.com"), "/"), (None, "/")], vec![], None),
    ] {
        let new = release("new", &hosts, &ports);
        assert_eq!(conflict(&old, &new).as_deref(), expected, "{hosts:?} {ports:?}");
    }
    // An app is not in its own way.
    let again = release("old", &[(Some("a.example.com"), "/")], &[5432]);
    assert_eq!(conflict(&old, &again), None);
}

#[test]
fn where_canaries_are_looked_at_nobody_else_is() {
    let plain = release("old", &[(Some("a.example.com"), "/"), (None, "/b")], &[]);
    let canary = Canary {
        shares: vec![Share::WHOLE],
        terms: Terms { hold: Millis(1), within: Millis(2), errors: Share::WHOLE, slower: Share::WHOLE },
        preview: true,
    };
    let previewed = Release { canary: Some(canary.clone()), ..plain.clone() };
    let other = release("new", &[(Some("preview.a.example.com"), "/x")], &[]);
    let taken = "takes preview.a.example.com (previews of canaries) already";
    assert_eq!(conflict(&previewed, &other).unwrap(), format!("a route of app old {taken}"));
    assert_eq!(conflict(&other, &previewed).unwrap(), format!("a route of app new {taken}"));
    assert_eq!(conflict(&plain, &other), None, "without previews");
    let unseen = Release { canary: Some(Canary { preview: false, ..canary }), ..plain };
    assert_eq!(conflict(&unseen, &other), None);
}
