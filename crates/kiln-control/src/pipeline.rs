//! From a project to baked images: lock if needed, bake each image, tell how it goes.

use std::collections::{BTreeMap, BTreeSet};

use kiln_bake::export::ExportError;
use kiln_bake::{BakeError, BakeOrder, Baked, Reasons, Report, Update};
use kiln_model::spec::{Base, ImageSpec};
use kiln_model::{BakedImage, Event, ExitCode, Failure, ImageName, ImageRecord, Lock, Progress, Stamped};
use kiln_store::Store;

use crate::contract::EventSink;
use crate::host::failure;
use crate::project::Project;
use crate::world::Clock;

/// Passes on how a bake goes, and whether it is still wanted.
pub struct Teller<'a> {
    events: &'a dyn EventSink,
    clock: &'a dyn Clock,
}

impl<'a> Teller<'a> {
    /// Tells `events`.
    pub fn new(events: &'a dyn EventSink, clock: &'a dyn Clock) -> Self {
        Self { events, clock }
    }
}

impl Report for Teller<'_> {
    fn progress(&self, progress: Progress) {
        self.events.event(Stamped { at: self.clock.now(), event: Event::Progress(progress) });
    }

    fn cancelled(&self) -> bool {
        self.events.gone()
    }
}

/// A lock that was brought up to date.
pub struct Relocked {
    /// What it was before.
    pub old: Option<Lock>,
    /// What it is now.
    pub new: Lock,
    /// Why packages are there, as far as they were chosen anew.
    pub reasons: Reasons,
}

/// Brings the lock up to what the spec asks for, as far as `update` says, and writes it if it has changed.
///
/// # Errors
/// If something asked for does not exist, the mirror does not answer, or a signature is wrong.
pub fn lock(
    project: &Project,
    store: &Store,
    update: &Update,
    events: &dyn EventSink,
    clock: &dyn Clock,
) -> Result<Relocked, Failure> {
    let old = project.lock()?;
    let orders = orders(project)?;
    if let Update::Packages(names) = update {
        are_known(names, &orders, old.as_ref())?;
    }
    let teller = Teller { events, clock };
    let (new, reasons) = kiln_bake::lock_with_reasons(&orders, old.as_ref(), update, store, &teller)?;
    if old.as_ref() != Some(&new) {
        project.put_lock(&new)?;
    }
    Ok(Relocked { old, new, reasons })
}

/// Whether every name is that of something locked or asked for.
fn are_known(names: &[String], orders: &[BakeOrder], old: Option<&Lock>) -> Result<(), Failure> {
    let locked = old.iter().flat_map(|lock| lock.images.values()).flat_map(|image| &image.packages);
    let asked =
        orders.iter().flat_map(|order| &order.packages).map(|p| p.split(['=', '/']).next().unwrap_or(p));
    let over_image =
        |order: &&BakeOrder| matches!(order.from, kiln_bake::Base::Oci(_) | kiln_bake::Base::Handmade(_));
    let over_image = orders.iter().filter(over_image);
    let known: BTreeSet<&str> = locked
        .map(|p| p.name.as_str())
        .chain(asked)
        .chain(over_image.map(|order| order.image.as_str()))
        .collect();
    let Some(unknown) = names.iter().find(|name| !known.contains(name.as_str())) else { return Ok(()) };
    let message = format!("there is nothing called `{unknown}` to update");
    let failure = Failure::new(ExitCode::Usage, message).because(
        "neither kiln.lock nor kiln.toml has a package of that name, or an image of that name from OCI or made by hand",
    );
    Err(match kiln_bake::nearest_name(unknown, known.into_iter()) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure.hint("`kiln lock --update` without names updates everything"),
    })
}

/// Bakes every image of a project. With `locked`, a lock that does not answer the spec is an error.
///
/// # Errors
/// If the lock or a bake fails; images baked before it stay.
pub fn bake(
    project: &Project,
    store: &Store,
    locked: bool,
    events: &dyn EventSink,
    clock: &dyn Clock,
) -> Result<BTreeMap<ImageName, Baked>, Failure> {
    failure::refuse_memory_disk(store)?;
    let _use = store.while_in_use().map_err(|e| failure::store(&e))?;
    let teller = Teller { events, clock };
    let old = project.lock()?;
    let orders = orders(project)?;
    files_exist(project, &orders)?;
    if locked && !is_answered(&orders, old.as_ref()) {
        return Err(Failure::new(ExitCode::Spec, "kiln.lock does not answer what kiln.toml asks for")
            .hint("run `kiln lock` and commit the result, or leave out --locked"));
    }
    let lock = kiln_bake::lock(&orders, old.as_ref(), &Update::Nothing, store, &teller)?;
    // `--locked` is a promise: not even what the spec has no use for any more is taken out.
    if !locked && old.as_ref() != Some(&lock) {
        project.put_lock(&lock)?;
    }
    let mut images = BTreeMap::new();
    for order in &orders {
        let baked = kiln_bake::bake(order, &lock, store, &teller)?;
        let image = baked_image(&baked.record, baked.reused, baked.millis);
        let event = Event::Baked { name: order.image.to_string(), image };
        events.event(Stamped { at: clock.now(), event });
        images.insert(order.image.clone(), baked);
    }
    Ok(images)
}

/// The image `name` of a project, if it has been baked from just what is there now: spec, lock and files.
///
/// # Errors
/// If the lock is invalid, the files cannot be read, or the image's record is damaged.
pub fn baked_before(
    project: &Project,
    name: &ImageName,
    store: &Store,
) -> Result<Option<ImageRecord>, Failure> {
    let (Some(lock), Some(image)) = (project.lock()?, project.spec.images.get(name)) else { return Ok(None) };
    let order = order(project, name, image, architecture()?);
    kiln_bake::baked_before(&order, &lock, store).map_err(|error| match error {
        // Nothing is baked here: it is as with all that is damaged of an image.
        BakeError::Store(error) => ExportError::Store(error).into(),
        error => error.into(),
    })
}

/// Refuses a spec that speaks of files which are not there, before anything is fetched for it.
fn files_exist(project: &Project, orders: &[BakeOrder]) -> Result<(), Failure> {
    for order in orders {
        if let Some((index, problem)) = kiln_bake::missing_file(order) {
            return Err(project.wrong_file(&order.image, index, &problem.to_string()));
        }
    }
    Ok(())
}

fn is_answered(orders: &[BakeOrder], lock: Option<&Lock>) -> bool {
    let answered = |order: &BakeOrder| {
        lock.and_then(|l| l.images.get(&order.image))
            .is_some_and(|i| i.request.asks_the_same(&order.lock_request()))
    };
    orders.iter().all(answered)
}

fn orders(project: &Project) -> Result<Vec<BakeOrder>, Failure> {
    let architecture = architecture()?;
    Ok(project.spec.images.iter().map(|(name, image)| order(project, name, image, architecture)).collect())
}

fn order(project: &Project, name: &ImageName, image: &ImageSpec, architecture: &str) -> BakeOrder {
    let from = match &image.base {
        Base::Debian { suite } => kiln_bake::Base::Debian { suite: suite.clone() },
        Base::Scratch => kiln_bake::Base::Scratch,
        Base::Oci(reference) => kiln_bake::Base::Oci(reference.clone()),
        Base::Handmade(name) => kiln_bake::Base::Handmade(name.clone()),
    };
    let file = |f: &kiln_model::spec::CopySpec| kiln_bake::FileSpec {
        src: f.src.clone(),
        dst: f.dst.clone(),
        mode: f.mode,
        owner: f.owner.clone(),
    };
    BakeOrder {
        image: name.clone(),
        project: project.dir.clone(),
        from,
        packages: image.packages.clone(),
        suites: image.suites.iter().map(suite).collect(),
        recommends: image.recommends,
        files: image.files.iter().map(file).collect(),
        dirs: image.dirs.clone(),
        links: image.links.clone(),
        users: image.users.clone(),
        build: image.build.clone(),
        build_network: image.build_network,
        run: image.run.clone(),
        // Root needs no entry in a passwd file; an image from scratch may have none.
        user: image.user.clone().map(|user| if user == "root" { "0".to_owned() } else { user }),
        env: image.env.clone(),
        workdir: image.workdir.clone(),
        stop_signal: image.stop_signal,
        stop_grace: image.stop_grace,
        volatile: image.volatile.clone(),
        sources: kiln_bake::Sources {
            mirror: project.spec.sources.debian_mirror.clone(),
            check_valid_until: None,
        },
        architecture: architecture.to_owned(),
    }
}

fn suite(suite: &kiln_model::spec::SuiteSpec) -> kiln_bake::Suite {
    kiln_bake::Suite { name: suite.name.clone(), priority: suite.priority }
}

/// This machine's architecture as Debian names it.
///
/// # Errors
/// If Debian has no name for it that Kiln knows.
pub fn architecture() -> Result<&'static str, Failure> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => Err(Failure::new(
            ExitCode::Host,
            format!("Kiln does not know Debian's name for this {other} machine"),
        )),
    }
}

/// An image as the events and answers show it.
fn baked_image(record: &ImageRecord, reused: bool, millis: u64) -> BakedImage {
    BakedImage {
        digest: record.digest,
        bytes: record.metadata_bytes + record.content_bytes,
        reused,
        packages: record.packages.len() as u64,
        millis,
        left_out: record.left_out.clone(),
    }
}
