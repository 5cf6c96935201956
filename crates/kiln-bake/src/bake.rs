//! From an order and its lock to an image.

use std::thread;
use std::time::Instant;

use kiln_model::{ImageRecord, LeftOut, Lock, LockedImage, Sha256};
use kiln_store::{Store, StoreError};

use crate::debian::{self, Root};
use crate::files::{self, Found};
use crate::hidden::hidden;
use crate::merge::{self, Inputs};
use crate::order::{BakeOrder, Baked, Base, Report};
use crate::report::Task;
use crate::sbom::Distribution;
use crate::settings::Settings;
use crate::tree_edit::TreeEdit;
use crate::{BakeError, build, erofs, handmade, lock, machine_own, oci, provenance, sbom, skeleton, users};

/// Changes with everything in this crate that changes what comes out of the same inputs.
const RECIPE: &str = "kiln bake 8";
/// "Now" in an image without packages: 2020-01-01.
const EPOCH_WITHOUT_PACKAGES: i64 = 1_577_836_800;

/// Bakes `order` from `lock` into `store`. An image whose inputs have not changed is found again and not made.
///
/// # Errors
/// What kept it from being baked; the store then holds no new image.
pub fn bake(order: &BakeOrder, lock: &Lock, store: &Store, report: &dyn Report) -> Result<Baked, BakeError> {
    let begun = Instant::now();
    let locked = lock::answer(order, lock)?;
    let found = files::find(order, store.root(), &|| report.cancelled())
        .map_err(|error| BakeError::of_files(order, error))?;
    let inputs = inputs(order, locked, &found);
    let (record, reused) = match unchanged(&inputs, store)? {
        Some(record) => (record, true),
        None => (made_whole(store, || make(order, locked, &found, inputs, store, report))?, false),
    };
    let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Baked { record, reused, millis })
}

fn inputs(order: &BakeOrder, locked: &LockedImage, found: &[Found]) -> Sha256 {
    let packages: Vec<&Sha256> = locked.packages.iter().map(|p| &p.sha256).collect();
    // What it starts from; which kind of thing that is, the order says.
    let base = locked.oci.as_ref().map(|oci| oci.manifest).or(locked.handmade.map(|image| image.0));
    // Packages are configured in the order of the lock.
    let requested = &locked.request.requested;
    let all =
        (RECIPE, debian::RECIPE, &order.architecture, Inputs::new(order, found), packages, requested, base);
    Sha256::of(&serde_json::to_vec(&all).expect("plain data that JSON can hold"))
}

/// What is recorded of the image of `order` and `lock`, if it has been baked from just that; it may be damaged since.
///
/// # Errors
/// If the project's files cannot be read, or the system refuses; a lock that does not answer is no error.
pub fn baked_before(order: &BakeOrder, lock: &Lock, store: &Store) -> Result<Option<ImageRecord>, BakeError> {
    let Ok(locked) = lock::answer(order, lock) else { return Ok(None) };
    let found =
        files::find(order, store.root(), &|| false).map_err(|error| BakeError::of_files(order, error))?;
    Ok(store.image_by_inputs(&inputs(order, locked, &found))?)
}

/// The image of these inputs, if the store has it whole.
fn unchanged(inputs: &Sha256, store: &Store) -> Result<Option<ImageRecord>, BakeError> {
    let whole = |record: &ImageRecord| {
        thread::scope(|scope| {
            // Its metadata is hashed meanwhile.
            let metadata = scope.spawn(|| store.handle_of(record).is_ok());
            let objects = store.has_objects_of(&record.digest).unwrap_or(false);
            objects && metadata.join().unwrap_or(false)
        })
    };
    match store.image_by_inputs(inputs) {
        // Made again as what else of an image is damaged.
        Err(StoreError::Damaged { .. }) => Ok(None),
        found => Ok(found?.filter(whole)),
    }
}

/// What `make` makes; what it finds damaged is thrown away and made again, once.
fn made_whole(
    store: &Store,
    make: impl Fn() -> Result<ImageRecord, BakeError>,
) -> Result<ImageRecord, BakeError> {
    match make() {
        Err(error) => match error.damage() {
            Some(damage) if store.discard(&damage)? => make(),
            _ => Err(error),
        },
        made => made,
    }
}

fn make(
    order: &BakeOrder,
    locked: &LockedImage,
    found: &[Found],
    inputs: Sha256,
    store: &Store,
    report: &dyn Report,
) -> Result<ImageRecord, BakeError> {
    // The project's files go to the disk while the tree they are laid over is read or made.
    let (start, contents) = thread::scope(|scope| {
        let contents = scope.spawn(|| files::kept(order, found, store, &|| report.cancelled()));
        let start = start(order, locked, store, report);
        (start, contents.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let Start { root, settings: base, left_out, handmade } = start?;
    let contents = contents?;
    if report.cancelled() {
        return Err(BakeError::Cancelled);
    }
    let over = handmade.as_ref().map(|base| handmade::over(order, &base.record));
    let order = over.as_ref().unwrap_or(order);
    let (epoch, settings) = (root.epoch, Settings::of(order, base));
    let laid = merge::laid(order, root, (found, &contents), store)?;
    let built = build::built(order, laid, epoch, &settings.env, store, report)?;
    let task = Task::new(report, "writing the image", "", None);
    // A build may have brought packages as well.
    let packages = sbom::installed(&built, store)?;
    let distribution = Distribution::of(&built, store)?;
    let merged = merge::finished(order, settings, (built, epoch), handmade.as_ref(), store)?;
    let hidden = hidden(order, &merged.tree, &merged.volatile);
    let batch = store.objects().batch()?;
    let mut written = erofs::write(&merged.tree)?;
    let staged = batch.stage_image(&written.bytes, &written.objects)?;
    // To forget a large tree takes a while, for which nobody has to wait.
    let done_with = (merged.tree, std::mem::take(&mut written.bytes));
    rayon::spawn(move || drop(done_with));
    let mut record = ImageRecord {
        format: std::mem::take(&mut written.format),
        digest: *staged.digest(),
        name: order.image.clone(),
        metadata_bytes: staged.size(),
        content_bytes: written.content_bytes,
        entries: written.entries,
        packages: packages.iter().map(sbom::Installed::as_ref).collect(),
        run: merged.run,
        volatile: merged.volatile,
        inputs,
        documents: Default::default(),
        left_out,
        handmade: handmade.and_then(|base| base.record.handmade),
    };
    let recipes = [RECIPE, debian::RECIPE];
    let inside = sbom::document(&record, &packages, locked, &distribution);
    let origin =
        provenance::document(&record, staged.sha256(), order, (locked, found), &recipes, &distribution);
    for (name, bytes) in [(ImageRecord::SBOM, inside), (ImageRecord::PROVENANCE, origin)] {
        let (object, _) = batch.put_bytes(&bytes)?;
        record.documents.insert(name.into(), object);
    }
    batch.commit_image(staged, &record)?;
    task.finish();
    // Each a task that is done with saying it.
    let left_out = record.left_out.iter().map(ToString::to_string);
    left_out.chain(hidden).for_each(|words| Task::new(report, words, "", None).finish());
    Ok(record)
}

/// What an image starts from.
struct Start {
    root: Root,
    settings: Settings,
    left_out: Vec<LeftOut>,
    /// The image it is, if it is a handmade one.
    handmade: Option<handmade::Foundation>,
}

fn start(
    order: &BakeOrder,
    locked: &LockedImage,
    store: &Store,
    report: &dyn Report,
) -> Result<Start, BakeError> {
    let (root, left_out) = match &order.from {
        Base::Debian { .. } => {
            let (root, made) = debian::root(order, locked, store, report)?;
            (root, machine_own::together(machine_own::left_out_of(&locked.packages), made))
        }
        Base::Scratch => {
            let tree = skeleton::new(EPOCH_WITHOUT_PACKAGES)?.into_tree();
            (Root { tree, epoch: EPOCH_WITHOUT_PACKAGES }, Vec::new())
        }
        Base::Oci(reference) => {
            let (Root { tree, epoch }, settings) = oci::root(reference, order, locked, store, report)?;
            let mut edit = TreeEdit::new(tree);
            let left_out = machine_own::taken_out(&mut edit);
            if let Some(words) = users::nobodys(edit.tree()) {
                Task::new(report, words, "", None).finish();
            }
            let root = Root { tree: edit.into_tree(), epoch };
            return Ok(Start { root, settings, left_out, handmade: None });
        }
        Base::Handmade(_) => {
            let (root, settings, base) = handmade::root(order, locked, store)?;
            let left_out = base.record.left_out.clone();
            return Ok(Start { root, settings, left_out, handmade: Some(base) });
        }
    };
    Ok(Start { root, settings: Settings::default(), left_out, handmade: None })
}
