//! `kiln image`, on images from scratch. Needs root, as `kiln bake` does.

use std::os::unix::ffi::OsStrExt;
use std::process::Output;

use kiln_model::Answer;
use serde_json::Value;

use crate::harness::Place;

const SPEC: &str = "\
app = \"hello\"

[image.web]
from = \"scratch\"
files = [{ src = \"program\", dst = \"/program\", mode = \"0755\" }, { src = \"page\", dst = \"/srv/\" }]
links = [{ path = \"/srv/link\", to = \"page\" }]
run = [\"/program\"]
";

fn run(place: &Place, arguments: &[&str]) -> Output {
    let arguments = [arguments, &["--root", "state", "-q"]].concat();
    place.process(&arguments).output().unwrap()
}

fn json(place: &Place, arguments: &[&str]) -> Value {
    let output = run(place, &[arguments, &["--json"]].concat());
    let told = place.told(&output);
    assert!(output.status.success(), "{told}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{told}"))
}

fn baked(page: &str, place: &Place) -> String {
    place.write("kiln.toml", SPEC);
    place.write("program", "#!/nothing\n");
    place.write("page", page);
    let answer = json(place, &["bake"]);
    answer["images"]["web"]["digest"].as_str().unwrap().to_owned()
}

#[test]
fn images_are_listed_looked_into_and_compared() {
    let place = Place::new();
    let first = baked("one", &place);
    let second = baked("two", &place);
    let listed = json(&place, &["image", "list"]);
    let digests: Vec<&str> =
        listed.as_array().unwrap().iter().map(|i| i["digest"].as_str().unwrap()).collect();
    assert!(digests.len() == 2 && digests.contains(&first.as_str()) && digests.contains(&second.as_str()));

    // By digest, by its beginning, and by name as the project is now.
    let short = &first["sha256:".len()..][..12];
    assert_eq!(json(&place, &["image", "inspect", short])["digest"], first.as_str());
    assert_eq!(json(&place, &["image", "inspect", "web"])["digest"], second.as_str());
    assert_eq!(json(&place, &["image", "inspect", "web"])["run"]["argv"][0], "/program");

    // The documents, byte for byte as the record has them.
    let record = json(&place, &["image", "inspect", "web"]);
    for (which, name, says) in [
        ("sbom", "sbom.cdx.json", "\"bomFormat\""),
        ("provenance", "provenance.intoto.json", "slsa.dev/provenance/v1"),
    ] {
        let document = run(&place, &["image", "inspect", "web", "--document", which]).stdout;
        assert!(String::from_utf8_lossy(&document).contains(says), "{which}");
        let object = record["documents"][name].as_str().unwrap()["sha256:".len()..].to_owned();
        let object = place.path().join("state/objects").join(&object[..2]).join(&object[2..]);
        assert!(std::fs::read(object).unwrap() == document, "{which}: {record}");
    }

    let tree = json(&place, &["image", "tree", "web", "/srv"]);
    let paths: Vec<&str> = tree.as_array().unwrap().iter().map(|p| p["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/srv", "/srv/link", "/srv/page"]);
    assert_eq!((&tree[1]["to"], &tree[2]["size"]), (&"page".into(), &3.into()));
    let words = place.told(&run(&place, &["image", "tree", "web", "/srv"]));
    assert!(words.contains("l0777         0:0          - /srv/link -> page\n"), "{words}");

    let diff = json(&place, &["image", "diff", short, "web"]);
    assert_eq!(diff["paths"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&diff["paths"][0]["path"], &diff["paths"][0]["change"]),
        (&"/srv/page".into(), &"changed".into())
    );
    assert_eq!(diff["paths"][0]["what"], serde_json::json!(["content", "time"]));
    let words = place.told(&run(&place, &["image", "diff", "web", "web"]));
    assert!(words.contains("they are the same image"), "{words}");
}

/// Both are one image, whose record is that of the first; by its name each has its own.
#[test]
fn images_of_the_same_bytes_have_each_what_is_recorded_of_it() {
    let place = Place::new();
    let digest = baked("one", &place);
    let other = SPEC.split_once("\n\n").unwrap().1.replace("image.web", "image.another");
    place.write(
        "kiln.toml",
        &format!("{SPEC}\n{other}").replacen(
            "src = \"page\", dst = \"/srv/\"",
            "src = \"page\", dst = \"/srv/page\"",
            1,
        ),
    );
    json(&place, &["bake"]);
    let inspected = |wanted: &str| json(&place, &["image", "inspect", wanted]);
    let (web, another, first) = (inspected("web"), inspected("another"), inspected(&digest));
    assert_eq!((&web["digest"], &another["digest"]), (&first["digest"], &first["digest"]));
    assert_eq!(
        (&web["name"], &another["name"], &first["name"]),
        (&"web".into(), &"another".into(), &"web".into())
    );
    assert_ne!(web["documents"], another["documents"]);
}

/// Whoever reads the JSON can have the name again, and whoever reads the words sees which bytes it has.
#[test]
fn names_that_are_no_utf_8_are_told_byte_by_byte() {
    let place = Place::new();
    let before = baked("one", &place);
    let odd = std::ffi::OsStr::from_bytes(b"gr\xf6\xdfe");
    std::fs::create_dir_all(place.path().join("dir").join(odd)).unwrap();
    std::fs::write(place.path().join("dir").join(odd).join("plain"), "x").unwrap();
    let more = "files = [{ src = \"dir/\", dst = \"/dir\" }, ";
    place.write("kiln.toml", &SPEC.replace("files = [", more));
    json(&place, &["bake"]);
    let tree = json(&place, &["image", "tree", "web", "/dir"]);
    assert_eq!((&tree[0]["path"], tree[0].get("path_hex")), (&"/dir".into(), None));
    assert_eq!(
        (&tree[1]["path"], &tree[1]["path_hex"]),
        (&"/dir/gr\u{fffd}\u{fffd}e".into(), &"2f6469722f6772f6df65".into())
    );
    let words = place.told(&run(&place, &["image", "tree", "web", "/dir"]));
    assert!(words.contains("/dir/gr\\366\\337e/plain\n"), "{words}");
    // It can be asked for as well.
    let below = std::path::Path::new("/dir").join(odd);
    let output =
        place.process(&["image", "tree", "web", "--json", "--root", "state"]).arg(below).output().unwrap();
    let below: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", place.told(&output)));
    assert_eq!(below.as_array().unwrap().len(), 2, "{below}");
    let diff = json(&place, &["image", "diff", &before["sha256:".len()..], "web"]);
    let hex: Vec<&Value> =
        diff["paths"].as_array().unwrap().iter().filter_map(|p| p.get("path_hex")).collect();
    assert_eq!(hex, ["2f6469722f6772f6df65", "2f6469722f6772f6df652f706c61696e"]);
}

#[test]
fn what_is_not_there_is_said_with_the_next_step() {
    let place = Place::new();
    baked("one", &place);
    let said = |arguments: &[&str]| place.told(&run(&place, arguments));
    let unknown = said(&["image", "inspect", "wbe"]);
    assert!(unknown.starts_with("status: 2") && unknown.contains("has `web`"), "{unknown}");
    place.write("page", "changed since");
    let stale = said(&["image", "tree", "web"]);
    assert!(stale.contains("has not been baked") && stale.contains("hint: run `kiln bake`"), "{stale}");
    // Where no app is, names are still looked for, and what is not found is what is told.
    let elsewhere = said(&["image", "inspect", "zzz", "--app-dir", "/"]);
    assert!(elsewhere.contains("there is no image `zzz`"), "{elsewhere}");
    let nowhere = said(&["image", "push", "web", "web:1.0"]);
    assert!(nowhere.starts_with("status: 2") && nowhere.contains("names no registry"), "{nowhere}");
}

#[test]
fn exports_say_where_they_went_and_replace_nothing() {
    let place = Place::new();
    let digest = baked("one", &place);
    let tar = json(&place, &["image", "export", "web", "--tar", "root.tar"]);
    assert_eq!(tar["image"], digest.as_str());
    assert_eq!(
        tar["bytes"].as_u64().unwrap(),
        std::fs::metadata(place.path().join("root.tar")).unwrap().len()
    );
    let again = place.told(&run(&place, &["image", "export", "web", "--tar", "root.tar"]));
    assert!(again.starts_with("status: 2") && again.contains("is there already"), "{again}");
    let oci = json(&place, &["image", "export", "web", "--oci", "layout"]);
    assert!(oci["manifest"].as_str().unwrap().starts_with("sha256:"));
    assert!(place.path().join("layout/oci-layout").is_file());
    json(&place, &["image", "export", "web", "--erofs", "root.erofs"]);
    for form in ["--tar", "--erofs"] {
        let said = place.told(&run(&place, &["image", "export", "web", form, "other", "--tag", "one"]));
        assert!(said.starts_with("status: 2") && said.contains("--tag"), "{said}");
    }
    let doubled = place.told(&run(&place, &["image", "export", "web", "--oci", "other", "--tag", "x::y"]));
    assert!(doubled.starts_with("status: 2") && doubled.contains("two of these in a row"), "{doubled}");
    for tag in ["bad name!!", ""] {
        let said = place.told(&run(&place, &["image", "export", "web", "--oci", "other", "--tag", tag]));
        assert!(said.starts_with("status: 2") && said.contains("a name is like `1.0`"), "{said}");
        let reference = format!("127.0.0.1:1/web:{tag}");
        let said = place.told(&run(&place, &["image", "push", "web", &reference]));
        assert!(said.starts_with("status: 2") && said.contains("a tag has 1 to 128"), "{said}");
    }
    assert!(!place.path().join("other").exists());
    json(&place, &["image", "export", "web", "--oci", "named", "--tag", "localhost/team/web:1.0"]);
    let index = std::fs::read_to_string(place.path().join("named/index.json")).unwrap();
    assert!(index.contains("\"localhost/team/web:1.0\""), "{index}");
    let none = place.told(&run(&place, &["image", "export", "web"]));
    assert!(none.starts_with("status: 2"), "{none}");
}

/// It has been baked: what is wrong with it is told, and how it is made again.
#[test]
fn an_image_that_is_damaged_is_found_by_its_name() {
    let place = Place::new();
    let digest = baked("one", &place);
    let images = place.path().join("state/images");
    let metadata = images.join(&digest["sha256:".len()..]).join("metadata.erofs");
    let mut bytes = std::fs::read(&metadata).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&metadata, bytes).unwrap();
    for arguments in [&["image", "tree", "web"][..], &["image", "export", "web", "--tar", "root.tar"]] {
        let said = place.told(&run(&place, arguments));
        let told = ["status: 9", "metadata.erofs", "its digest is", "the next `kiln bake` makes it again"];
        assert!(told.iter().all(|words| said.contains(words)), "{said}");
    }
    assert_eq!(json(&place, &["image", "inspect", "web"])["digest"], digest.as_str());
    assert_eq!(json(&place, &["bake"])["images"]["web"]["digest"], digest.as_str());
    json(&place, &["image", "tree", "web"]);
}

/// Its record can no longer be read, or is that of another.
#[test]
fn an_image_whose_record_is_damaged_hides_no_other_and_is_baked_again() {
    let place = Place::new();
    let other = baked("one", &place);
    let page = std::fs::read_to_string(place.path().join("page")).unwrap();
    let digest = baked("two", &place);
    let record =
        |digest: &str| place.path().join("state/images").join(&digest["sha256:".len()..]).join("record.json");
    let whole = std::fs::read(record(&digest)).unwrap();
    for damaged in [&whole[..whole.len() / 2], &std::fs::read(record(&other)).unwrap()] {
        std::fs::write(record(&digest), damaged).unwrap();
        let hex = &digest["sha256:".len()..];
        for wanted in ["web", hex] {
            for arguments in [
                &["image", "inspect", wanted][..],
                &["image", "tree", wanted],
                &["image", "diff", wanted, &other["sha256:".len()..]],
                &["image", "export", wanted, "--tar", "root.tar"],
                &["image", "push", wanted, "127.0.0.1:1/web:1"],
            ] {
                let said = place.told(&run(&place, arguments));
                let told = ["status: 9", "record.json is damaged", "the next `kiln bake` makes it again"];
                assert!(told.iter().all(|words| said.contains(words)), "{arguments:?}: {said}");
            }
        }
        let listed = json(&place, &["image", "list"]);
        let entry = |digest: &str| {
            listed.as_array().unwrap().iter().find(|i| i["digest"] == digest).unwrap_or(&Value::Null).clone()
        };
        assert_eq!(entry(&other)["name"], "web", "{listed}");
        assert!(entry(&digest)["damage"].as_str().unwrap().contains("record.json is damaged"), "{listed}");
        let words = place.told(&run(&place, &["image", "list"]));
        assert!(words.contains("not known: ") && words.contains("record.json is damaged"), "{words}");
        let again = json(&place, &["bake"]);
        assert_eq!(again["images"]["web"]["digest"], digest.as_str(), "{again}");
        assert_eq!(std::fs::read(record(&digest)).unwrap(), whole);
        json(&place, &["image", "tree", "web"]);
    }
    // One that is damaged is in nobody's way but its own.
    std::fs::write(record(&digest), "{").unwrap();
    place.write("page", &page);
    json(&place, &["image", "inspect", "web"]);
}

/// Before anything is fetched or written.
#[test]
fn a_file_that_is_not_there_is_shown_in_the_spec() {
    let place = Place::new();
    baked("one", &place);
    let spec = std::fs::read_to_string(place.path().join("kiln.toml")).unwrap();
    assert!(spec.contains("src = \"page\""), "{spec}");
    place.write("kiln.toml", &spec.replace("src = \"page\"", "src = \"paeg\""));
    let lock = place.path().join("kiln.lock");
    std::fs::remove_file(&lock).unwrap();
    let said = place.told(&run(&place, &["bake"]));
    let line = 1 + spec.lines().position(|line| line.contains("src = \"page\"")).unwrap();
    for words in ["status: 3", &format!("kiln.toml:{line}:"), "there is no `paeg`", "did you mean `page`"] {
        assert!(said.contains(words), "expected `{words}` in {said}");
    }
    assert!(!lock.exists());
}

#[test]
fn names_that_are_not_locked_cannot_be_updated() {
    let place = Place::new();
    baked("one", &place);
    let said = place.told(&run(&place, &["lock", "--update", "ngnix"]));
    assert!(said.starts_with("status: 2") && said.contains("nothing called `ngnix` to update"), "{said}");
}

/// No argument can be both: what has a slash is a directory, everything else behind `--update` a name.
#[test]
fn a_directory_behind_update_is_no_name() {
    let place = Place::new();
    baked("one", &place);
    std::fs::create_dir_all(place.path().join("empty/app")).unwrap();
    std::fs::rename(place.path().join("kiln.toml"), place.path().join("empty/app/kiln.toml")).unwrap();
    std::fs::rename(place.path().join("kiln.lock"), place.path().join("empty/app/kiln.lock")).unwrap();
    for arguments in
        [&["empty/app", "--update"][..], &["--update", "empty/app"], &["--update", "./empty/app/"]]
    {
        let locked = json(&place, &[&["lock"], arguments].concat());
        assert_eq!(locked["images"]["web"]["packages"], 0, "{arguments:?}");
    }
    // One without a slash is a name. Nothing of that name is there, so the failure says how the directory is meant.
    std::fs::rename(place.path().join("empty/app"), place.path().join("app")).unwrap();
    let said = place.told(&run(&place, &["lock", "--update", "app"]));
    assert!(said.starts_with("status: 2") && said.contains("`kiln lock app --update`"), "{said}");
    json(&place, &["lock", "app", "--update"]);
    let two = place.told(&run(&place, &["lock", "app", "--update", "./empty"]));
    assert!(two.starts_with("status: 2") && two.contains("two directories"), "{two}");
    // In the app, too, where there may be a directory of an unknown name.
    std::fs::create_dir(place.path().join("app/srv")).unwrap();
    let said = place.told(&run(&place, &["lock", "app", "--update", "srv"]));
    assert!(said.starts_with("status: 2") && said.contains("nothing called `srv`"), "{said}");
}

#[test]
fn a_locked_bake_leaves_the_lock_as_it_is() {
    let place = Place::new();
    baked("one", &place);
    // A lock that also knows an image which the spec no longer has.
    let lock = std::fs::read_to_string(place.path().join("kiln.lock")).unwrap();
    let more = lock.clone()
        + "\n[image.gone]\nfrom = \"scratch\"\narchitecture = \"amd64\"\nrequested = []\nrecommends = false\n";
    place.write("kiln.lock", &more);
    json(&place, &["bake", "--locked"]);
    assert_eq!(std::fs::read_to_string(place.path().join("kiln.lock")).unwrap(), more);
    json(&place, &["bake"]);
    assert_eq!(std::fs::read_to_string(place.path().join("kiln.lock")).unwrap(), lock);
}

#[test]
fn what_was_pinned_and_is_not_any_more_says_why() {
    let place = Place::new();
    baked("one", &place);
    let lock = std::fs::read_to_string(place.path().join("kiln.lock")).unwrap();
    let package = |name: &str| {
        format!(
            "\n[[image.{name}.package]]\nname = \"curl\"\nversion = \"1\"\narchitecture = \"all\"\n\
             suite = \"bookworm\"\npath = \"pool/curl.deb\"\nsize = 1\nsha256 = \"{}\"\n",
            "0".repeat(64)
        )
    };
    let image = |name: &str| {
        let head =
            "from = \"debian:bookworm\"\narchitecture = \"amd64\"\nrequested = []\nrecommends = false\n";
        format!("version = 1\n\n[image.{name}]\n{head}{}", package(name))
    };
    // Of an image that is not in kiln.toml, and of one that started from something with packages.
    place.write("kiln.lock", &image("gone"));
    let said = place.told(&run(&place, &["lock"]));
    assert!(said.contains("image gone: not in kiln.toml any more") && said.contains("1 package"), "{said}");
    assert_eq!(std::fs::read_to_string(place.path().join("kiln.lock")).unwrap(), lock);
    place.write("kiln.lock", &image("gone"));
    assert_eq!(json(&place, &["lock"])["gone"]["gone"]["packages"], 1);
    place.write("kiln.lock", &image("web"));
    let said = place.told(&run(&place, &["lock"]));
    assert!(said.contains("curl 1 removed (kiln.toml starts the image from `scratch`)"), "{said}");
}

/// Whatever needs no host works with the store of the one that is meant.
#[test]
fn the_store_of_the_host_that_runs_here_is_meant() {
    let place = Place::new();
    let digest = baked("one", &place);
    let _host = place.host("state", |_, _| Ok(Answer::Done));
    let listed = |arguments: &[&str]| {
        let output = place.process(&[&["image", "list", "--json"], arguments].concat()).output().unwrap();
        place.told(&output)
    };
    assert!(listed(&[]).contains(&digest), "{}", listed(&[]));
    let told = place.told(&place.process(&["bake", "-q"]).output().unwrap());
    assert!(told.contains("unchanged"), "{told}");

    let _other = place.host("another", |_, _| Ok(Answer::Done));
    assert!(listed(&[]).contains("2 Kiln hosts run here"), "{}", listed(&[]));
    for host in ["127.0.0.1:8005", "state", "state/run/control.sock"] {
        assert!(listed(&["--host", host]).contains(&digest), "{host}: {}", listed(&["--host", host]));
    }
    let other = listed(&["--host", "another"]);
    assert!(other.contains("[DIR]/another is not a state directory of Kiln"), "{other}");
    assert!(other.contains("hint: give --root a directory that is empty"), "{other}");
}

#[test]
fn an_import_that_fails_leaves_no_state_directory() {
    let place = Place::new();
    place.write("no.kiln", "nothing that was exported");
    std::fs::create_dir(place.path().join("empty")).unwrap();
    for root in ["new/state", "empty"] {
        let output = place.process(&["import", "no.kiln", "--root", root]).output().unwrap();
        let said = place.told(&output);
        assert!(said.starts_with("status: 3") && said.contains("is no export of a release"), "{said}");
    }
    assert!(!place.path().join("new").exists());
    assert_eq!(std::fs::read_dir(place.path().join("empty")).unwrap().count(), 0);
    // What was there stays.
    let digest = baked("one", &place);
    let output = place.process(&["import", "no.kiln", "--root", "state"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", place.told(&output));
    assert_eq!(json(&place, &["image", "inspect", "web"])["digest"], digest.as_str());
}
