//! A shelf of releases that only differ in their name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use kiln_control::{Shelf, Trouble};
use kiln_model::{
    AppName, ByteSize, ImageDigest, ImageHandle, Limits, Millis, PinnedSecret, Probe, Release, ReleaseId,
    ReleaseRoute, ReleaseService, RunSettings, SecretName, SecretOrder, SecretValue, Sha256,
};

use super::lock;

/// Cloneable handle: all clones are the same shelf.
#[derive(Debug, Clone, Default)]
pub struct FakeShelf(Arc<Mutex<BTreeMap<ReleaseId, Release>>>);

impl FakeShelf {
    /// Puts a release there.
    pub fn put(&self, release: Release) {
        lock(&self.0).insert(release.id(), release);
    }

    /// The short ids of all releases there and the names of their images.
    pub(super) fn names(&self) -> Vec<(String, String)> {
        let shelf = lock(&self.0);
        let name = |r: &Release| r.services.values().next().map_or("?", |s| &s.run.argv[0][5..]).to_owned();
        shelf.iter().map(|(id, release)| (id.short().to_owned(), name(release))).collect()
    }
}

impl Shelf for FakeShelf {
    fn release(&self, id: &ReleaseId) -> Result<Release, Trouble> {
        lock(&self.0).get(id).cloned().ok_or_else(|| Trouble(format!("there is no release {id}")))
    }

    fn image(&self, digest: &ImageDigest) -> Result<ImageHandle, Trouble> {
        Ok(ImageHandle { digest: *digest, metadata: "/nowhere".into(), objects: "/nowhere".into() })
    }

    fn secrets(&self, _: &AppName, service: &ReleaseService) -> Result<Vec<SecretOrder>, Trouble> {
        Ok(opened(service))
    }
}

/// The secrets of a service; the value of each is the name of its version.
pub(crate) fn opened(service: &ReleaseService) -> Vec<SecretOrder> {
    let order = |(name, pinned): (&SecretName, &PinnedSecret)| {
        let value = SecretValue::new(pinned.version.as_str().into()).expect("a short value");
        SecretOrder { name: name.clone(), value, env: pinned.env.clone() }
    };
    service.secrets.iter().map(order).collect()
}

/// The release of the app `hello` whose only service is `web` and whose image is called `name`.
pub fn release(name: &str, instances: u32) -> Release {
    let run = RunSettings::as_root([format!("/bin/{name}")]);
    let service = ReleaseService {
        image: ImageDigest(Sha256::of(name.as_bytes())),
        run,
        env: BTreeMap::new(),
        volatile: Vec::new(),
        port: 8080,
        protocol: kiln_model::Protocol::Http1,
        circuit: None,
        instances,
        limits: Limits { memory: ByteSize(1 << 26), cpu_millis: 500, pids: 64, io: None },
        probe: Probe::Tcp,
        probe_interval: Millis(100),
        probe_timeout: Millis(1_000),
        healthy_after: 2,
        unhealthy_after: 3,
        start_timeout: Millis(5_000),
        needs: std::collections::BTreeMap::new(),
        secrets: BTreeMap::new(),
        checks: Default::default(),
        hooks: Default::default(),
        capabilities: Default::default(),
    };
    let web: kiln_model::ServiceName = "web".parse().expect("a name");
    let route = ReleaseRoute {
        host: None,
        path: "/".into(),
        service: web.clone(),
        https: kiln_model::HttpsRule::Optional,
        max_body: None,
        timeout: None,
    };
    Release {
        format: Release::FORMAT,
        app: super::Sim::app(),
        services: [(web, service)].into(),
        routes: [("web".parse().expect("a name"), route)].into(),
        tcp: BTreeMap::new(),
        certificates: Vec::new(),
        drain: Millis(30_000),
        keep_warm: Millis(600_000),
        schema: None,
        canary: None,
        automatic_tls: false,
        policy: Default::default(),
    }
}
