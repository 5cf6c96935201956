//! A release document that somebody has damaged or removed: it is noticed, and comes back by an import, with a host or
//! without.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::host::{KILN, TestHost, said};
use crate::project::Project;

/// Two releases, the first of which can be gone back to, and both as files.
struct Place {
    host: TestHost,
    first: String,
    live: String,
    files: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let (host, project, files) =
            (TestHost::start(), Project::example("hello"), tempfile::tempdir().unwrap());
        project.edit("kiln.toml", "instances = 4", "instances = 1");
        let first = host.deploy(&project);
        project.say("newer");
        let live = host.deploy(&project);
        let place = Self { host, first, live, files };
        for release in [&place.first, &place.live] {
            place.host.json(&["export", release, "-o", place.file(release).to_str().unwrap()]);
        }
        place
    }

    fn file(&self, release: &str) -> PathBuf {
        self.files.path().join(release)
    }

    fn document(&self, release: &str) -> PathBuf {
        self.host.root.path().join("releases").join(format!("{release}.json"))
    }

    /// Where no host runs.
    fn alone(&self, command: &[&str]) -> Output {
        let root = self.host.root.path().to_str().unwrap();
        Command::new(KILN).args(command).args(["--root", root]).stdin(Stdio::null()).output().unwrap()
    }
}

fn damage(document: &Path) {
    let text = fs::read_to_string(document).unwrap();
    fs::write(document, text.replacen("hello", "hellp", 1)).unwrap();
}

/// Exit code 9, and all of this said.
fn refused(output: &Output, says: &[&str]) {
    assert_eq!(output.status.code(), Some(9), "{}", said(output));
    for words in says {
        assert!(said(output).contains(words), "expected `{words}` in: {}", said(output));
    }
}

#[test]
fn a_stored_release_that_is_damaged_hides_no_other_and_is_imported_again() {
    let place = Place::new();
    let Place { host, first, live, .. } = &place;
    let value = place.file("value");
    fs::write(&value, "sesame").unwrap();
    let set = ["secret", "set", "API_KEY", "--app", "hello", "--file", value.to_str().unwrap()];
    assert!(host.kiln(&set).status.success());
    let document = place.document(first);
    damage(&document);
    let audit = host.json(&["audit"]);
    let of_release = |service: &Value| service["release"].clone();
    let audited: Vec<Value> = audit["services"].as_array().unwrap().iter().map(of_release).collect();
    assert_eq!(audited, [json!(live)], "{audit}");
    assert!(audit["damaged"][first].as_str().unwrap().contains("is damaged"), "{audit}");
    let listed = host.kiln(&["secret", "list", "--app", "hello"]);
    assert!(listed.status.success(), "{}", said(&listed));
    let text = said(&listed);
    assert!(
        text.contains("API_KEY") && text.contains(&format!("release {} needs is not known", &first[..14])),
        "{text}"
    );
    let says = [document.to_str().unwrap(), "`kiln import FILE` of an export of the release"];
    refused(&host.kiln(&["releases", "show", first]), &says);
    refused(&host.kiln(&["export", first, "-o", place.file("again").to_str().unwrap()]), &says);

    fs::remove_file(&document).unwrap();
    let says = [
        document.to_str().unwrap(),
        "it is missing",
        "can serve app hello again",
        "1 damaged",
        "`kiln import`",
    ];
    refused(&host.kiln(&["verify"]), &says);
    host.json(&["import", place.file(first).to_str().unwrap()]);
    assert_eq!(host.json(&["releases", "show", first])["release"], first.as_str());
    assert_eq!(host.json(&["audit"]).get("damaged"), None);
}

#[test]
fn a_host_whose_live_release_is_damaged_starts_again_after_an_import_without_it() {
    let mut place = Place::new();
    let document = place.document(&place.live);
    let pid = |host: &TestHost| {
        let instances = host.json(&["instances"]);
        instances.as_array().unwrap().iter().map(|i| i["pid"].clone()).collect::<Vec<_>>()
    };
    let before = pid(&place.host);
    place.host.leave_control();
    damage(&document);
    let file = place.file(&place.live).to_str().unwrap().to_owned();
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    let root = place.host.root.path().to_str().unwrap().to_owned();
    let says =
        ["app hello runs release", &place.live, document.to_str().unwrap(), "kiln import FILE --root", &root];
    refused(&place.alone(&serve), &says);
    assert!(place.host.page().contains("newer"), "what runs serves on");
    fs::remove_file(&document).unwrap();
    refused(&place.alone(&serve), &says[..2]);
    refused(&place.alone(&["verify"]), &[document.to_str().unwrap(), "it is missing", "serves app hello"]);

    let imported = place.alone(&["import", &file]);
    assert!(imported.status.success(), "{}", said(&imported));
    place.host.restart_control();
    assert_eq!((place.host.live(), pid(&place.host)), (place.live.clone(), before), "nobody has noticed");
    let log = place.host.json(&["log", "-n", "1"]);
    assert_eq!((&log[0]["what"], &log[0]["to"]), (&"import".into(), &place.live.as_str().into()), "{log}");
    assert!(place.host.json(&["log", "--verify"])["entries"].as_u64().unwrap() > 5);
}

/// Same inputs, same release: another state directory makes the document that nobody has kept.
#[test]
fn a_live_release_of_which_there_is_no_export_is_made_again_elsewhere() {
    let mut host = TestHost::start();
    let project = Project::example("hello");
    project.say("alone");
    project.edit("kiln.toml", "instances = 4", "instances = 1");
    let live = host.deploy(&project);
    project.say("what was never deployed");
    project.append("kiln.toml", "# edited since then");
    host.leave_control();
    let root = host.root.path().to_str().unwrap().to_owned();
    let kept = host.root.path().join("releases").join(format!("{live}.documents"));
    fs::remove_file(host.root.path().join("releases").join(format!("{live}.json"))).unwrap();
    let alone = |command: &[&str]| {
        Command::new(KILN).args(command).args(["--root", &root]).stdin(Stdio::null()).output().unwrap()
    };
    let says = ["another --root", kept.to_str().unwrap(), "the same release"];
    refused(&alone(&["serve", "--listen", "127.0.0.1:0"]), &says);

    project.say("alone");
    for name in ["kiln.toml", "kiln.lock"] {
        project.write(name, &fs::read_to_string(kept.join(name)).unwrap());
    }
    let other = TestHost::start();
    assert_eq!(other.deploy(&project), live);
    let file = other.root.path().join("again.kiln").to_str().unwrap().to_owned();
    other.json(&["export", &live, "-o", &file]);
    let imported = alone(&["import", &file]);
    assert!(imported.status.success(), "{}", said(&imported));
    host.restart_control();
    assert_eq!(host.live(), live);
    assert!(host.page().contains("alone"));
}
