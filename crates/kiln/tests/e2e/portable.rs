//! Releases that travel, releases that go, and the log that says so.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::host::{KILN, TestHost, lines, said};
use crate::project::Project;

/// Promise 3: recreated on an empty machine without network, with the same id, and serving.
#[test]
fn a_release_is_recreated_on_an_empty_machine_without_network() {
    let there = TempDir::new().unwrap();
    let file = there.path().join("hello.kiln");
    let file = file.to_str().unwrap();
    let project = Project::example("hello");
    project.say("that travels");
    let release = {
        let host = TestHost::start();
        let release = host.deploy(&project);
        let exported = host.json(&["export", &release[..10], "-o", file]);
        assert_eq!(exported["release"], release.as_str());
        let again = format!("{file}.again");
        host.json(&["export", &release, "-o", &again]);
        assert!(fs::read(file).unwrap() == fs::read(&again).unwrap(), "the same release, the same bytes");
        release
    };
    let names = Command::new("tar").args(["-tf", file]).output().unwrap();
    let names = String::from_utf8(names.stdout).unwrap();
    assert!(
        names.starts_with("manifest.json\nrelease.json\ndocuments/kiln.lock\ndocuments/kiln.toml\n"),
        "{names}"
    );
    assert!(names.contains("packages/") && names.contains("documents/log.jsonl"), "{names}");

    an_import_that_is_called_off_leaves_nothing(Path::new(file), there.path());
    imported_without_a_host(file, &release);
    let empty = TestHost::start_empty_without_network();
    damaged_files_are_refused(&empty, Path::new(file), there.path());
    assert!(!empty.kiln(&["releases"]).status.success(), "nothing of a damaged file is a release");
    let imported = empty.json(&["import", file]);
    assert_eq!(
        (&imported["release"], &imported["missing_secrets"]),
        (&release.as_str().into(), &serde_json::json!([]))
    );
    let served = empty.kiln(&["rollback", &release, "--app", "hello"]);
    assert!(served.status.success(), "{}", said(&served));
    assert_eq!(empty.live(), release);
    assert_eq!(
        empty.json(&["status"])["services"]["web"]["instances"],
        serde_json::json!({"desired": 4, "ready": 4})
    );
    assert_eq!(empty.json(&["releases", "show", &release])["release"], release.as_str());
}

/// Into a state directory that is not there yet, on which a host is started afterwards.
fn imported_without_a_host(file: &str, release: &str) {
    let root = TempDir::new().unwrap();
    let words = root.path().to_str().unwrap();
    fs::remove_dir(words).unwrap();
    let output = Command::new(KILN).args(["import", file, "--root", words]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    for step in ["`kiln serve --root ", "`kiln rollback "] {
        assert!(said(&output).contains(step), "{}", said(&output));
    }
    let host =
        TestHost::try_start(root, || Ok(())).unwrap_or_else(|(_, code, said)| panic!("{code:?}: {said}"));
    let served = host.kiln(&["rollback", release, "--app", "hello"]);
    assert!(served.status.success(), "{}", said(&served));
    assert_eq!(host.live(), release);
}

/// Ctrl-C in the middle of the file. It is a pipe, so that the middle is where this has got to.
fn an_import_that_is_called_off_leaves_nothing(file: &Path, there: &Path) {
    let (pipe, root) = (there.join("pipe"), there.join("called-off"));
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .unwrap();
    let mut import = Command::new(KILN);
    import.arg("import").arg(&pipe).arg("--root").arg(&root);
    let mut import = import.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let said = lines(&mut import);
    let bytes = fs::read(file).unwrap();
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    let mut writer = fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    writer.write_all(first).unwrap();
    kill_process(Pid::from_child(&import), Signal::INT).unwrap();
    let told = said.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(told.contains("calling it off"), "{told}");
    // It has stopped reading, or does with the next piece.
    let _ = writer.write_all(rest);
    drop(writer);
    assert_eq!(import.wait().unwrap().code(), Some(130));
    assert!(!root.exists(), "{:?}", fs::read_dir(&root).map(Iterator::count));
}

/// Every kind of damage names the place, and nothing is imported.
fn damaged_files_are_refused(host: &TestHost, file: &Path, there: &Path) {
    let whole = fs::read(file).unwrap();
    let damaged = there.join("damaged.kiln");
    let told = |bytes: &[u8], says: &[&str]| {
        fs::write(&damaged, bytes).unwrap();
        let output = host.kiln(&["import", damaged.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(3), "{}", said(&output));
        let text = said(&output);
        assert!(says.iter().all(|words| text.contains(words)), "{says:?} is not said:\n{text}");
    };
    told(b"not an archive at all", &["is no export of a release"]);
    told(&[], &["is no export of a release"]);
    let mut flipped = whole.clone();
    let end = flipped.len() - 10;
    flipped[end] ^= 1;
    told(&flipped, &["it does not end as an export does"]);
    let refused = |bytes: &[u8], says: &str| told(bytes, &[says, "at byte"]);
    refused(&whole[..whole.len() / 2], "member `");
    let at = whole.windows(9).position(|w| w == b"that trav").expect("the page is an object of its own");
    let mut flipped = whole.clone();
    flipped[at] ^= 1;
    refused(&flipped, "its ");
    let mut flipped = whole.clone();
    let at = whole.windows(11).rposition(|w| w == b"\"format\":2,").expect("the release");
    flipped[at + 9] = b'3';
    refused(&flipped, "member `release.json`");
    let output = host.kiln(&["import", there.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("which is a directory"), "{}", said(&output));
}

/// Secrets travel with a release when asked, to the owner of one key and to nobody else.
#[test]
fn secrets_travel_encrypted_when_asked() {
    let there = TempDir::new().unwrap();
    let path = |name: &str| there.path().join(name).to_str().unwrap().to_owned();
    let keygen = |name: &str| {
        let output = Command::new("age-keygen").args(["-o", &path(name)]).output().unwrap();
        String::from_utf8(output.stderr).unwrap().trim().rsplit(' ').next().unwrap().to_owned()
    };
    let (ours, _) = (keygen("ours"), keygen("theirs"));
    fs::write(path("value"), "open, sesame").unwrap();
    let project = Project::example("hello");
    project.edit("kiln.toml", "instances = 4", "instances = 1\nsecrets = [\"API_KEY\"]");
    let file = path("hello.kiln");
    let release = {
        let host = TestHost::start();
        let value = path("value");
        let set = host.kiln(&["secret", "set", "API_KEY", "--file", &value, "--app", "hello"]);
        assert!(set.status.success(), "{}", said(&set));
        let release = host.deploy(&project);
        let exported = host.json(&["export", &release, "-o", &file, "--secrets-to", &ours]);
        assert_eq!(exported["secrets"], serde_json::json!(["API_KEY"]));
        let wrong = host.kiln(&["export", &release, "-o", &path("no"), "--secrets-to", "age1nobody"]);
        assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
        assert!(said(&wrong).contains("age1nobody") && !Path::new(&path("no")).exists());
        release
    };
    let bytes = fs::read(&file).unwrap();
    assert!(!bytes.windows(6).any(|w| w == b"sesame"));

    let empty = TestHost::start_empty_without_network();
    let refused = |arguments: &[&str], code: i32, says: &str| {
        let output = empty.kiln(&[&["import", &file][..], arguments].concat());
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(says), "`{says}` is not said:\n{}", said(&output));
    };
    refused(&[], 2, "--identity FILE");
    refused(&["--identity", &path("theirs")], 2, "encrypted to 1 recipient");
    refused(&["--identity", &path("value")], 2, "line 1 of it is no identity");
    refused(&["--identity", &path("missing")], 2, "missing");
    let at = bytes.windows(21).position(|w| w == b"age-encryption.org/v1").unwrap() + 300;
    let mut damaged = bytes.clone();
    damaged[at] ^= 1;
    fs::write(&file, &damaged).unwrap();
    refused(&["--identity", &path("ours")], 3, "member `secrets.age`");
    fs::write(&file, &bytes).unwrap();
    let without = empty.json(&["import", &file, "--without-secrets"]);
    assert_eq!(without["missing_secrets"], serde_json::json!(["API_KEY"]));
    let imported = empty.json(&["import", &file, "--identity", &path("ours")]);
    assert_eq!(
        (&imported["secrets"], &imported["missing_secrets"]),
        (&serde_json::json!(["API_KEY"]), &serde_json::json!([]))
    );
    let served = empty.kiln(&["rollback", &release, "--app", "hello"]);
    assert!(served.status.success(), "{}", said(&served));
    assert_eq!(empty.live(), release);
    let instance = empty.json(&["instances"])[0]["id"].as_str().unwrap().to_owned();
    let inside = empty.kiln(&["exec", &instance, "--", "/bin/cat", "/run/secrets/API_KEY"]);
    assert!(said(&inside).contains("open, sesame"), "{}", said(&inside));
}

#[test]
fn old_releases_go_when_asked_and_never_what_is_needed() {
    let host = TestHost::start();
    let project = Project::example("hello");
    project.edit("kiln.toml", "instances = 4", "instances = 1");
    let mut releases = Vec::new();
    for n in 0..4 {
        project.say(&format!("release {n}"));
        releases.push(host.deploy(&project));
    }
    host.wait_until("only the live release and the one before have instances", || {
        let instances = host.json(&["instances"]);
        let mut running = instances.as_array().expect("instances").iter();
        running.all(|i| releases[2..].iter().any(|r| i["release"] == r.as_str()))
    });
    // Pinned, it stays; unpinned, it goes as the others.
    let pin = |command: &str| host.json(&[command, &releases[0]]);
    assert_eq!((&pin("pin")["changed"], &pin("pin")["changed"]), (&true.into(), &false.into()));
    let listed = said(&host.kiln(&["releases"]));
    assert!(listed.contains("stored, pinned"), "{listed}");
    let spared = host.json(&["gc", "--keep", "1", "--dry-run"]);
    assert_eq!(spared["releases"], sorted(&releases[1..2]), "{spared}");
    assert_eq!(pin("unpin")["pinned"], false);
    // Only as many as it takes, the oldest first.
    let at_once = ["--images-older-than", "1ms", "--dry-run"];
    let all = host.json(&[&["gc", "--keep", "1"][..], &at_once].concat())["bytes"].as_u64().unwrap();
    let none = host.json(&[&["gc", "--keep", "99"][..], &at_once].concat());
    let (unneeded, left) = (none["bytes"].as_u64().unwrap(), none["remaining"].as_u64().unwrap());
    let size = unneeded + left;
    let limit = |free: u64| {
        let limit = format!("{}B", size - free);
        host.json(&[&["gc", "--keep", "1", "--bytes", &limit][..], &at_once].concat())
    };
    assert_eq!(limit(unneeded + 1)["releases"], sorted(&releases[..1]));
    assert_eq!(limit(all)["releases"], sorted(&releases[..2]));
    assert_eq!(limit(0)["releases"], serde_json::json!([]));
    assert!(said(&host.kiln(&["gc", "--bytes", "1KiB", "--dry-run"])).contains("more than was asked for"));
    let before = host.json(&["releases"]);
    let dry = host.json(&["gc", "--keep", "1", "--dry-run"]);
    assert_eq!((&dry["dry_run"], &dry["releases"]), (&true.into(), &sorted(&releases[..2])), "{dry}");
    assert_eq!(host.json(&["releases"]), before, "a dry run changes nothing");
    let gone = host.json(&["gc", "--keep", "1"]);
    assert_eq!(gone["releases"], sorted(&releases[..2]), "{gone}");
    assert_eq!(host.json(&["releases"]).as_array().unwrap().len(), 2, "the live one and the one before stay");
    let collected = host.kiln(&["rollback", &releases[0]]);
    assert_eq!(collected.status.code(), Some(2));
    assert!(said(&collected).contains("was removed by `kiln gc` at "), "{}", said(&collected));
    assert!(host.kiln(&["rollback"]).status.success());
    assert_eq!(host.page(), "<h1>hello release 2</h1>\n");
    assert_eq!(host.json(&["gc", "--keep", "0"])["releases"], serde_json::json!([]), "nothing more can go");
    let log = host.json(&["log"]);
    let collected =
        log.as_array().unwrap().iter().find(|e| e["what"] == "collect").expect("it is in the log");
    let origin = &collected["origin"];
    assert_eq!((&origin["uid"], origin["program"].as_str()), (&0.into(), Some(KILN)), "{origin}");
    let from =
        host.command(&["pin", &releases[3]]).env("SSH_CONNECTION", "192.0.2.7 50000 192.0.2.1 22").output();
    assert!(from.unwrap().status.success());
    assert!(
        said(&host.kiln(&["log", "-n", "1"])).contains("ssh 192.0.2.7"),
        "{}",
        said(&host.kiln(&["log"]))
    );

    let sound = host.json(&["log", "--verify"]);
    assert!(sound["entries"].as_u64().unwrap() > 20, "{sound}");
    let log = host.root.path().join("log/operations.jsonl");
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, text.replacen("release", "relaese", 3)).unwrap();
    let damaged = host.kiln(&["log", "--verify"]);
    assert_eq!(damaged.status.code(), Some(9), "{}", said(&damaged));
    assert!(said(&damaged).contains("line "), "{}", said(&damaged));
    fs::write(&log, text).unwrap();
}

fn sorted(releases: &[String]) -> serde_json::Value {
    let mut releases = releases.to_vec();
    releases.sort();
    serde_json::json!(releases)
}
