//! Which host is meant, out of those that run on this machine.

use std::os::unix::net::UnixListener;
use std::path::Path;

use kiln_api::{Registration, Registry};
use kiln_model::{ExitCode, Timestamp};

fn registration(pid: u32, root: &Path) -> Registration {
    Registration {
        pid,
        root: root.to_owned(),
        socket: root.join("control.sock"),
        listen: format!("127.0.0.1:{}", 8000 + pid),
        started: Timestamp(1_790_000_000_000),
    }
}

/// A host that answers, in `directory`.
fn host(pid: u32, directory: &Path) -> (UnixListener, Registration) {
    let root = directory.join(pid.to_string());
    std::fs::create_dir_all(&root).unwrap();
    let registration = registration(pid, &root);
    (UnixListener::bind(&registration.socket).unwrap(), registration)
}

#[test]
fn none_one_and_several() {
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::new(directory.path().join("hosts"));
    let none = registry.find(None).unwrap_err();
    assert_eq!((none.code, none.message.as_str()), (ExitCode::Host, "no Kiln host is running here"));
    assert!(none.hint.unwrap().contains("kiln up"));

    let (_listener, one) = host(1, directory.path());
    let entry = registry.register(&one).unwrap();
    assert_eq!(registry.find(None).unwrap(), one.socket);

    let (_listener, two) = host(2, directory.path());
    let _entry = registry.register(&two).unwrap();
    let several = registry.find(None).unwrap_err();
    assert_eq!((several.code, several.causes.len()), (ExitCode::Host, 2));
    assert!(several.causes[1].contains("pid 2 on 127.0.0.1:8002"));

    drop(entry);
    assert_eq!(registry.find(None).unwrap(), two.socket);
}

#[test]
fn a_host_is_named_by_socket_state_directory_or_address() {
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::new(directory.path().join("hosts"));
    let (_one, one) = host(1, directory.path());
    let (_two, two) = host(2, directory.path());
    let _entries = [registry.register(&one).unwrap(), registry.register(&two).unwrap()];
    let socket = two.socket.to_str().unwrap();
    for name in [socket, &format!("unix:{socket}"), two.root.to_str().unwrap(), "127.0.0.1:8002"] {
        assert_eq!(registry.find(Some(name)).unwrap(), two.socket, "{name}");
    }
    let wrong = registry.find(Some("127.0.0.1:1")).unwrap_err();
    assert_eq!(wrong.message, "no Kiln host is running at `127.0.0.1:1`");
    assert_eq!(wrong.causes.len(), 2);
}

#[test]
fn a_host_that_no_longer_answers_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let hosts = directory.path().join("hosts");
    let registry = Registry::new(&hosts);
    let (listener, one) = host(1, directory.path());
    let entry = registry.register(&one).unwrap();
    assert_eq!(registry.list(), [one]);
    // As after SIGKILL: the socket's file and the entry stay behind.
    drop(listener);
    std::mem::forget(entry);
    assert_eq!(registry.list(), []);
    assert_eq!(std::fs::read_dir(&hosts).unwrap().count(), 0);
}

/// As somebody who was killed with the same number has left it, and with nothing beside it.
#[test]
fn an_entry_takes_the_place_of_an_older_one_of_its_number() {
    let directory = tempfile::tempdir().unwrap();
    let hosts = directory.path().join("hosts");
    let registry = Registry::new(&hosts);
    let (_listener, one) = host(1, directory.path());
    std::fs::create_dir(&hosts).unwrap();
    std::fs::write(hosts.join("1.json"), "half an ent").unwrap();
    let entry = registry.register(&one).unwrap();
    assert_eq!(registry.list(), [one]);
    assert_eq!(std::fs::read_dir(&hosts).unwrap().count(), 1);
    drop(entry);
    assert_eq!(std::fs::read_dir(&hosts).unwrap().count(), 0);
}

#[test]
fn a_state_directory_is_enough_where_the_entry_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::new(directory.path().join("hosts"));
    let root = directory.path().join("state");
    std::fs::create_dir_all(root.join("run")).unwrap();
    let named = || registry.find(root.to_str());
    assert_eq!(named().unwrap_err().code, ExitCode::Host);
    let door = root.join("run/control.sock");
    let listener = UnixListener::bind(&door).unwrap();
    assert_eq!(named().unwrap(), door.canonicalize().unwrap());
    drop(listener);
    assert_eq!(named().unwrap_err().code, ExitCode::Host, "nobody answers there");
}

/// Its state directory is in mounts of its own, as a service manager makes them.
#[test]
fn the_entry_of_a_process_that_runs_stays_where_its_socket_is_not_seen() {
    let directory = tempfile::tempdir().unwrap();
    let hosts = directory.path().join("hosts");
    let registry = Registry::new(&hosts);
    let elsewhere = directory.path().join("elsewhere");
    let entry = registry.register(&registration(std::process::id(), &elsewhere)).unwrap();
    assert_eq!(registry.list(), []);
    assert_eq!(std::fs::read_dir(&hosts).unwrap().count(), 1);
    drop(entry);
}
