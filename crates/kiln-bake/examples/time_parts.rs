//! What only a process that has the library can time: mounts, and bakes of large images after one file has changed.
//! One JSON object a line, for `cargo xtask bench bake`.
//!
//! `time_parts one-package STORE PROJECT`: one bake of the project of that bench, in which a package is new, and how much
//! of it the new package's own unpacking and scripts take.
//!
//! `time_parts STORE LOCK`: a state directory that has the packages of LOCK, which is that of an image `web` of
//! `debian:bookworm` without packages asked for.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/oci_support/mod.rs"]
mod oci_support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Instant;

use common::{Quiet, file};
use kiln_bake::{BakeOrder, Report, bake};
use kiln_model::{ImageDigest, Lock, LockedPackage, Progress, Sha256};
use kiln_store::Store;
use oci_support::{Image, Layer, PLAIN, from_oci};

/// What a program in C needs beside itself: as many packages as a small image has. Those of Debian's base have dpkg and all
/// essential packages, which are 61.
const TEN: [&str; 10] = [
    "base-files",
    "gcc-12-base",
    "libc6",
    "libcrypt1",
    "libgcc-s1",
    "liblzma5",
    "libselinux1",
    "libtinfo6",
    "libzstd1",
    "zlib1g",
];

fn median(mut runs: Vec<f64>) -> f64 {
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}

fn tell(name: &str, seconds: f64, goal: Option<f64>) {
    println!("{}", serde_json::json!({ "name": name, "wall_s": seconds, "goal": goal }));
}

fn entry(tar: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_600_000_000);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, path, content).expect("a tar in memory");
}

/// A package with `files` files of 100 bytes and no scripts.
fn package(name: &str, files: usize, store: &Store) -> LockedPackage {
    let (mut control, mut data) = (tar::Builder::new(Vec::new()), tar::Builder::new(Vec::new()));
    let text = format!("Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: a\nDescription: files\n");
    entry(&mut control, "./control", text.as_bytes());
    for n in 0..files {
        let content = format!("{:99}\n", format!("{name} {n}"));
        entry(&mut data, &format!("./srv/{name}/{}/{}", n / 1000, n % 1000), content.as_bytes());
    }
    let mut deb = ar::Builder::new(Vec::new());
    let parts = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar", control.into_inner().expect("a tar")),
        ("data.tar", data.into_inner().expect("a tar")),
    ];
    for (member, bytes) in &parts {
        deb.append(&ar::Header::new((*member).into(), bytes.len() as u64), bytes.as_slice()).expect("an ar");
    }
    let deb = deb.into_inner().expect("an ar");
    let sha256 = Sha256::of(&deb);
    store.put_package(&sha256, &mut deb.as_slice()).expect("kept");
    LockedPackage {
        name: name.into(),
        version: "1".into(),
        architecture: "all".into(),
        suite: "bookworm".into(),
        path: format!("pool/{name}.deb"),
        size: deb.len() as u64,
        sha256,
    }
}

fn order(project: &Path) -> BakeOrder {
    let mut order = common::order(project, &["extra-0"]);
    order.files = vec![file("page", "/srv/page")];
    order
}

/// Seconds for a bake after one file has changed, with `count` packages of `files` files each over the base.
fn one_file(
    base: &Lock,
    count: usize,
    files: usize,
    project: &Path,
    store: &Store,
) -> (f64, usize, ImageDigest) {
    let order = order(project);
    let mut lock = base.clone();
    let image = lock.images.get_mut(&order.image).expect("an image `web`");
    image.packages.extend((0..count).map(|n| package(&format!("extra-{n}"), files, store)));
    image.packages.sort_by(|a, b| a.name.cmp(&b.name));
    image.request = order.lock_request();
    let packages = image.packages.len();
    let (seconds, digest) = changes(&order, &lock, project, store);
    (seconds, packages, digest)
}

/// The files of ten packages with dpkg's records of them, and no dpkg: a layer each, as small images are made.
fn ten_packages(base: &Lock, project: &Path, store: &Store) -> BakeOrder {
    let image = base.images.values().next().expect("an image");
    let tool = |arguments: &[&str]| {
        let output = Command::new("dpkg-deb").args(arguments).output().expect("dpkg-deb is needed");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let (mut layers, mut records) = (Vec::new(), Layer::new());
    for name in TEN {
        let package = image.packages.iter().find(|p| p.name == name).expect("a package of the base");
        let path = store.package(&package.sha256).expect("looked").expect("a package that is here");
        let path = path.to_str().expect("a path in UTF-8");
        layers.push(tool(&["--fsys-tarfile", path]));
        records = records.file(&format!("var/lib/dpkg/status.d/{name}"), &tool(&["--field", path]));
    }
    layers.push(records.done());
    let layers: Vec<_> = layers.into_iter().map(|plain| (plain.clone(), plain, PLAIN)).collect();
    let layout = project.join("ten");
    Image::new(&layers, serde_json::json!({ "Cmd": ["/lib64/ld-linux-x86-64.so.2"] })).layout(&layout, "ten");
    let mut order = from_oci(project, "./ten");
    order.files = vec![file("page", "/srv/page")];
    order
}

/// Seconds for a bake after one file has changed.
fn changes(order: &BakeOrder, lock: &Lock, project: &Path, store: &Store) -> (f64, ImageDigest) {
    let mut digest = None;
    let mut runs = Vec::new();
    for n in 0..8 {
        fs::write(project.join("page"), format!("page {n} of {}\n", project.display())).expect("written");
        let begun = Instant::now();
        let baked = bake(order, lock, store, &Quiet).unwrap_or_else(|e| panic!("{e:?}"));
        if n > 0 {
            runs.push(begun.elapsed().as_secs_f64());
        }
        digest = Some(baked.record.digest);
    }
    (median(runs), digest.expect("baked"))
}

fn mounts(store: &Store, digest: &ImageDigest) -> f64 {
    let mount = |_| {
        let begun = Instant::now();
        let handle = store.handle(digest).expect("an image");
        let tree = kiln_mount::composefs(&handle, None).expect("mounted");
        let took = begun.elapsed().as_secs_f64();
        drop(tree);
        took
    };
    median((0..51).map(mount).collect())
}

/// The look for damage before each deploy.
fn looks(store: &Store, digest: &ImageDigest) -> f64 {
    let look = |_| {
        let begun = Instant::now();
        assert_eq!(store.damage_of(digest).expect("looked"), []);
        begun.elapsed().as_secs_f64()
    };
    median((0..21).map(look).collect())
}

/// Counts how long each task takes.
#[derive(Default)]
struct Stopwatch(Mutex<BTreeMap<String, (Option<Instant>, f64)>>);

impl Report for Stopwatch {
    fn progress(&self, progress: Progress) {
        let mut tasks = self.0.lock().expect("nobody panicked");
        let (begun, seconds) = tasks.entry(progress.task).or_default();
        let since = *begun.get_or_insert_with(Instant::now);
        if progress.finished {
            *seconds += since.elapsed().as_secs_f64();
            *begun = None;
        }
    }

    fn cancelled(&self) -> bool {
        false
    }
}

fn one_package(store: &Store, project: &Path) {
    let text = fs::read_to_string(project.join("kiln.lock")).expect("a lock");
    let lock = Lock::from_toml(&text).expect("a lock");
    let requested = &lock.images.values().next().expect("an image").request.requested;
    let requested: Vec<&str> = requested.iter().map(String::as_str).collect();
    let mut order = common::order(project, &requested);
    order.files = vec![file("page.html", "/srv/page.html")];
    let (watch, begun) = (Stopwatch::default(), Instant::now());
    let baked = bake(&order, &lock, store, &watch).unwrap_or_else(|e| panic!("{e:?}"));
    let wall = begun.elapsed().as_secs_f64();
    assert!(!baked.reused, "a package was to be new");
    let tasks = watch.0.into_inner().expect("nobody panicked");
    let of = |task: &str| tasks.get(task).expect("a task of this bake").1;
    let (unpacking, scripts) = (of("unpacking packages"), of("configuring packages"));
    let rest = wall - unpacking - scripts;
    let parts =
        serde_json::json!({ "wall_s": wall, "unpacking_s": unpacking, "scripts_s": scripts, "rest_s": rest });
    println!("{parts}");
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["one-package", state, project] => one_package(&opened(state), project.as_ref()),
        [state, lock] => large_images(&opened(state), lock.as_ref()),
        _ => panic!("time_parts STORE LOCK, or time_parts one-package STORE PROJECT"),
    }
}

fn opened(state: &str) -> Store {
    Store::open(state.as_ref()).expect("a store")
}

fn large_images(store: &Store, lock: &Path) {
    let base = Lock::from_toml(&fs::read_to_string(lock).expect("a lock")).expect("a lock");
    let project = std::env::temp_dir().join(format!("kiln-measure-{}", std::process::id()));
    fs::create_dir_all(&project).expect("a directory");
    let order = ten_packages(&base, &project, store);
    let (seconds, digest) = changes(&order, &common::locked(&order, store), &project, store);
    let record = store.image(&digest).expect("read").expect("baked");
    assert_eq!(record.packages.len(), TEN.len(), "{:?}", record.packages);
    let what = format!("{} packages, {} paths, no dpkg among them", TEN.len(), record.entries);
    tell_all(&what, (seconds, None), &digest, Some(0.002), store);
    for (count, files, goal) in [(1, 10, None), (39, 50, None), (939, 20, None), (1, 200_000, Some(0.2))] {
        let (seconds, packages, digest) = one_file(&base, count, files, &project, store);
        let what = format!("{packages} packages, {} files beside the base's", count * files);
        tell_all(&what, (seconds, goal), &digest, (files < 1000).then_some(0.002), store);
    }
    fs::remove_dir_all(&project).expect("removed");
}

/// All that is measured of one image.
fn tell_all(
    what: &str,
    (seconds, goal): (f64, Option<f64>),
    digest: &ImageDigest,
    mount: Option<f64>,
    store: &Store,
) {
    tell(&format!("one file changed, {what}"), seconds, goal);
    tell(&format!("mount, its digest compared, {what}"), mounts(store, digest), mount);
    tell(&format!("look for damage, {what}"), looks(store, digest), None);
}
