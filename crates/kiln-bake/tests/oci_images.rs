//! OCI images as bases: from a layout, archives and a registry, judged by Debian's own tools. Needs root, skopeo,
//! umoci, docker-registry; no mirror.

mod common;
mod oci_support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use common::{Told, baked, file, locked, printed, try_bake, try_lock, write};
use kiln_bake::BakeOrder;
use kiln_model::spec::{BuildStep, DirSpec, LinkSpec, UserSpec};
use kiln_model::{ExitCode, ImageRecord};
use kiln_store::Store;
use oci_support::{
    GZIP, Image, Layer, PLAIN, Podman, Registry, busybox, from_oci, gzipped, layers, listing, run, tool,
};
use serde_json::json;

fn image() -> Image {
    Image::of(&layers(), run())
}

/// The image of `reference`, baked into a store of its own.
fn bake_one(project: &Path, reference: &str) -> ImageRecord {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    let order = from_oci(project, reference);
    baked(&order, &locked(&order, &store), &store).record
}

/// What a baked image shows when it is mounted.
fn shown(store: &Store, record: &ImageRecord) -> Vec<String> {
    let image = store.handle(&record.digest).unwrap();
    std::thread::scope(|scope| scope.spawn(|| oci_support::mounted(&image, listing)).join().unwrap())
}

/// Paths that every image of Kiln's has, whatever it starts from.
const OWN: [&str; 8] = ["/dev", "/proc", "/run", "/sys", "/tmp", "/var", "/etc/host", "/etc/resolv.conf"];

fn without_own(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().filter(|line| !OWN.iter().any(|own| line.starts_with(own))).collect()
}

#[test]
fn layers_come_to_the_tree_that_umoci_unpacks() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    image().layout(&project.path().join("base"), "one");
    let bundle = project.path().join("bundle");
    let reference = format!("{}:one", project.path().join("base").display());
    tool("umoci", &["unpack", "--image", &reference, bundle.to_str().unwrap()]);
    let store = Store::open(state.path()).unwrap();
    let order = from_oci(project.path(), "./base");
    let record = baked(&order, &locked(&order, &store), &store).record;
    let ours = without_own(shown(&store, &record));
    let theirs = without_own(listing(&bundle.join("rootfs")));
    assert!(ours.len() > 25, "{ours:#?}");
    let differences: Vec<_> = ours
        .iter()
        .filter(|line| !theirs.contains(line))
        .map(|line| format!("ours   {line}"))
        .chain(theirs.iter().filter(|line| !ours.contains(line)).map(|line| format!("theirs {line}")))
        .collect();
    assert!(differences.is_empty(), "{differences:#?}");

    // It is run as it says, its user by number, its program by its place.
    let run = record.run;
    assert_eq!(run.argv, ["/bin/sh", "-c", "exit 0"]);
    assert_eq!((run.user.as_str(), run.uid, run.gid, run.groups), ("web", 33, 34, vec![40]));
    assert_eq!((run.workdir.as_str(), run.stop_signal, run.env["A"].as_str()), ("/opaque", 3, "b"));
}

#[test]
fn one_image_is_the_same_wherever_it_comes_from() {
    let project = tempfile::tempdir().unwrap();
    let base = project.path().join("base");
    image().layout(&base, "one");
    let registry = Registry::start("");
    let from = format!("oci:{}:one", base.display());
    let there = format!("{}/team/app:one", registry.host);
    let archive = |kind: &str| format!("{kind}:{}/{kind}.tar:example/app:one", project.path().display());
    let copy =
        |to: &str| tool("skopeo", &["--insecure-policy", "copy", "--dest-tls-verify=false", &from, to]);
    copy(&format!("docker://{there}"));
    copy(&archive("docker-archive"));
    copy(&archive("oci-archive"));
    let first = bake_one(project.path(), "./base:one");
    for reference in ["./oci-archive.tar", "docker-archive.tar:one", "docker-archive.tar", &there] {
        let other = bake_one(project.path(), reference);
        assert_eq!((other.digest, other.run), (first.digest, first.run.clone()), "{reference}");
    }
    // Layers may be compressed in any way, or not at all.
    let plain = layers();
    let zstd =
        ruzstd::encoding::compress_to_vec(plain[1].as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
    let mixed = [
        (plain[0].clone(), plain[0].clone(), PLAIN),
        (zstd, plain[1].clone(), "application/vnd.oci.image.layer.v1.tar+zstd"),
    ];
    Image::new(&mixed, run()).layout(&project.path().join("mixed"), "x");
    assert_eq!(bake_one(project.path(), "./mixed").digest, first.digest);
}

#[test]
fn a_registry_is_asked_once_and_what_it_moves_a_tag_to_is_not_taken() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let registry = Registry::start("");
    let push = |image: &Image| {
        let dir = tempfile::tempdir().unwrap();
        image.layout(dir.path(), "x");
        let (from, to) =
            (format!("oci:{}:x", dir.path().display()), format!("docker://{}/app:1", registry.host));
        tool("skopeo", &["--insecure-policy", "copy", "--dest-tls-verify=false", &from, &to]);
    };
    push(&image());
    let order = from_oci(project.path(), &format!("{}/app:1", registry.host));
    let lock = locked(&order, &store);
    let mut other = layers();
    other.push(Layer::new().file("more", b"more").done());
    push(&Image::of(&other, run()));
    let pinned = baked(&order, &lock, &store).record;
    let moved = locked(&order, &store);
    assert_ne!(moved.images[&order.image].oci, lock.images[&order.image].oci);
    assert_ne!(baked(&order, &moved, &store).record.digest, pinned.digest);
    // What has been fetched once needs no registry, not even when the trees made of it are gone.
    drop(registry);
    fs::remove_dir_all(state.path().join("cache")).unwrap();
    fs::remove_dir_all(state.path().join("inputs")).unwrap();
    let store = Store::open(state.path()).unwrap();
    assert_eq!(baked(&order, &lock, &store).record.digest, pinned.digest);
}

#[test]
fn files_users_links_dirs_and_a_build_go_over_it() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    image().layout(&project.path().join("base"), "x");
    write(project.path(), "page", "page");
    let mut order: BakeOrder = from_oci(project.path(), "./base");
    order.files = vec![file("page", "/srv/page")];
    let (home, shell) = (Some("/srv".into()), Some("/bin/sh".into()));
    order.users =
        vec![UserSpec { name: "app".into(), uid: None, gid: None, groups: vec!["log".into()], home, shell }];
    order.user = Some("app".into());
    order.dirs = vec![DirSpec { path: "/lib/data".into(), mode: Some(0o700), owner: Some("app".into()) }];
    order.links = vec![LinkSpec { path: "/page".into(), to: "srv/page".into() }];
    order.build = vec![BuildStep::Line("cat /page /lib/b.so >/built; echo $A >>/built".into())];
    order.env = [("B".to_owned(), "c".to_owned())].into();
    order.run = vec!["/bin/cat".into(), "/built".into()];
    let record = baked(&order, &locked(&order, &store), &store).record;
    let handle = store.handle(&record.digest).unwrap();
    assert_eq!(printed(&handle, &["/bin/cat", "/built"]), "pagethrough a linkb\n");
    assert_eq!((record.run.uid, record.run.groups.as_slice()), (100, &[40][..]));
    assert_eq!((record.run.env["A"].as_str(), record.run.env["B"].as_str()), ("b", "c"));
    assert_eq!((record.run.argv[0].as_str(), record.run.stop_signal), ("/bin/cat", 3));
    assert!(shown(&store, &record).iter().any(|line| line.starts_with("/usr/lib/data 700 100:100 dir")));
}

/// Whichever of its names it is changed by, and whatever happens to the others.
#[test]
fn a_file_with_several_names_stays_one_when_a_build_changes_it() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let mut layer = Layer::new().dir("t", 0o755).dir("bin", 0o755).program("bin/busybox", &busybox());
    for file in ["content", "mode", "moved", "gone", "apart", "both", "as-it-was"] {
        let (first, second) = (format!("t/{file}-1"), format!("t/{file}-2"));
        layer = layer.file(&first, &[b'x'; 300]).hardlink(&second, &first);
    }
    let run = json!({"Entrypoint": ["/bin/busybox"]});
    Image::of(&[layer.symlink("bin/sh", "busybox").done()], run).layout(&project.path().join("base"), "x");
    let mut order = from_oci(project.path(), "./base");
    let build =
        "set -e; b=/bin/busybox; cd /t; echo two >>content-1; $b cat content-2 >/seen; $b chmod 600 mode-2
$b mv moved-1 moved-3; echo three >>moved-3; $b rm gone-1; echo two >>gone-2
echo new >new; $b mv new apart-1; echo 1 >>both-1; echo 2 >>both-2";
    order.build = vec![BuildStep::Line(build.into())];
    let record = baked(&order, &locked(&order, &store), &store).record;
    let image = store.handle(&record.digest).unwrap();
    // Each name, how many its file has, its mode and size; the same number at the end is the same file.
    let stat = ["/bin/busybox", "sh", "-c", "cd /t; /bin/busybox stat -c '%n %h %a %s %i' * /seen"];
    let told = printed(&image, &stat);
    let lines: Vec<(&str, &str)> = told.lines().map(|line| line.rsplit_once(' ').unwrap()).collect();
    let name = |line: &str| line.split(' ').next().unwrap().to_owned();
    let first = |inode: &str| name(lines.iter().find(|(_, other)| *other == inode).unwrap().0);
    let told: Vec<String> = lines.iter().map(|(line, inode)| format!("{line} {}", first(inode))).collect();
    let expected = [
        "apart-1 1 644 4 apart-1",
        "apart-2 1 644 300 apart-2",
        "as-it-was-1 2 644 300 as-it-was-1",
        "as-it-was-2 2 644 300 as-it-was-1",
        "both-1 2 644 304 both-1",
        "both-2 2 644 304 both-1",
        "content-1 2 644 304 content-1",
        "content-2 2 644 304 content-1",
        "gone-2 1 644 304 gone-2",
        "mode-1 2 600 300 mode-1",
        "mode-2 2 600 300 mode-1",
        "moved-2 2 644 306 moved-2",
        "moved-3 2 644 306 moved-2",
        // The build itself saw it so.
        "/seen 1 644 304 /seen",
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_is_wrong_with_an_image_is_said_and_nothing_is_kept() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let said = |image: &Image| {
        let dir = project.path().join("base");
        let _ = fs::remove_dir_all(&dir);
        image.layout(&dir, "x");
        let order = from_oci(project.path(), "./base");
        let failure = try_lock(&order, &store).and_then(|lock| try_bake(&order, &lock, &store)).unwrap_err();
        assert_eq!(failure.code, ExitCode::Bake, "{failure:?}");
        format!("{}: {}", failure.message, failure.causes.join(": "))
    };
    let one = |layer: Layer| Image::of(&[layer.done()], run());
    let hostile = [
        (one(Layer::new().file("../../etc/passwd", b"x")), "outside of any tree"),
        (one(Layer::new().file("a/.wh...", b"")), "takes away nothing that can be"),
        (one(Layer::new().hardlink("a", "../etc/shadow")), "outside of any tree"),
        (one(Layer::new().hardlink("a", "nothing")), "it is another name of /nothing, which is no file"),
        (one(Layer::new().file("a", b"").file("a/b", b"")), "is in the way of a directory"),
        (one(Layer::new().symlink("a", "")), "link to nothing"),
        (one(Layer::new().pax("GNU.sparse.major", b"1").file("a", b"")), "sparse"),
        (one(Layer::new().special("a", tar::EntryType::new(b'V'))), "of a kind"),
    ];
    for (image, problem) in hostile {
        let told = said(&image);
        assert!(told.contains("layer 1 of `./base`") && told.contains(problem), "{told}");
    }
    // Where the kernel's own is mounted.
    let program = || Layer::new().program("bin/sh", b"#!/nothing\n");
    for layer in
        [program().symlink("proc", "/etc"), program().symlink("dev", "../../.."), program().file("sys", b"")]
    {
        let told = said(&one(layer));
        assert!(told.contains("every instance mounts something there"), "{told}");
    }
    // Served bytes that are not what their image means.
    let (a, b) = (Layer::new().file("a", b"a").done(), Layer::new().file("b", b"b").done());
    let swapped = Image::new(&[(gzipped(&a), b, GZIP)], run());
    assert!(said(&swapped).contains("and its image means"), "{}", said(&swapped));
    let torn = Image::new(&[(gzipped(&a)[..20].to_vec(), a, GZIP)], run());
    assert!(said(&torn).contains("layer 1"), "{}", said(&torn));
    // A bomb: more than a gigabyte of nothing in a megabyte.
    let piece = vec![0; 32 << 20];
    let mut nothing = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut nothing, &piece).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(34 * piece.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_path("zeroes").unwrap();
    header.set_cksum();
    let bomb = [gzipped(header.as_bytes()), nothing.finish().unwrap().repeat(34)].concat();
    let bomb = Image::new(&[(bomb, b"unknown".to_vec(), GZIP)], run());
    assert!(said(&bomb).contains("taken for a bomb"), "{}", said(&bomb));
    // Blobs and documents.
    let mut damaged = image();
    let largest = damaged.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap().0.clone();
    damaged.blobs.get_mut(&largest).unwrap()[1000] ^= 1;
    assert!(said(&damaged).contains("the layer of `./base` has sha256"), "{}", said(&damaged));
    damaged.blobs.get_mut(&largest).unwrap().pop();
    assert!(said(&damaged).contains("bytes and not the"), "{}", said(&damaged));
    let mut missing = image();
    missing.blobs.remove(&largest);
    let _ = fs::remove_dir_all(state.path().join("blobs"));
    fs::create_dir(state.path().join("blobs")).unwrap();
    assert!(said(&missing).contains("could not read"), "{}", said(&missing));

    assert_eq!(store.images().unwrap(), []);
    assert_eq!(store.verify().unwrap(), []);
    assert!(fs::metadata("/etc/passwd").unwrap().mtime() > 0);
}

#[test]
fn links_lead_nowhere_but_into_the_tree() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let outside = project.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let lower = Layer::new()
        .program("bin/busybox", &busybox())
        .hardlink("bin/sh", "bin/busybox")
        .symlink("up", "../../../../../../..")
        .symlink("out", outside.to_str().unwrap())
        .done();
    let upper = Layer::new()
        .file("up/tmp/escaped", b"x")
        .file("out/escaped", b"x")
        .file("out/.wh.nothing", b"")
        .done();
    Image::of(&[lower, upper], json!({"Entrypoint": ["/bin/sh"]})).layout(&project.path().join("base"), "x");
    let order = from_oci(project.path(), "./base");
    let record = baked(&order, &locked(&order, &store), &store).record;
    let inside = format!("{}/escaped 644", outside.display());
    let lines = shown(&store, &record);
    assert!(lines.iter().any(|line| line.starts_with("/tmp/escaped 644")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with(&inside)), "{lines:#?}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn what_is_no_image_or_leaves_open_which_is_said_with_what_there_is() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let said = |reference: &str| {
        let failure = try_lock(&from_oci(project.path(), reference), &store).unwrap_err();
        format!("{}: {} ({})", failure.message, failure.causes.join(": "), failure.hint.unwrap_or_default())
    };
    assert!(said("nginx:1.27").contains("registry.example.com/library/nginx:1.27"), "{}", said("nginx:1.27"));
    write(project.path(), "empty/x", "");
    assert!(said("./empty").contains("it has no file `oci-layout`"), "{}", said("./empty"));
    write(project.path(), "text", "no archive");
    assert!(
        said("./text").contains("does not read as a tar archive") || said("./text").contains("neither"),
        "{}",
        said("./text")
    );
    fs::write(project.path().join("packed"), gzipped(&vec![7; 2000])).unwrap();
    assert!(said("./packed").contains("gunzip"), "{}", said("./packed"));
    let dir = project.path().join("two");
    image().layout(&dir, "one");
    let index = fs::read_to_string(dir.join("index.json")).unwrap();
    let mut index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let mut second = index["manifests"][0].clone();
    second["digest"] = format!("sha256:{}", "b".repeat(64)).into();
    second["annotations"]["org.opencontainers.image.ref.name"] = "two".into();
    index["manifests"].as_array_mut().unwrap().push(second);
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    assert!(said("./two").contains("several images (`one`, `two`)"), "{}", said("./two"));
    assert!(said("./two:three").contains("no such image, but `one`, `two`"), "{}", said("./two:three"));
    assert!(try_lock(&from_oci(project.path(), "./two:one"), &store).is_ok());
    // For another machine.
    let mut foreign = from_oci(project.path(), "./two:one");
    foreign.architecture = "arm64".into();
    let failure = try_lock(&foreign, &store).and_then(|lock| try_bake(&foreign, &lock, &store)).unwrap_err();
    assert!(failure.causes.join(" ").contains("it is for linux/amd64, not linux/arm64"), "{failure:?}");
    // Nothing to run.
    for (name, run) in [("none", json!({})), ("unnamed", json!({"Entrypoint": [""], "Cmd": ["x"]}))] {
        Image::of(&layers(), run).layout(&project.path().join(name), "x");
        let order = from_oci(project.path(), &format!("./{name}"));
        let failure = try_bake(&order, &locked(&order, &store), &store).unwrap_err();
        assert_eq!(failure.code, ExitCode::Spec, "{failure:?}");
        assert!(failure.message.contains("says what it runs"), "{failure:?}");
        assert!(failure.hint.unwrap_or_default().contains("add `run`"));
    }
}

#[test]
fn archives_of_podman_save_are_the_image_that_podman_loaded() {
    let project = tempfile::tempdir().unwrap();
    let path = |name: &str| project.path().join(name).to_str().unwrap().to_owned();
    image().layout(&project.path().join("base"), "one");
    let archive = format!("oci-archive:{}:example/app:one", path("in.tar"));
    tool("skopeo", &["--insecure-policy", "copy", &format!("oci:{}:one", path("base")), &archive]);
    let podman = Podman::new();
    let loaded = podman.run(&["load", "-q", "-i", &path("in.tar")]);
    let name = loaded.trim().rsplit(' ').next().unwrap();
    for format in ["docker-archive", "oci-archive"] {
        podman.run(&["save", "-q", "--format", format, "-o", &path(&format!("{format}.tar")), name]);
    }
    let first = bake_one(project.path(), "./base:one");
    for reference in ["./docker-archive.tar", "./oci-archive.tar", "./oci-archive.tar:one"] {
        let other = bake_one(project.path(), reference);
        assert_eq!((other.digest, other.run), (first.digest, first.run.clone()), "{reference}");
    }
}

#[test]
fn images_of_one_tag_in_an_archive_are_told_apart_by_their_full_names() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = |name: &str| project.path().join(name).to_str().unwrap().to_owned();
    let podman = Podman::new();
    let other = || Image::of(&layers()[..1], run());
    for (name, image) in [("web", image()), ("api", other())] {
        image.layout(&project.path().join(name), "one");
        let archive = format!("oci-archive:{}:localhost/team/{name}:one", path("in.tar"));
        tool("skopeo", &["--insecure-policy", "copy", &format!("oci:{}:one", path(name)), &archive]);
        podman.run(&["load", "-q", "-i", &path("in.tar")]);
        fs::remove_file(path("in.tar")).unwrap();
    }
    let both = ["localhost/team/web:one", "localhost/team/api:one"];
    podman.run(&["save", "-q", "-m", "-o", &path("both.tar"), both[0], both[1]]);
    let of = |reference: &str| bake_one(project.path(), reference).digest;
    assert_eq!(of("./both.tar:localhost/team/web:one"), of("./web:one"));
    assert_eq!(of("./both.tar:localhost/team/api"), of("./api"));
    assert_ne!(of("./web"), of("./api"));
    let store = Store::open(state.path()).unwrap();
    for unclear in ["./both.tar", "./both.tar:one", "./both.tar:localhost/team/www:one"] {
        let failure = try_lock(&from_oci(project.path(), unclear), &store).unwrap_err();
        let said = format!("{}: {}", failure.message, failure.causes.join(": "));
        assert!(both.iter().all(|name| said.contains(name)), "{unclear}: {said}");
    }
}

#[test]
fn what_belongs_to_one_machine_is_left_out_and_told() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let layer = Layer::new()
        .program("bin/sh", &busybox())
        .file("etc/ssh/ssh_host_rsa_key", b"secret")
        .file("etc/ssh/sshd_config", b"x")
        .file("etc/machine-id", b"0123456789abcdef0123456789abcdef\n")
        .done();
    Image::of(&[layer], run()).layout(&project.path().join("base"), "x");
    let mut order = from_oci(project.path(), "./base");
    order.user = Some("0".into());
    let record = baked(&order, &locked(&order, &store), &store).record;
    let lines = shown(&store, &record);
    let has = |start: &str| lines.iter().any(|line| line.starts_with(start));
    assert!(has("/etc/ssh/sshd_config ") && !has("/etc/ssh/ssh_host_rsa_key"), "{lines:#?}");
    assert!(has("/etc/machine-id 0 0:0 link ../run/machine-id"), "{lines:#?}");
    assert_eq!(record.left_out.iter().map(|l| l.what.as_str()).collect::<Vec<_>>(), ["SSH host keys"]);
}

/// As `umoci insert` 0.4 writes it.
#[test]
fn a_layer_may_end_with_the_last_byte_of_its_last_file() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let mut layer = Layer::new().program("bin/sh", &busybox()).file("last", b"last").done();
    // Without what fills the last block and ends an archive; but not without more.
    layer.truncate(layer.len() - 1024 - 508);
    let run = || json!({"Entrypoint": ["/bin/sh"], "User": "0"});
    Image::of(&[layer.clone()], run()).layout(&project.path().join("base"), "x");
    let order = from_oci(project.path(), "./base");
    let record = baked(&order, &locked(&order, &store), &store).record;
    assert!(shown(&store, &record).iter().any(|line| line.starts_with("/last 644")));
    layer.truncate(layer.len() - 1);
    Image::of(&[layer], run()).layout(&project.path().join("cut"), "x");
    let order = from_oci(project.path(), "./cut");
    let failure = try_bake(&order, &locked(&order, &store), &store).unwrap_err();
    assert!(failure.message.contains("cannot be unpacked"), "{failure:?}");
}

#[test]
fn files_of_users_that_no_instance_has_are_kept_and_said() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let layer = Layer::new()
        .program("bin/sh", &busybox())
        .owned("far", 0o644, (70_000, 0), b"x")
        .owned("farther", 0o644, (0, 65_536), b"x")
        .owned("last", 0o644, (65_535, 65_535), b"x");
    let run = json!({"Entrypoint": ["/bin/sh"], "User": "65535"});
    Image::of(&[layer.done()], run).layout(&project.path().join("base"), "x");
    let order = from_oci(project.path(), "./base");
    let told = Told::default();
    let record = kiln_bake::bake(&order, &locked(&order, &store), &store, &told).unwrap().record;
    assert!(shown(&store, &record).iter().any(|line| line.starts_with("/far 644 70000:0")));
    let told = told.tasks();
    assert!(
        told.iter().any(|t| t.starts_with("/far and 1 more: of users or groups above 65535")),
        "{told:?}"
    );
    // Nobody can be its user who is none of an instance's.
    let layer = Layer::new().program("bin/sh", &busybox());
    let run = json!({"Entrypoint": ["/bin/sh"], "User": "70000"});
    Image::of(&[layer.done()], run).layout(&project.path().join("beyond"), "x");
    let order = from_oci(project.path(), "./beyond");
    let failure = try_bake(&order, &locked(&order, &store), &store).unwrap_err();
    assert!(failure.causes.join(" ").contains("user 70000 of `70000` is beyond"), "{failure:?}");
}

#[test]
fn its_user_is_whom_others_run_it_as() {
    let layer = || {
        Layer::new()
            .program("bin/sh", &busybox())
            .file("etc/passwd", b"root:x:0:0::/:/bin/sh\nbob:x:1000:1000::/:/bin/sh\n")
            .file("etc/group", b"root:x:0:\nadm:x:4:bob\nbob:x:1000:\n")
            .done()
    };
    for (user, gid, groups) in
        [("2000", 0, vec![]), ("2000:7", 7, vec![]), ("1000", 1000, vec![4]), ("1000:0", 0, vec![])]
    {
        let project = tempfile::tempdir().unwrap();
        let run = json!({"Entrypoint": ["/bin/sh"], "User": user});
        Image::of(&[layer()], run).layout(&project.path().join("base"), "x");
        let ours = bake_one(project.path(), "./base").run;
        assert_eq!((ours.gid, &ours.groups), (gid, &groups), "{user}");
        let bundle = project.path().join("bundle");
        let reference = format!("{}:x", project.path().join("base").display());
        tool("umoci", &["unpack", "--image", &reference, bundle.to_str().unwrap()]);
        let theirs = fs::read(bundle.join("config.json")).unwrap();
        let theirs = serde_json::from_slice::<serde_json::Value>(&theirs).unwrap()["process"]["user"].take();
        let further = theirs["additionalGids"].as_array().cloned().unwrap_or_default();
        assert_eq!((&theirs["uid"], &theirs["gid"]), (&json!(ours.uid), &json!(ours.gid)), "{user}");
        assert_eq!(json!(further), json!(ours.groups), "{user}");
    }
}
