//! `dirs`, `links`, `users` and `build`, over nothing but a busybox. Needs root, and no mirror.

mod common;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{FileExt, MetadataExt};

use common::{Told, baked, file, locked, printed, scratch, try_bake, write};
use kiln_bake::BakeOrder;
use kiln_model::spec::{BuildNetwork, BuildStep, DirSpec, LinkSpec, UserSpec};
use kiln_model::{ExitCode, ImageHandle};
use kiln_store::{Store, Verity};

fn line(text: &str) -> BuildStep {
    BuildStep::Line(text.into())
}

fn user(name: &str, uid: Option<u32>) -> UserSpec {
    let (home, shell) = (Some("/srv/app".into()), Some("/bin/sh".into()));
    UserSpec { name: name.into(), uid, gid: None, groups: Vec::new(), home, shell }
}

/// An order whose image has a shell.
fn with_shell(project: &std::path::Path) -> BakeOrder {
    let mut order = scratch(project);
    fs::copy("/bin/busybox", project.join("busybox")).expect("busybox-static is needed: cargo xtask setup");
    order.files.push(file("busybox", "/bin/busybox"));
    let link = |name: &str| LinkSpec { path: format!("/bin/{name}"), to: "busybox".into() };
    order.links = ["sh", "cat", "ls", "stat", "id", "find"].into_iter().map(link).collect();
    order.run = vec!["/bin/sh".into()];
    order
}

fn image_of(order: &BakeOrder, store: &Store) -> ImageHandle {
    let digest = baked(order, &locked(order, store), store).record.digest;
    store.handle(&digest).unwrap()
}

#[test]
fn directories_links_and_users_are_there() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let mut order = with_shell(project.path());
    write(project.path(), "conf", "x");
    order.users = vec![user("app", None), user("web", Some(33))];
    order.user = Some("web".into());
    let dir = |path: &str, mode, owner: Option<&str>| DirSpec {
        path: path.into(),
        mode,
        owner: owner.map(str::to_owned),
    };
    order.dirs = vec![dir("/srv/app/data", Some(0o2750), Some("app:web")), dir("/srv/plain", None, None)];
    let mut conf = file("conf", "/srv/app/data/conf");
    (conf.mode, conf.owner) = (Some(0o640), Some("web".into()));
    order.files.push(conf);
    order.links.push(LinkSpec { path: "/srv/conf".into(), to: "app/data/conf".into() });
    let image = image_of(&order, &store);
    let told = printed(
        &image,
        &[
            "/bin/stat",
            "-c",
            "%n %a %u:%g %F",
            "/srv/app/data",
            "/srv/plain",
            "/srv/conf",
            "/srv/app/data/conf",
        ],
    );
    let expected = "/srv/app/data 2750 100:33 directory\n/srv/plain 755 0:0 directory\n\
                    /srv/conf 777 0:0 symbolic link\n/srv/app/data/conf 640 33:33 regular file\n";
    assert_eq!(told, expected);
    assert_eq!(printed(&image, &["/bin/cat", "/srv/conf"]), "x");
    let passwd = printed(&image, &["/bin/cat", "/etc/passwd", "/etc/group"]);
    assert_eq!(
        passwd,
        "app:x:100:100::/srv/app:/bin/sh\nweb:x:33:33::/srv/app:/bin/sh\napp:x:100:\nweb:x:33:\n"
    );
    let record = store.image(&image.digest).unwrap().unwrap();
    assert_eq!((record.run.uid, record.run.gid), (33, 33));
}

#[test]
fn a_build_runs_inside_and_leaves_nothing_of_its_moment() {
    let bake_one = || {
        let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Store::open(state.path()).unwrap();
        let mut order = with_shell(project.path());
        write(project.path(), "input", "made of this");
        order.files.push(file("input", "/src/input"));
        order.env = [("GREETING".to_owned(), "hello".to_owned())].into();
        order.build = vec![
            line(
                "/bin/busybox mkdir -p /opt/app && cat /src/input >/opt/app/output\necho \"$GREETING\" >/opt/app/env",
            ),
            BuildStep::Program(vec!["/bin/busybox".into(), "rm".into(), "-r".into(), "/src".into()]),
            line("id -u >/opt/app/who; ls /sys/class/net >/opt/app/net 2>&1 || true; echo x >/tmp/left"),
            line("/bin/busybox ip -o link | /bin/busybox wc -l >/opt/app/links"),
        ];
        let image = image_of(&order, &store);
        let read = |name: &str| printed(&image, &["/bin/cat", &format!("/opt/app/{name}")]);
        assert_eq!((read("output"), read("env")), ("made of this".into(), "hello\n".into()));
        // Root of the image, in a network that is a loopback device.
        assert_eq!((read("who"), read("links")), ("0\n".into(), "1\n".into()));
        assert_eq!(printed(&image, &["/bin/find", "/", "-xdev", "-name", "src", "-o", "-name", "left"]), "");
        let times = printed(&image, &["/bin/stat", "-c", "%Y", "/opt/app/output", "/opt/app"]);
        assert_eq!(times, "1577836800\n1577836800\n");
        image.digest
    };
    assert_eq!(bake_one(), bake_one());
}

#[test]
fn a_build_is_done_again_only_if_something_it_sees_has_changed() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let mut order = with_shell(project.path());
    // What the kernel makes up anew at every reading tells whether it was run again.
    order.build = vec![line("cat /proc/sys/kernel/random/uuid >/once")];
    let once = |order: &BakeOrder| printed(&image_of(order, &store), &["/bin/cat", "/once"]);
    let first = once(&order);
    order.volatile = vec![kiln_model::Volatile::new("/data", kiln_model::ByteSize(4096))];
    assert_eq!(once(&order), first);
    order.dirs = vec![DirSpec { path: "/more".into(), mode: None, owner: None }];
    assert_ne!(once(&order), first);
}

#[test]
fn a_build_that_fails_says_which_step_and_what_it_printed() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let mut order = with_shell(project.path());
    order.build = vec![line("echo fine"), line("echo about to fail; cat /not/there; echo never")];
    let lock = locked(&order, &store);
    let failure = try_bake(&order, &lock, &store).unwrap_err();
    assert_eq!(failure.code, ExitCode::Bake);
    assert!(failure.message.starts_with("build step 2 `echo about to fail;"), "{failure:?}");
    assert!(failure.message.ends_with("exited with code 1"), "{failure:?}");
    let hint = failure.hint.unwrap_or_default();
    assert!(hint.contains("fine\nabout to fail\n") && hint.contains("/not/there"), "{hint}");
    assert!(!hint.contains("never"), "{hint}");
    assert_eq!(store.images().unwrap(), []);
    assert_eq!(store.verify().unwrap(), []);
}

#[test]
fn what_cannot_be_put_into_an_image_is_refused_with_the_reason() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let said = |change: &dyn Fn(&mut BakeOrder)| {
        let mut order = with_shell(project.path());
        change(&mut order);
        let failure = try_bake(&order, &locked(&order, &store), &store).unwrap_err();
        format!("{}: {}", failure.message, failure.causes.join(": "))
    };
    let plain = said(&|o| o.files.last_mut().unwrap().mode = Some(0o644));
    assert!(plain.contains("has /bin/sh, and nobody may execute it: its mode is 0644"), "{plain}");
    let directory = said(&|o| o.run = vec!["/etc".into()]);
    assert!(directory.contains("has /etc, and nobody may execute it: it is a directory"), "{directory}");
    let link = said(&|o| o.links.push(LinkSpec { path: "/etc".into(), to: "x".into() }));
    assert!(link.contains("cannot have /etc: it is a directory in the image"), "{link}");
    let dir = said(&|o| o.dirs.push(DirSpec { path: "/etc/hosts/x".into(), mode: None, owner: None }));
    assert!(dir.contains("cannot have /etc/hosts/x: is in the way of a directory"), "{dir}");
    let account = said(&|o| {
        o.users.push(UserSpec { groups: vec!["wheel".into()], ..user("app", None) });
    });
    assert!(account.contains("user `app` cannot be added: there is no group `wheel`"), "{account}");
}

/// Before all of it has been read, which would take hours.
/// The project's own: with a hole it is the file that it is without, and takes no more room in the store than there.
#[test]
fn a_hole_in_a_file_of_the_project_is_its_zeroes() {
    const SIZE: u64 = 64 << 20;
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let mut order = scratch(project.path());
    order.files.push(file("disk", "/disk"));
    let disk = project.path().join("disk");
    let write_at = |at: u64| {
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&disk).unwrap();
        file.write_all_at(b"some bytes", at).unwrap();
    };
    [0, 9_999_999, SIZE - 10].into_iter().for_each(write_at);
    let sparse = baked(&order, &locked(&order, &store), &store).record;
    let object = store.objects().path(&Verity::of(&fs::read(&disk).unwrap()));
    let room = fs::metadata(object).expect("the object of the file's bytes").blocks() * 512;
    assert!(room < SIZE / 16, "{room} bytes for a file that is a hole but for three stretches");
    fs::write(&disk, fs::read(&disk).unwrap()).unwrap();
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    let full = baked(&order, &locked(&order, &store), &store).record;
    assert_eq!((sparse.digest, sparse.inputs), (full.digest, full.inputs));
}

/// One that would take very long to read, were it read.
#[test]
fn a_hole_of_a_terabyte_costs_nothing() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let mut order = scratch(project.path());
    write(project.path(), "disk", "begin");
    let disk = fs::OpenOptions::new().write(true).open(project.path().join("disk")).unwrap();
    disk.write_all_at(b"end", 1 << 40).expect("a file system that can hold it, as ext4 and tmpfs");
    order.files.push(file("disk", "/disk"));
    let image = image_of(&order, &store);
    let image = kiln_bake::export::Stored::open(&store, &image.digest).unwrap();
    assert_eq!(image.tree.get(b"/disk").unwrap().size(), (1 << 40) + 3);
    assert_eq!(store.verify().unwrap(), []);
}

#[test]
fn a_file_larger_than_any_of_an_image_is_refused_at_once() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let said = |order: &BakeOrder| {
        let failure = try_bake(order, &locked(order, &store), &store).unwrap_err();
        format!("{} {:?}", failure.message, failure.causes)
    };
    let mut order = with_shell(project.path());
    order.build = vec![line("/bin/busybox truncate -s 9895604649984 /sparse")];
    let told = said(&order);
    assert!(told.contains("/sparse") && told.contains("8 TiB"), "{told}");
    order.build = vec![line("/bin/busybox truncate -s 1G /sparse; echo end >>/sparse")];
    let image = image_of(&order, &store);
    assert_eq!(printed(&image, &["/bin/stat", "-c", "%s", "/sparse"]), "1073741828\n");
    write(project.path(), "sparse", "");
    let sparse = fs::OpenOptions::new().write(true).open(project.path().join("sparse")).unwrap();
    sparse.set_len(9 << 40).expect("a file system that can hold it, as ext4 and tmpfs");
    order.files.push(file("sparse", "/more"));
    let told = said(&order);
    assert!(told.contains("/sparse is larger than 8 TiB"), "{told}");
}

#[test]
fn what_no_instance_sees_of_the_spec_is_said() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let mut order = with_shell(project.path());
    let volatile = |path| kiln_model::Volatile::new(path, kiln_model::ByteSize(4096));
    order.volatile = vec![volatile("/run"), volatile("/srv/data")];
    order.files.extend(["/run/app.conf", "/runner"].map(|dst| file("busybox", dst)));
    let dir = |path: &str| DirSpec { path: path.into(), mode: None, owner: None };
    order.dirs = vec![dir("/srv/data"), dir("/srv/data/deep"), dir("/srv/other")];
    order.links.push(LinkSpec { path: "/run/link".into(), to: "x".into() });
    let told = Told::default();
    kiln_bake::bake(&order, &locked(&order, &store), &store, &told).unwrap();
    let mut told = told.tasks();
    told.retain(|task| task.contains("no instance sees it"));
    told.dedup();
    let of = |key: &str, path: &str, top: &str| {
        format!("`{key}` has {path}, and no instance sees it: {top} is volatile, and empty there")
    };
    let expected = [
        of("files", "/run/app.conf", "/run"),
        of("links", "/run/link", "/run"),
        of("dirs", "/srv/data/deep", "/srv/data"),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_volatile_path_is_where_its_links_lead_inside_the_image() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let mut order = with_shell(project.path());
    order.dirs = vec![DirSpec { path: "/real".into(), mode: None, owner: None }];
    order.links.push(LinkSpec { path: "/data".into(), to: "../../real".into() });
    order.volatile = vec![kiln_model::Volatile::new("/data/x", kiln_model::ByteSize(4096))];
    let record = baked(&order, &locked(&order, &store), &store).record;
    assert_eq!(record.volatile[0].path, "/real/x");
}

#[test]
fn the_clock_of_a_build_stands_still() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let mut order = with_shell(project.path());
    order.build = vec![
        // By clock_gettime, in processes that are children, and of time that has passed.
        line("/bin/busybox date +%s >/one; /bin/busybox sleep 1; (/bin/busybox date +%s) >/two"),
        line("/bin/busybox awk 'BEGIN { srand(); srand(); print srand() }' >/three"),
        // What waits for a moment is not left waiting.
        line("/bin/busybox timeout 20 /bin/busybox sleep 0.2 && echo ended >/four"),
    ];
    let image = image_of(&order, &store);
    let told = printed(&image, &["/bin/cat", "/one", "/two", "/three", "/four"]);
    assert_eq!(told, "1577836800\n1577836800\n1577836800\nended\n");
}

/// As `ischroot` finds out, by which packages decide whether an init is to be restarted, and a second to be waited for it.
#[test]
fn programs_of_a_build_see_that_they_are_in_a_chroot() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let mut order = with_shell(project.path());
    order.build = vec![
        line("/bin/busybox cat /proc/self/mountinfo >/own; /bin/busybox cat /proc/1/mountinfo >/init"),
        line("/bin/busybox test -s /own && ! /bin/busybox cmp -s /own /init && echo chroot >/answer"),
        // The way up leads nowhere.
        line("cd ../../..; /bin/busybox cmp -s answer /answer && /bin/busybox pwd >>/answer"),
    ];
    let image = image_of(&order, &store);
    assert_eq!(printed(&image, &["/bin/cat", "/answer"]), "chroot\n/\n");
}

/// Says this to the first who comes; where.
fn say_once(text: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.accept().unwrap().0.write_all(text.as_bytes()));
    port
}

#[test]
fn a_build_reaches_the_network_only_if_the_spec_says_so() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let port = say_once("from outside");
    let mut order = with_shell(project.path());
    order.build = vec![line(&format!(
        "/bin/busybox nc 127.0.0.1 {port} </dev/null >/got && cat /etc/resolv.conf >/servers"
    ))];
    let lock = locked(&order, &store);
    let failure = try_bake(&order, &lock, &store).unwrap_err();
    assert!(
        failure.hint.is_some_and(|hint| hint.contains("can't connect")),
        "nothing listens in its own network"
    );
    order.build_network = BuildNetwork::Host;
    let image = image_of(&order, &store);
    assert_eq!(printed(&image, &["/bin/cat", "/got"]), "from outside");
    // The host's name servers were there, and are not in the image.
    let host = fs::read_to_string("/etc/resolv.conf").unwrap();
    assert_eq!(printed(&image, &["/bin/cat", "/servers"]), host);
    assert_eq!(printed(&image, &["/bin/cat", "/etc/resolv.conf"]), "# no name server: see /etc/hosts\n");
}

#[test]
fn what_belongs_to_one_machine_is_refused_whoever_brings_it() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    write(project.path(), "key", "secret");
    let refused = |change: &dyn Fn(&mut BakeOrder)| {
        let mut order = with_shell(project.path());
        change(&mut order);
        let failure = try_bake(&order, &locked(&order, &store), &store).unwrap_err();
        assert_eq!(failure.code, ExitCode::Bake);
        format!("{} {}", failure.causes.join(": "), failure.hint.unwrap_or_default())
    };
    let key = refused(&|o| o.files.push(file("key", "/etc/ssh/ssh_host_ed25519_key")));
    assert!(
        key.contains("/etc/ssh/ssh_host_ed25519_key belongs to one machine") && key.contains("secrets"),
        "{key}"
    );
    let id = refused(&|o| o.build = vec![line("echo 0123456789abcdef0123456789abcdef >/etc/machine-id")]);
    assert!(id.contains("/etc/machine-id belongs to one machine") && id.contains("each instance"), "{id}");
    let data = refused(&|o| o.build = vec![line("/bin/busybox mkdir -p /var/lib/postgresql/15/main")]);
    assert!(data.contains("PostgreSQL clusters") && data.contains("store of the spec"), "{data}");
    assert_eq!(store.images().unwrap(), []);
}

#[test]
fn an_object_that_was_written_into_is_made_again() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let order = with_shell(project.path());
    let lock = locked(&order, &store);
    let first = baked(&order, &lock, &store).record;
    assert!(baked(&order, &lock, &store).reused);
    let objects = || {
        let dirs = fs::read_dir(store.objects_dir()).unwrap().map(|e| e.unwrap().path());
        dirs.flat_map(|dir| fs::read_dir(dir).unwrap().map(|e| e.unwrap().path())).collect::<Vec<_>>()
    };
    let largest = objects().into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let whole = fs::read(&largest).unwrap();
    let mut damaged = whole.clone();
    damaged[1000] ^= 1;
    fs::write(&largest, &damaged).unwrap();
    assert_eq!(store.verify().unwrap().len(), 1, "damaged, and as large as before");
    let again = baked(&order, &lock, &store);
    assert!(!again.reused && again.record == first);
    assert_eq!(store.verify().unwrap(), []);
    // Written anew with the same content it is left as it is, and not looked into again.
    fs::write(&largest, &whole).unwrap();
    assert!(baked(&order, &lock, &store).reused && baked(&order, &lock, &store).reused);
    assert_eq!(store.verify().unwrap(), []);
}
