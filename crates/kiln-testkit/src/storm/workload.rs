//! What people ask for in a storm: releases good and bad, of apps with several services.

use kiln_model::{
    AppName, Canary, Hook, HookMoment, HostPattern, Millis, PinnedSecret, Release, ReleaseRoute,
    ReleaseTcpRoute, RouteName, ServiceName, Share, Terms,
};

use super::Chance;
use crate::sim::release;

/// What the instances of a release are like: as they should be, never well, slow to be well, not to be started one
/// time in three, ending by themselves one time in two, failing one request in two.
const KINDS: [&str; 11] =
    ["good", "good", "good", "good", "good", "good", "sick", "slow", "faulty", "brief", "leaky"];

/// The apps of a storm.
pub(super) fn apps() -> [AppName; 2] {
    ["hello", "other"].map(|name| name.parse().expect("a name"))
}

/// A port of each app, for those of its releases that have a route of plain TCP.
pub(super) const PORTS: [u16; 2] = [5001, 5002];

fn port(app: &AppName) -> u16 {
    PORTS[usize::from(*app != apps()[0])]
}

/// The host under which an app is asked for.
pub(super) fn host(app: &AppName) -> HostPattern {
    format!("{app}.example").parse().expect("a host")
}

fn a_canary(chance: &mut Chance) -> Canary {
    let all = [Share(0), Share(500), Share(2_500), Share(5_000)];
    let from = usize::try_from(chance.below(4)).unwrap_or(0);
    let (hold, within) = (Millis(1_000), Millis([1_000, 20_000][from % 2]));
    let terms = Terms { hold, within, errors: Share(100), slower: Share(5_000) };
    Canary { shares: all[from..].to_vec(), terms, preview: chance.one_in(2) }
}

/// A release of `app`.
pub(super) fn a_release(chance: &mut Chance, app: &AppName) -> Release {
    let kind = chance.pick(&KINDS).copied().unwrap_or("good");
    let name = format!("{kind}-{}", chance.below(12));
    let count = |chance: &mut Chance| 1 + u32::try_from(chance.below(3)).unwrap_or(0);
    let mut release = release(&name, count(chance));
    release.app = app.clone();
    let mut route = release.routes.pop_first().expect("it has one").1;
    route.host = Some(host(app));
    // The path tells releases apart, so that old routes over a new release would be seen.
    route.path = format!("/{name}");
    let front: ServiceName = "web".parse().expect("a name");
    release.routes.insert("web".parse().expect("a name"), ReleaseRoute { ..route.clone() });
    for (service, routed) in [("api", true), ("job", false)] {
        if !chance.one_in(3) {
            continue;
        }
        let mut settings = release.services[&front].clone();
        settings.instances = count(chance);
        let service: ServiceName = service.parse().expect("a name");
        release.services.insert(service.clone(), settings);
        if routed {
            let path = format!("/{name}/api");
            let name: RouteName = "api".parse().expect("a name");
            release.routes.insert(name, ReleaseRoute { path, service, ..route.clone() });
        }
    }
    // One version of a secret for two releases, another for the next two.
    let version = format!("s-{:020}", name.len() + name.bytes().last().map_or(0, usize::from) / 2);
    let version = version.parse().expect("a version");
    let secrets = [("KEY".parse().expect("a name"), PinnedSecret { version, env: None })];
    release.services.values_mut().for_each(|s| s.secrets = secrets.clone().into());
    a_hook(chance, &mut release);
    if chance.one_in(2) {
        let route = ReleaseTcpRoute { port: port(app), service: front };
        release.tcp.insert("raw".parse().expect("a name"), route);
    }
    release.canary = chance.one_in(3).then(|| a_canary(chance));
    release.drain = Millis([0, 1_000, 30_000][usize::try_from(chance.below(3)).unwrap_or(0)]);
    release.keep_warm = Millis([0, 5_000, 600_000][usize::try_from(chance.below(3)).unwrap_or(0)]);
    release
}

/// What a hook is like: as it should be, failing one time in two, never ending.
const HOOKS: [&str; 5] = ["good", "good", "good", "fails", "hangs"];

/// Some releases have hooks; the name of each says what becomes of it.
fn a_hook(chance: &mut Chance, release: &mut Release) {
    for service in release.services.values_mut() {
        for moment in [HookMoment::Before, HookMoment::After] {
            if !chance.one_in(6) {
                continue;
            }
            let kind = chance.pick(&HOOKS).copied().unwrap_or("good");
            let hook = Hook { run: vec![format!("/bin/hook-{kind}")], timeout: Millis(3_000) };
            match moment {
                HookMoment::Before => service.hooks.before.push(hook),
                HookMoment::After => service.hooks.after.push(hook),
            }
        }
    }
}
