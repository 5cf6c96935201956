//! A store somebody has written to: nothing is started of what is damaged, and it is said who needs it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::host::{TestHost, said};
use crate::project::Project;

/// The largest object of the image that runs.
fn object(host: &TestHost) -> PathBuf {
    let image = host.json(&["instances"])[0]["image"].as_str().unwrap()["sha256:".len()..].to_owned();
    let root = host.root.path();
    let objects = fs::read_to_string(root.join("images").join(image).join("objects")).unwrap();
    let paths = objects.lines().map(|o| root.join("objects").join(&o[..2]).join(&o[2..]));
    paths.max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

/// The file is shared with other tests by hard links: this one gets its own.
fn put(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

/// Exit code 9, and all of this said.
fn refused(host: &TestHost, arguments: &[&str], says: &[&str]) {
    let output = host.kiln(arguments);
    assert_eq!(output.status.code(), Some(9), "{}", said(&output));
    for words in says {
        assert!(said(&output).contains(words), "expected `{words}` in: {}", said(&output));
    }
}

/// Releases of the example that were deployed one after the other, of which only the last one runs.
fn deployed<const N: usize>(host: &TestHost, texts: [&str; N]) -> [String; N] {
    let project = Project::example("hello");
    project.edit("kiln.toml", "keep_warm = \"10m\"", "keep_warm = \"0s\"");
    let releases = texts.map(|text| {
        project.say(text);
        host.deploy(&project)
    });
    let last = releases.last().unwrap().as_str();
    host.wait_until("the fleets before are gone", || {
        host.json(&["instances"]).as_array().unwrap().iter().all(|i| i["release"] == last)
    });
    releases
}

#[test]
fn nothing_is_started_of_a_damaged_image() {
    let host = TestHost::start();
    let [first, second] = deployed(&host, ["one", "two"]);

    let path = object(&host);
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let name = path.to_str().unwrap();
    for damaged in [&flipped[..], &[]] {
        put(&path, damaged);
        let says = ["of service web is damaged", name, "its content is", "kiln verify --repair"];
        refused(&host, &["rollback", &first], &says);
        assert_eq!(fs::read(&path).unwrap(), damaged, "what runs may need what is left of it");
        assert_eq!(host.live(), second);
    }
    let instance = host.json(&["instances"])[0]["id"].as_str().unwrap().to_owned();
    let short = |release: &str| release[..14].to_owned();
    refused(&host, &["verify"], &[name, "needed by image", &short(&first), &short(&second), &instance]);

    put(&path, &whole);
    let back = host.kiln(&["rollback", &first]);
    assert!(back.status.success(), "{}", said(&back));
    assert_eq!(host.live(), first);

    // One release that does not read leaves the others to be listed.
    let document = host.root.path().join("releases").join(format!("{second}.json"));
    let text = fs::read_to_string(&document).unwrap();
    fs::write(&document, text.replacen("hello", "hellp", 1)).unwrap();
    let listed = host.json(&["releases"]);
    let damage =
        |id: &str| listed.as_array().unwrap().iter().find(|r| r["release"] == id).unwrap()["damage"].as_str();
    assert_eq!(damage(&first), None);
    assert!(damage(&second).is_some_and(|damage| damage.contains("is damaged")), "{listed}");
    refused(&host, &["verify"], &[document.to_str().unwrap(), "no bake does"]);
}

/// What is damaged hides nothing of the others, and a collection that cannot be carried out takes nothing.
#[test]
fn an_image_whose_record_is_damaged_is_named_by_audit_and_gc() {
    let host = TestHost::start();
    let [first, second, third] = deployed(&host, ["one", "two", "three"]);
    let image = |release: &str| {
        let shown = host.json(&["releases", "show", release]);
        shown["images"]["web"]["digest"].as_str().unwrap().to_owned()
    };
    let damaged = image(&second);
    let dir = host.root.path().join("images").join(&damaged["sha256:".len()..]);
    let (record, objects) = (dir.join("record.json"), dir.join("objects"));
    let text = fs::read(&record).unwrap();
    put(&record, &text[..text.len() / 2]);

    let audit = host.json(&["audit"]);
    let audited: Vec<&str> =
        audit["services"].as_array().unwrap().iter().map(|s| s["release"].as_str().unwrap()).collect();
    assert_eq!(audited, [third.as_str(), first.as_str()], "{audit}");
    assert!(audit["damaged_images"][&damaged].as_str().unwrap().contains("is damaged"), "{audit}");
    let warned = host.kiln(&["audit"]);
    assert!(said(&warned).contains("nothing can be said of image"), "{}", said(&warned));

    let shown = host.kiln(&["releases", "show", &second]);
    assert!(shown.status.success() && said(&shown).contains("nothing can be said of it"), "{}", said(&shown));

    let listed = fs::read(&objects).unwrap();
    put(&objects, b"no list");
    let says = ["nothing was removed", objects.to_str().unwrap(), "kiln verify"];
    refused(&host, &["gc", "--keep", "1"], &says);
    let releases = host.json(&["releases"]);
    assert!(releases.as_array().unwrap().iter().any(|r| r["release"] == first.as_str()), "{releases}");

    put(&objects, &listed);
    let gone = host.json(&["gc", "--keep", "1"]);
    assert_eq!(gone["releases"].as_array().unwrap().len(), 1, "{gone}");
    assert!(gone["damaged"][&damaged].as_str().unwrap().contains("is damaged"), "{gone}");
    assert!(record.is_file() && objects.is_file());
}
