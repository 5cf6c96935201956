//! Sealed secrets whose key is gone, or that are damaged: it is said before anything is made, and there is a way out.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::host::{TestHost, said};
use crate::project::Project;

/// An app that needs a secret, on a host on which that and another one are set.
struct Place {
    host: TestHost,
    project: Project,
}

impl Place {
    fn new() -> Self {
        let project = Project::example("hello");
        project.edit("kiln.toml", "instances = 4", "instances = 1\nsecrets = [\"API_KEY\"]");
        let place = Self { host: TestHost::start(), project };
        place.set("API_KEY", &[]);
        place.set("OTHER", &[]);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.host.root.path().join("secrets").join(name)
    }

    /// The value of every secret is its name. What was said of it, and the exit code.
    fn try_set(&self, name: &str, more: &[&str]) -> (String, Option<i32>) {
        let file = self.host.root.path().join("tmp/value");
        fs::write(&file, name).unwrap();
        let set = ["secret", "set", name, "--app", "hello", "--file", file.to_str().unwrap()];
        let output = self.host.kiln(&[&set, more].concat());
        fs::remove_file(file).unwrap();
        (said(&output), output.status.code())
    }

    fn set(&self, name: &str, more: &[&str]) -> String {
        let (text, code) = self.try_set(name, more);
        assert_eq!(code, Some(0), "{text}");
        text
    }

    /// Exit code 9, all of this said, and nothing made.
    fn refused(&self, command: &[&str], says: &[&str]) {
        let output = self.host.kiln(command);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(9), "{command:?}: {text}");
        assert!(says.iter().all(|words| text.contains(words)), "{says:?} is not said:\n{text}");
        assert_eq!(self.host.json(&["instances", "--all"]), json!([]), "nothing was made");
    }

    /// Of each secret that is listed, whether it can be had.
    fn listed(&self) -> Vec<(String, bool)> {
        let listed = self.host.json(&["secret", "list", "--app", "hello"]);
        let can_be_had = |one: &Value| one.get("damage").is_none();
        let one = |one: &Value| (one["name"].as_str().unwrap().to_owned(), can_be_had(one));
        listed.as_array().unwrap().iter().map(one).collect()
    }
}

#[test]
fn a_key_that_is_gone_is_missed_before_anything_is_made() {
    let place = Place::new();
    let key = place.path("key");
    fs::remove_file(&key).unwrap();
    let (text, code) = place.try_set("API_KEY", &[]);
    assert_eq!(code, Some(9), "{text}");
    assert!(text.contains(key.to_str().unwrap()) && text.contains("secret set NAME --new-key"), "{text}");
    let dir = place.project.dir().to_owned();
    let says = ["secret API_KEY", "service web", key.to_str().unwrap(), "--new-key", "nothing was made"];
    place.refused(&["plan", &dir], &says);
    place.refused(&["deploy", &dir], &says);
    assert!(!key.exists());
    let both =
        |can_be_had: [bool; 2]| vec![("API_KEY".into(), can_be_had[0]), ("OTHER".into(), can_be_had[1])];
    assert_eq!(place.listed(), both([false, false]));

    assert!(!place.set("API_KEY", &["--new-key"]).contains("as before"));
    assert_eq!(place.listed(), both([true, false]));
    place.host.deploy(&place.project);
    assert!(!place.set("OTHER", &[]).contains("as before"));
    assert_eq!(place.listed(), both([true, true]));
}

#[test]
fn a_damaged_secret_is_told_of_and_set_again_and_the_others_are_as_ever() {
    let place = Place::new();
    let sealed = place.path("hello/API_KEY/1.json");
    let text = fs::read_to_string(&sealed).unwrap();
    fs::write(&sealed, &text[..text.len() / 2]).unwrap();
    assert_eq!(place.listed(), [("API_KEY".into(), false), ("OTHER".into(), true)]);
    let shown = said(&place.host.kiln(&["secret", "list", "--app", "hello"]));
    assert!(shown.contains(sealed.to_str().unwrap()) && shown.contains("cannot use it"), "{shown}");
    let dir = place.project.dir().to_owned();
    let says = ["secret API_KEY", sealed.to_str().unwrap(), "`kiln secret set API_KEY`", "nothing was made"];
    place.refused(&["plan", &dir], &says);
    place.refused(&["deploy", &dir], &says);
    assert!(place.set("OTHER", &[]).contains("as before"));
    place.set("API_KEY", &[]);
    assert_eq!(place.listed(), [("API_KEY".into(), true), ("OTHER".into(), true)]);
    assert!(place.host.kiln(&["plan", &dir]).status.success());
    // What nobody needs can go, whatever has become of it.
    fs::write(place.path("hello/OTHER/1.json"), "").unwrap();
    let removed = place.host.kiln(&["secret", "rm", "OTHER", "--app", "hello"]);
    assert!(removed.status.success(), "{}", said(&removed));
    assert_eq!(place.listed(), [("API_KEY".into(), true)]);
}

/// Whoever goes back has no time to look for a backup: what is up needs no key, what is not says so before it is made.
#[test]
fn going_back_needs_no_key_while_the_release_is_up() {
    let place = Place::new();
    let first = place.host.deploy(&place.project);
    place.project.say("newer");
    let newer = place.host.deploy(&place.project);
    let key = place.path("key");
    let away = place.path("away");
    fs::rename(&key, &away).unwrap();
    let back = place.host.kiln(&["rollback"]);
    assert!(back.status.success(), "{}", said(&back));
    assert_eq!(place.host.live(), first);
    fs::rename(&away, &key).unwrap();
    place.project.edit("kiln.toml", "keep_warm = \"10m\"", "keep_warm = \"0s\"");
    place.host.deploy(&place.project);
    let is_gone = |release: &str| {
        let now = place.host.json(&["instances"]);
        now.as_array().unwrap().iter().all(|i| i["release"] != release)
    };
    place.host.wait_until("the first fleet is gone", || is_gone(&first) && is_gone(&newer));
    fs::rename(&key, &away).unwrap();
    let refused = place.host.kiln(&["rollback", &first]);
    assert_eq!(refused.status.code(), Some(9), "{}", said(&refused));
    assert!(said(&refused).contains(key.to_str().unwrap()) && is_gone(&first), "{}", said(&refused));
    fs::rename(&away, &key).unwrap();
}
