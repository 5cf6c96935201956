//! Looking at everything again: the store's files, and what runs.
//!
//! | of an instance | is compared with |
//! |---|---|
//! | the file system at its root: every name, kind, mode, owner, time, size and target | its image's metadata, hashed first |
//! | what is mounted over it | what its release declares as volatile, and what every instance has |
//! | its list of names, where it needs something | what it needs |
//! | the files of its secrets with their owners and modes, and the variables that hold them | the versions its release holds |
//! | the covers of what no instance is to see in /proc, and all that is in /dev | what every instance has |
//! | the arguments and the environment its main process was started with, its limits of memory, CPU and processes | its release |
//! | that its root cannot be written, its user, its capabilities, `no_new_privs`, seccomp | its release, and what every instance has |
//!
//! Instances of one image share one root mount; a mount is compared once, however many see it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use kiln_bake::inspect::{Ids, differences};
use kiln_model::{
    Answer, AppName, AppState, DamageEntry, Failure, ImageDigest, ReleaseId, ReleaseService,
    VerifiedInstance, VerifyAnswer,
};
use kiln_store::{Damage, Needing, OperationLog, Store, StoreError};

use super::{LocalHost, failure};
use crate::core::{InstanceReport, Past};
use crate::running::{KnownSecrets, Running};
use crate::sync::lock;

impl LocalHost {
    pub(crate) fn verify(&self, repair: bool) -> Result<Answer, Failure> {
        let apps = lock(&self.driver.core).apps().clone();
        let mut answer = store(&self.store, &apps, repair)?;
        let instances: Vec<(InstanceReport, AppName, ReleaseService)> = {
            let core = lock(&self.driver.core);
            let with_service = |i: InstanceReport| {
                let release = core.release(&i.release)?;
                let service = release.services.get(&i.fleet.service)?.clone();
                Some((i, release.app.clone(), service))
            };
            // A hook is what its service is, but for what it runs.
            let of_hook = |(instance, run): (InstanceReport, Vec<String>)| {
                let (instance, app, mut service) = with_service(instance)?;
                service.run.argv = run;
                Some((instance, app, service))
            };
            let members = core.instances().into_iter().filter_map(with_service);
            members.chain(core.hooks().into_iter().filter_map(of_hook)).collect()
        };
        let mut seen = Seen { store: &self.store, roots: HashMap::new(), secrets: KnownSecrets::default() };
        for (instance, app, service) in instances {
            let Some(pid) = instance.pid else { continue };
            for damage in answer.damage.iter_mut().filter(|damage| damage.images.contains(&service.image)) {
                damage.instances.insert(instance.id.clone());
            }
            let Some(differs) = seen.differs(pid, &app, &service) else { continue };
            let InstanceReport { id, fleet, release, .. } = instance;
            answer.instances.push(VerifiedInstance { id, service: fleet.service, release, differs });
        }
        Ok(Answer::Verify(answer))
    }
}

/// What of it needs no host. With `repair`, damaged files that can be made again are removed.
///
/// # Errors
/// What the system refused.
pub fn without_host(store: &Store, repair: bool) -> Result<VerifyAnswer, Failure> {
    let mut past = Past::default();
    let read = OperationLog::look(store, &mut |record| past.learn(&record));
    let mut answer = self::store(store, past.apps(), repair)?;
    match read {
        Ok(()) => {}
        Err(StoreError::Damaged { path, problem }) => answer.damage.push(DamageEntry::of(path, problem)),
        Err(error) => return Err(failure::store(&error)),
    }
    Ok(answer)
}

/// The store's part, held against what the log says of apps.
fn store(store: &Store, apps: &BTreeMap<AppName, AppState>, repair: bool) -> Result<VerifyAnswer, Failure> {
    let (looked_at, mut damage) = store.verify_counted().map_err(|e| failure::store(&e))?;
    damage.extend(gone(store, apps).map_err(|e| failure::store(&e))?);
    // Before any of it is removed.
    let needing = if damage.is_empty() {
        Vec::new()
    } else {
        store.who_needs(&damage).map_err(|e| failure::store(&e))?
    };
    let mut removed: Vec<PathBuf> = Vec::new();
    if repair {
        for one in &damage {
            if store.discard(one).map_err(|e| failure::store(&e))? {
                removed.push(one.path.clone());
            }
        }
    }
    let damage = damage.into_iter().zip(needing).map(|(damage, needing)| {
        let (Damage { path, problem }, Needing { images, releases }) = (damage, needing);
        DamageEntry { images, releases, ..DamageEntry::of(path, problem) }
    });
    let damage = damage.collect();
    Ok(VerifyAnswer { looked_at, damage, removed, instances: Vec::new() })
}

/// The releases that the log says can serve, and that are not there.
fn gone(store: &Store, apps: &BTreeMap<AppName, AppState>) -> kiln_store::Result<Vec<Damage>> {
    let there: BTreeSet<ReleaseId> = store.releases()?.into_iter().collect();
    let mut gone = Vec::new();
    for (app, state) in apps {
        for release in state.held().difference(&there) {
            let whose = match state.traffic.live() == Some(release) {
                true => format!("serves app {app}"),
                false => format!("can serve app {app} again"),
            };
            let problem = format!("it is missing, and the log says that it {whose}");
            gone.push(Damage { path: store.release_path(release), problem });
        }
    }
    Ok(gone)
}

/// What was found out so far that holds for several instances.
struct Seen<'a> {
    store: &'a Store,
    /// What differs in root mounts, by image, file system and the ids it is seen through.
    roots: HashMap<(ImageDigest, u64, Ids), Vec<String>>,
    secrets: KnownSecrets,
}

impl Seen<'_> {
    /// What of a running process is not as its release says; nothing if it has ended meanwhile.
    fn differs(&mut self, pid: u32, app: &AppName, service: &ReleaseService) -> Option<Vec<String>> {
        let running = Running::of(pid).ok()?;
        let mut differs = running.differs(service);
        differs.extend(running.is_not_as_ordered(service));
        differs.extend(running.other_secrets(app, service, &mut self.secrets));
        match self.root(&running, service) {
            Ok(root) => differs.extend(root),
            Err(_) if !running.is_there() => return None,
            Err(why) => differs.push(format!("its root could not be compared: {why}")),
        }
        Some(differs)
    }

    fn root(&mut self, running: &Running, service: &ReleaseService) -> Result<Vec<String>, String> {
        let root = running.root().map_err(|e| e.to_string())?;
        let key =
            (service.image, running.root_device(&root).map_err(|e| e.to_string())?, running.ids().clone());
        if let Some(known) = self.roots.get(&key) {
            return Ok(known.clone());
        }
        let handle = self.store.handle(&service.image).map_err(|e| e.to_string())?;
        let metadata = std::fs::read(&handle.metadata).map_err(|e| e.to_string())?;
        let tree = kiln_bake::erofs::read(&metadata).map_err(|e| format!("the image cannot be read: {e}"))?;
        let found = differences(&root, &tree, running.ids());
        self.roots.insert(key, found.clone());
        Ok(found)
    }
}
