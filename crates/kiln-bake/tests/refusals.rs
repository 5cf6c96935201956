//! What is refused, and with which words and code. Nothing here needs a mirror.

mod common;

use std::fs;
use std::os::unix::fs::symlink;

use common::{Quiet, baked, file, locked, order, scratch, try_bake, try_lock, write};
use kiln_bake::{BakeOrder, Sources, Update};
use kiln_model::{ByteSize, ExitCode, Failure, Lock, LockedPackage, Sha256, Volatile};
use kiln_store::Store;

fn said(failure: &Failure) -> String {
    format!("{}: {}", failure.message, failure.causes.join(": "))
}

/// Bakes an order from scratch that `change` has spoilt.
fn refused(change: impl FnOnce(&mut BakeOrder)) -> Failure {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let mut order = scratch(project.path());
    change(&mut order);
    let lock = locked(&order, &store);
    try_bake(&order, &lock, &store).unwrap_err()
}

#[test]
fn a_file_that_is_not_there_is_named_with_its_likes() {
    let failure = refused(|order| {
        write(&order.project, "nginx.conf", "x");
        order.files.push(file("ngnix.conf", "/etc/nginx.conf"));
    });
    assert_eq!(failure.code, ExitCode::Bake);
    let said = said(&failure);
    assert!(said.contains("`ngnix.conf`") && said.contains("did you mean `nginx.conf`"), "{said}");
}

#[test]
fn files_stay_inside_the_project() {
    let outside = tempfile::tempdir().unwrap();
    write(outside.path(), "secret", "x");
    for src in ["../secret", "/etc/passwd", "link", "dir/"] {
        let failure = refused(|order| {
            symlink(outside.path().join("secret"), order.project.join("link")).unwrap();
            fs::create_dir(order.project.join("dir")).unwrap();
            symlink("/etc/passwd", order.project.join("dir/p")).unwrap();
            order.files.push(file(src, "/x"));
        });
        assert!(said(&failure).contains("leads out of the project"), "{src}: {}", said(&failure));
    }
}

#[test]
fn a_link_in_a_directory_that_cannot_be_followed_is_named() {
    let refused = |link: &str, to: &str| {
        let failure = refused(|order| {
            fs::create_dir_all(order.project.join("src/deep")).unwrap();
            symlink(to, order.project.join(link)).unwrap();
            order.files.push(file("src/", "/x"));
        });
        said(&failure)
    };
    let outside = refused("src/abs", "/etc/passwd");
    assert!(outside.contains("`src/abs` leads out of the project, to /etc/passwd"), "{outside}");
    for (link, to) in [("src/a", "."), ("src/deep/a", ".."), ("src/deep/a", "../../src/deep/../../src")] {
        let circle = refused(link, to);
        assert!(circle.contains(&format!("`{link}` leads in a circle")), "{circle}");
    }
    let deep = said(&self::refused(|order| {
        fs::create_dir_all(order.project.join(format!("src/{}", "d/".repeat(70)))).unwrap();
        order.files.push(file("src/", "/x"));
    }));
    assert!(deep.contains("more than 64 directories in one another"), "{deep}");
}

#[test]
fn the_state_of_kiln_is_no_file_of_the_project() {
    let project = tempfile::tempdir().unwrap();
    let store = Store::open(&project.path().join("deep/state")).unwrap();
    let mut order = scratch(project.path());
    write(project.path(), "deep/page", "x");
    write(project.path(), ".kiln/secret", "x");
    order.files.push(file(".", "/srv"));
    let record = baked(&order, &locked(&order, &store), &store).record;
    let image = kiln_bake::export::Stored::open(&store, &record.digest).unwrap();
    let below: Vec<_> = image.tree.below(b"/srv").map(|(path, _)| String::from_utf8_lossy(path)).collect();
    assert_eq!(below, ["/srv/deep", "/srv/deep/page", "/srv/program"]);
}

#[test]
fn a_directory_of_the_image_is_not_replaced_by_a_file() {
    let failure = refused(|order| order.files.push(file("program", "/etc")));
    assert!(said(&failure).contains("it is a directory in the image"), "{}", said(&failure));
    let failure = refused(|order| order.files.push(file("program", "/etc/hosts/x")));
    assert!(said(&failure).contains("in the way of a directory"), "{}", said(&failure));
}

#[test]
fn what_is_in_the_way_of_a_volatile_path_is_named_with_it() {
    for (path, at) in [("/program", "/program"), ("/program/x", "/program")] {
        let failure = refused(|order| order.volatile = vec![Volatile::new(path, ByteSize(4096))]);
        let problem = format!(
            "cannot have {path}: it is volatile, so a directory, and what the image has at {at} is none"
        );
        assert!(said(&failure).contains(&problem), "{}", said(&failure));
    }
}

#[test]
fn users_and_programs_must_be_there() {
    let failure = refused(|order| order.user = Some("www-data".into()));
    assert!(said(&failure).contains("no user `www-data`"), "{}", said(&failure));
    let failure = refused(|order| order.run = vec!["/bin/program".into()]);
    assert!(
        said(&failure).contains("no program /bin/program (did you mean `/program`?)"),
        "{}",
        said(&failure)
    );
}

#[test]
fn a_lock_must_answer_the_order() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let order = scratch(project.path());
    let missing = try_bake(&order, &Lock::default(), &store).unwrap_err();
    assert_eq!((missing.code, missing.hint.is_some()), (ExitCode::Spec, true));
    let mut stale = locked(&order, &store);
    stale.images.get_mut(&order.image).unwrap().request.recommends = true;
    assert!(said(&try_bake(&order, &stale, &store).unwrap_err()).contains("an earlier form"));
}

/// Earlier versions could choose one for another machine.
#[test]
fn a_lock_with_a_package_for_other_machines_is_refused_before_anything_is_fetched() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let mut order = order(project.path(), &["hello"]);
    // Nothing listens there: whatever is fetched fails with other words.
    order.sources = Sources { mirror: Some("http://127.0.0.1:9/debian".into()), check_valid_until: None };
    let mut old = locked(&scratch(project.path()), &store);
    let image = old.images.get_mut(&order.image).unwrap();
    (image.request, image.packages) = (order.lock_request(), vec![hello("i386")]);
    let orders = std::slice::from_ref(&order);
    let lock = |update: &Update| {
        Failure::from(kiln_bake::lock(orders, Some(&old), update, &store, &Quiet).unwrap_err())
    };
    for failure in [try_bake(&order, &old, &store).unwrap_err(), lock(&Update::Nothing)] {
        assert_eq!(failure.code, ExitCode::Spec, "{failure:?}");
        let names = "kiln.lock names `hello` for i386, and the image is for amd64";
        assert!(said(&failure).contains(names), "{}", said(&failure));
        assert!(failure.hint.clone().unwrap_or_default().contains("`kiln lock --update`"), "{failure:?}");
    }
    // That one asks the mirror, and so does one of the package alone.
    for update in [Update::All, Update::Packages(vec!["hello".into()])] {
        assert!(lock(&update).message.contains("index of `bookworm`"), "{:?}", lock(&update));
    }
}

/// A package that no mirror has.
fn hello(architecture: &str) -> LockedPackage {
    LockedPackage {
        name: "hello".into(),
        version: "1".into(),
        architecture: architecture.into(),
        suite: "bookworm".into(),
        path: "pool/hello.deb".into(),
        size: 1,
        sha256: Sha256::of(b"x"),
    }
}

#[test]
fn a_mirror_that_is_down_is_said_with_what_needs_none() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    let mut order = order(project.path(), &["nginx-light"]);
    // Nothing listens on the discard port.
    order.sources = Sources { mirror: Some("http://127.0.0.1:9/debian".into()), check_valid_until: None };
    let failure = try_lock(&order, &store).unwrap_err();
    assert_eq!(failure.code, ExitCode::Bake);
    assert!(failure.message.contains("index of `bookworm`") && failure.hint.is_some(), "{failure:?}");

    let mut lock = locked(&scratch(project.path()), &store);
    let image = lock.images.get_mut(&order.image).unwrap();
    (image.request, image.packages) = (order.lock_request(), vec![hello("amd64")]);
    let failure = try_bake(&order, &lock, &store).unwrap_err();
    let hint = failure.hint.clone().unwrap_or_default();
    assert!(failure.message.contains("`hello`") && hint.contains("need no network"), "{failure:?}");
}

#[test]
fn an_image_from_scratch_is_the_same_everywhere() {
    let bake_one = || {
        let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Store::open(state.path()).unwrap();
        let mut order = scratch(project.path());
        order.volatile = vec![Volatile::new("/data", ByteSize(4096))];
        let lock = locked(&order, &store);
        (baked(&order, &lock, &store).record, baked(&order, &lock, &store).reused)
    };
    let ((first, reused), (second, _)) = (bake_one(), bake_one());
    assert!(reused);
    assert_eq!(first, second);
    assert_eq!((first.run.uid, first.run.user.as_str()), (0, "root"));
}
