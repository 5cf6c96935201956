//! Images for the world outside, judged by those who live there: skopeo, umoci, podman, tar, fsck.erofs, a registry.
//! Needs root; no mirror.

mod common;
mod oci_support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use common::{Quiet, baked, file, locked, write};
use kiln_bake::export::{OciForm, Pushed, Stored, push, to_erofs, to_oci, to_tar};
use kiln_model::{ExitCode, Failure, ImageHandle, ImageRecord, OciReference};
use kiln_store::Store;

use oci_support::{
    Answer, Asked, Fake, Image, Layer, Podman, Registry, from_oci, layers, listing, mounted, run, tool,
};
use serde_json::{Value, json};

struct Place {
    project: tempfile::TempDir,
    state: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { project: tempfile::tempdir().unwrap(), state: tempfile::tempdir().unwrap() };
        Image::of(&layers(), run()).layout(&place.path("base"), "x");
        place
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.project.path().join(name)
    }

    fn store(&self) -> Store {
        Store::open(self.state.path()).unwrap()
    }

    fn bake(&self, reference: &str) -> ImageRecord {
        let (order, store) = (from_oci(self.project.path(), reference), self.store());
        baked(&order, &locked(&order, &store), &store).record
    }

    fn export(&self, record: &ImageRecord, name: &str, form: OciForm) -> Result<Pushed, Failure> {
        let store = self.store();
        let image = Stored::open(&store, &record.digest)?;
        Ok(to_oci(&image, &self.path(name), form, "web", "amd64", &Quiet)?)
    }
}

fn shown(handle: &ImageHandle) -> Vec<String> {
    std::thread::scope(|scope| scope.spawn(|| mounted(handle, listing)).join().unwrap())
}

/// Both lists without what is in both.
fn differences(ours: &[String], theirs: &[String]) -> Vec<String> {
    let only = |a: &[String], b: &[String], who: &str| -> Vec<String> {
        a.iter().filter(|line| !b.contains(line)).map(|line| format!("{who} {line}")).collect()
    };
    [only(ours, theirs, "ours  "), only(theirs, ours, "theirs")].concat()
}

fn manifest_of(layout: &Path) -> Value {
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let path = layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn layer_digests(layout: &Path) -> BTreeSet<String> {
    let manifest = manifest_of(layout);
    manifest["layers"].as_array().unwrap().iter().map(|l| l["digest"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_exported_image_is_unpacked_by_others_to_the_same_tree() {
    let place = Place::new();
    let record = place.bake("./base");
    let exported = place.export(&record, "out", OciForm::Directory).unwrap();
    assert!(exported.layers >= 3, "{exported:?}");
    let handle = place.store().handle(&record.digest).unwrap();
    let ours = shown(&handle);
    let bundle = place.path("bundle");
    let reference = format!("{}:web", place.path("out").display());
    tool("umoci", &["unpack", "--image", &reference, bundle.to_str().unwrap()]);
    assert_eq!(differences(&ours, &listing(&bundle.join("rootfs"))), [""; 0]);
    // How it is run, in their words.
    let config = tool("skopeo", &["inspect", "--config", &format!("oci:{reference}")]);
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["config"]["Entrypoint"], json!(["/bin/sh", "-c", "exit 0"]));
    assert_eq!(
        (&config["config"]["User"], &config["config"]["WorkingDir"]),
        (&json!("web"), &json!("/opaque"))
    );
    assert_eq!(
        (&config["config"]["StopSignal"], &config["config"]["Env"][0]),
        (&json!("SIGQUIT"), &json!("A=b"))
    );
    // And back again: the very same image.
    assert_eq!(place.bake("./out:web").digest, record.digest);
    place.export(&record, "out.tar", OciForm::Archive).unwrap();
    assert_eq!(place.bake("./out.tar").digest, record.digest);
    // Never over what is there.
    let failure = place.export(&record, "out", OciForm::Directory).unwrap_err();
    assert!(failure.code == ExitCode::Usage && failure.message.contains("is there already"), "{failure:?}");
    let left: Vec<_> = fs::read_dir(place.project.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".new")), "{left:?}");
}

#[test]
fn the_same_image_is_the_same_layers_and_another_shares_most() {
    let (one, other) = (Place::new(), Place::new());
    let record = one.bake("./base");
    let first = one.export(&record, "out", OciForm::Directory).unwrap();
    let second = other.export(&other.bake("./base"), "out", OciForm::Directory).unwrap();
    assert_eq!(first, second);
    // Made again, not remembered.
    fs::remove_dir_all(one.state.path().join("cache")).unwrap();
    fs::remove_dir_all(one.state.path().join("blobs")).unwrap();
    assert_eq!(one.export(&record, "again", OciForm::Directory).unwrap(), first);
    assert_eq!(layer_digests(&one.path("again")), layer_digests(&other.path("out")));

    // One file more: its layer is another, and so is that of directories.
    let mut order = from_oci(one.project.path(), "./base");
    write(one.project.path(), "page", "page");
    order.files = vec![file("page", "/usr/lib/page")];
    let store = one.store();
    let changed = baked(&order, &locked(&order, &store), &store).record;
    one.export(&changed, "changed", OciForm::Directory).unwrap();
    let (before, after) = (layer_digests(&one.path("out")), layer_digests(&one.path("changed")));
    assert!(after.difference(&before).count() <= 2 && !before.is_disjoint(&after), "{before:?} {after:?}");
}

/// Whoever unpacks such a layer would take `dir/.wh.page` for the news that `dir/page` is gone.
#[test]
fn a_name_that_says_in_a_layer_that_something_is_gone_is_in_no_layer() {
    let place = Place::new();
    let mut order = from_oci(place.project.path(), "./base");
    write(place.project.path(), "page", "page");
    let store = place.store();
    for path in ["/usr/lib/.wh.page", "/usr/lib/.wh..wh..opq", "/usr/.wh.lib/page"] {
        order.files = vec![file("page", path)];
        let record = baked(&order, &locked(&order, &store), &store).record;
        let failure = place.export(&record, "out", OciForm::Directory).unwrap_err();
        assert!(failure.code == ExitCode::Bake && failure.message.contains("/.wh."), "{failure:?}");
        assert!(!place.path("out").exists());
        to_tar(&Stored::open(&store, &record.digest).unwrap(), &place.path("out.tar")).unwrap();
        fs::remove_file(place.path("out.tar")).unwrap();
    }
}

/// What leaves the store is whole or does not leave it, and nothing wrong is remembered of it.
#[test]
fn a_damaged_image_is_neither_exported_nor_pushed() {
    let place = Place::new();
    let (record, store) = (place.bake("./base"), place.store());
    let object = *store.image_objects(&record.digest).unwrap().unwrap().first().expect("one is large");
    let path = store.objects().path(&object);
    let whole = fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    fs::write(&path, &damaged).unwrap();
    let image = Stored::open(&store, &record.digest).unwrap();
    let nowhere = Fake::new(|_| Answer::of(500, b""));
    let Ok(OciReference::Registry(to)) = format!("{}/team/web:1", nowhere.host).parse() else { panic!() };
    let attempts = [
        to_tar(&image, &place.path("out")).map(drop),
        to_erofs(&image, &place.path("out")).map(drop),
        to_oci(&image, &place.path("out"), OciForm::Archive, "x", "amd64", &Quiet).map(drop),
        push(&image, &to, "amd64", &Quiet).map(drop),
    ];
    for attempt in attempts {
        let failure = Failure::from(attempt.unwrap_err());
        assert!(failure.message.contains(path.to_str().unwrap()), "{failure:?}");
        assert!(failure.hint.as_deref().unwrap_or_default().contains("kiln verify --repair"), "{failure:?}");
        assert!(!place.path("out").exists());
    }
    assert_eq!(nowhere.paths(), [""; 0]);
    fs::write(&path, &whole).unwrap();
    place.export(&record, "out", OciForm::Directory).unwrap();
}

/// A registry that answers once that something went wrong, and whose upload is over by that.
#[test]
fn an_upload_that_failed_is_begun_anew() {
    let place = Place::new();
    let (record, store) = (place.bake("./base"), place.store());
    let (uploads, failed, manifest) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let registry = Fake::new(move |asked: &Asked| match asked.method.as_str() {
        "POST" => {
            let place = format!("/v2/team/web/blobs/uploads/{}", uploads.fetch_add(1, SeqCst));
            Answer::of(202, b"").header("Location", place)
        }
        "PUT" if asked.path.contains("/uploads/0?") => {
            Answer::of(if failed.fetch_add(1, SeqCst) == 0 { 502 } else { 404 }, b"")
        }
        "PUT" => {
            manifest.lock().unwrap().clone_from(&asked.body);
            Answer::of(201, b"")
        }
        "GET" => Answer::of(200, &manifest.lock().unwrap()),
        _ => Answer::of(404, b""),
    });
    let image = Stored::open(&store, &record.digest).unwrap();
    let Ok(OciReference::Registry(to)) = format!("{}/team/web:1", registry.host).parse() else { panic!() };
    push(&image, &to, "amd64", &Quiet).unwrap();
}

#[test]
fn only_what_a_registry_lacks_is_pushed() {
    let place = Place::new();
    let registry = Registry::start("");
    let record = place.bake("./base");
    let store = place.store();
    let image = Stored::open(&store, &record.digest).unwrap();
    let reference = format!("{}/team/web:1", registry.host);
    let Ok(OciReference::Registry(to)) = reference.parse() else { panic!("{reference}") };
    let first = push(&image, &to, "amd64", &Quiet).unwrap();
    assert_eq!(first.new_bytes, first.bytes);
    let again = push(&image, &to, "amd64", &Quiet).unwrap();
    assert!(again.manifest == first.manifest && again.new_bytes == 0, "{again:?}");
    // The same by another name: nothing of it is new, and it has that name as well.
    let Ok(OciReference::Registry(other)) = format!("{}/team/web:2", registry.host).parse() else { panic!() };
    assert_eq!(push(&image, &other, "amd64", &Quiet).unwrap().new_bytes, 0);
    let by_name = format!("docker://{}/team/web:2", registry.host);
    tool("skopeo", &["inspect", "--tls-verify=false", "--raw", &by_name]);
    // What is there is what an export has, and what others read.
    let raw = tool("skopeo", &["inspect", "--tls-verify=false", "--raw", &format!("docker://{reference}")]);
    place.export(&record, "out", OciForm::Directory).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&raw).unwrap(), manifest_of(&place.path("out")));
    let copied = format!("oci:{}:x", place.path("copied").display());
    tool(
        "skopeo",
        &["--insecure-policy", "copy", "--src-tls-verify=false", &format!("docker://{reference}"), &copied],
    );
    assert_eq!(place.bake("./copied").digest, record.digest);
    assert_eq!(place.bake(&reference).digest, record.digest);
}

#[test]
fn a_tar_archive_and_a_file_system_hold_the_same_tree() {
    let place = Place::new();
    let record = place.bake("./base");
    let store = place.store();
    let handle = store.handle(&record.digest).unwrap();
    let image = Stored::open(&store, &record.digest).unwrap();
    let ours = shown(&handle);

    to_tar(&image, &place.path("root.tar")).unwrap();
    let root = place.path("root");
    fs::create_dir(&root).unwrap();
    let (archive, to) = (place.path("root.tar"), root.to_str().unwrap());
    let extract =
        ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", archive.to_str().unwrap(), "-C", to];
    tool("tar", &extract);
    assert_eq!(differences(&ours, &listing(&root)), [""; 0]);

    let whole = place.path("root.erofs");
    to_erofs(&image, &whole).unwrap();
    tool("fsck.erofs", &[whole.to_str().unwrap()]);
    let alone = ImageHandle { metadata: whole.clone(), objects: place.project.path().into(), ..handle };
    let theirs = std::thread::scope(|scope| {
        scope.spawn(|| oci_support::mounted_alone(&alone, listing)).join().unwrap()
    });
    assert_eq!(differences(&ours, &theirs), [""; 0]);
    let again = place.path("again.erofs");
    to_erofs(&image, &again).unwrap();
    assert!(fs::read(whole).unwrap() == fs::read(again).unwrap());
}

/// Every directory below `root` with its time.
fn directory_times(root: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(dir) = todo.pop() {
        let time = fs::metadata(&dir).unwrap().mtime();
        found.push(format!("/{} {time}", dir.strip_prefix(root).unwrap().display()));
        let entries = fs::read_dir(&dir).unwrap().map(Result::unwrap);
        todo.extend(entries.filter(|e| e.file_type().unwrap().is_dir()).map(|e| e.path()));
    }
    found.sort();
    found
}

#[test]
fn a_tar_archive_gives_directories_the_times_of_the_image() {
    let place = Place::new();
    // Names before and behind a slash, links in both directions, of which the image has now one, now the other first.
    let layer = Layer::new()
        .dir("a/", 0o755)
        .file("a/in", b"in")
        .dir("a/deep/", 0o755)
        .file("a/deep/in", b"in")
        .dir("a-b/", 0o755)
        .file("a-b/in", b"in")
        .dir("a.b/", 0o755)
        .file("a.b/in", b"in")
        .hardlink("a/of-a.b", "a.b/in")
        .hardlink("a0", "a/in")
        .dir("z/", 0o500)
        .hardlink("z/of-a", "a/deep/in")
        .symlink("z/up", "../../..")
        .symlink("a/abs", "/z")
        .program("bin/sh", b"#!/nothing\n")
        .done();
    Image::of(&[layer], json!({"Entrypoint": ["/bin/sh"]})).layout(&place.path("order"), "x");
    let record = place.bake("./order");
    let store = place.store();
    let handle = store.handle(&record.digest).unwrap();
    to_tar(&Stored::open(&store, &record.digest).unwrap(), &place.path("root.tar")).unwrap();
    let root = place.path("root");
    fs::create_dir(&root).unwrap();
    tool("tar", &["-xpf", place.path("root.tar").to_str().unwrap(), "-C", root.to_str().unwrap()]);
    let look = |root: &Path| (listing(root), directory_times(root));
    let (ours, times) = std::thread::scope(|scope| scope.spawn(|| mounted(&handle, look)).join().unwrap());
    assert_eq!(differences(&times, &directory_times(&root)), [""; 0]);
    assert_eq!(differences(&ours, &listing(&root)), [""; 0]);
}

#[test]
fn podman_runs_what_we_export() {
    let place = Place::new();
    let busybox = fs::read("/bin/busybox").expect("busybox-static is needed: cargo xtask setup");
    let layer = Layer::new()
        .program("bin/busybox", &busybox)
        .hardlink("bin/sh", "bin/busybox")
        .file("etc/passwd", b"root:x:0:0::/:/bin/sh\napp:x:1000:1000::/srv:/bin/sh\n")
        .dir("srv/", 0o755)
        .done();
    let script = "echo $(/bin/busybox id -u) $(/bin/busybox pwd) $GREETING";
    Image::of(&[layer], json!({"Entrypoint": ["/bin/sh", "-c", script], "User": "app", "WorkingDir": "/srv", "Env": ["GREETING=hello"]}))
        .layout(&place.path("small"), "x");
    let record = place.bake("./small");
    place.export(&record, "out.tar", OciForm::Archive).unwrap();
    let told =
        std::thread::scope(|scope| scope.spawn(|| run_by_podman(&place.path("out.tar"))).join().unwrap());
    assert_eq!(told, "1000 /srv hello\n");
}

/// What the image in `archive` prints when podman runs it. On a thread of its own: its mounts are gone with it.
fn run_by_podman(archive: &Path) -> String {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    // SAFETY: this thread alone gets its own mounts; the descriptor table stays shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("root is needed");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    // crun refuses hosts with both kinds of cgroups, even where it is told to use none.
    mount("none", "/sys/fs/cgroup", "tmpfs", MountFlags::empty(), None).unwrap();
    let podman = Podman::new();
    let loaded = podman.run(&["load", "-q", "-i", archive.to_str().unwrap()]);
    let name = loaded.trim().rsplit(' ').next().unwrap().to_owned();
    // What root may not raise is asked for lower.
    let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
    let run = ["run", "--rm", "--cgroups=disabled", "--network=none", "--log-driver=none"];
    podman.run(&[&run[..], &limits, &[&name]].concat())
}
