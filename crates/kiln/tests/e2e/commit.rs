//! An instance somebody has changed, as an image: marked, refused unless allowed, and kept while it is needed.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::host::{TestHost, said};
use crate::project::Project;

/// The example, with a page that only hands write.
fn project() -> Project {
    let project = Project::example("hello");
    project.edit(
        "nginx.conf",
        "index index.html;",
        "index index.html;\n        location /hand/ { root /srv; }",
    );
    project.edit(
        "kiln.toml",
        "user     = \"www-data\"",
        "user     = \"www-data\"\nvolatile = [\"/srv/hand\"]",
    );
    project
}

/// The same over a handmade image.
fn over_handmade() -> Project {
    let project = project();
    project.edit("kiln.toml", "from     = \"debian:bookworm\"", "from = \"image:fixed\"");
    project.edit("kiln.toml", "packages = [\"nginx-light\"]", "#");
    project.edit("kiln.toml", "files    = [\n  { src = \"site/\",      dst = \"/srv/www\" },\n  { src = \"nginx.conf\", dst = \"/etc/nginx/nginx.conf\" },\n]", "#");
    project.edit("kiln.toml", "volatile = [\"/srv/hand\"]", "#");
    project
}

/// Somebody's hands in an instance: it stays until they let go.
struct Hands(Child);

impl Hands {
    fn on(host: &TestHost, instance: &str, script: &str) -> Self {
        let script = format!("{script}; echo done; cat");
        let mut command = host.command(&["exec", instance, "--", "sh", "-c", &script]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 5];
        child.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        assert_eq!(&said, b"done\n");
        Self(child)
    }

    fn let_go(mut self) {
        self.0.stdin.take().unwrap().flush().unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

fn page(host: &TestHost, path: &str) -> Option<String> {
    ureq::get(format!("{}{path}", host.address)).call().ok()?.into_body().read_to_string().ok()
}

fn first_instance(host: &TestHost) -> String {
    let (live, all) = (host.live(), host.json(&["instances"]));
    let of_live =
        all.as_array().unwrap().iter().find(|i| i["release"] == live.as_str() && i["state"] == "ready");
    of_live.unwrap()["id"].as_str().unwrap().to_owned()
}

fn refused(host: &TestHost, arguments: &[&str], code: i32, says: &[&str]) {
    let output = host.kiln(arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
    for text in says {
        assert!(said(&output).contains(text), "{text} is not in: {}", said(&output));
    }
}

fn image_dir(host: &TestHost, digest: &str) -> PathBuf {
    host.root.path().join("images").join(digest.trim_start_matches("sha256:"))
}

/// As if it had been made two hours ago.
fn age(dir: &Path) {
    let old = SystemTime::now() - Duration::from_secs(2 * 3600);
    for path in [dir.join("record.json"), dir.to_owned()] {
        std::fs::File::open(path).unwrap().set_modified(old).unwrap();
    }
}

const CHANGE: &str = "cd /srv/hand; echo by hand > page; ln page again; ln -s page link; mkdir -m 700 sub; \
    head -c 100000 /dev/zero > sub/large; echo junk > /tmp/junk; echo junk > /run/junk; \
    perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => q(/srv/hand/socket), Listen => 1)'";

#[test]
fn what_hands_have_made_serves_only_where_the_spec_allows_it() {
    let host = TestHost::start();
    host.deploy(&project());
    let victim = first_instance(&host);
    assert_eq!(page(&host, "/hand/page"), None);
    refused(&host, &["commit", &victim], 2, &["holds nothing that could become part of an image"]);
    refused(&host, &["commit", "hello-web-1-99"], 2, &["there is no running instance"]);

    let hole = "dd if=/dev/zero of=sparse bs=1 count=1 seek=1099511627775";
    let hands = Hands::on(&host, &victim, &format!("{CHANGE}; {hole} > /dev/null 2>&1"));
    refused(
        &host,
        &["commit", &victim],
        2,
        &["/srv/hand/sparse is 1024GiB by what it says", "remove it, or make it"],
    );
    assert!(host.kiln(&["exec", &victim, "--", "rm", "/srv/hand/sparse"]).status.success());
    let made = host.json(&["commit", &victim, "--name", "fixed"]);
    assert_eq!(host.json(&["commit", &victim, "--name", "fixed"])["image"], made["image"], "the same state");
    assert_eq!(made["handmade"]["kept"], json!(["/srv/hand"]), "{made}");
    assert_eq!(made["kept"][0]["entries"], 5, "{made}");
    assert_eq!(made["left_out"], json!([{ "path": "/srv/hand/socket", "why": "it is a socket" }]));
    hands.let_go();
    let digest = made["image"].as_str().unwrap().to_owned();
    let listed = host.json(&["image", "list", "--root", host.root.path().to_str().unwrap()]);
    let of = |name: &str| listed.as_array().unwrap().iter().find(|i| i["name"] == name).unwrap().clone();
    assert_eq!(of("fixed")["handmade"]["instance"], victim.as_str(), "{listed}");
    assert_eq!(of("web")["handmade"], Value::Null, "{listed}");

    let over = over_handmade();
    for command in ["plan", "deploy"] {
        let says =
            ["from = \"image:fixed\"", "no rule allows that", "`allow_handmade = true` under [policy]"];
        refused(&host, &[command, over.dir()], 7, &says);
    }
    over.append("kiln.toml", "\n[policy]\nallow_handmade = true\n");
    let release = host.deploy(&over);
    assert_eq!(page(&host, "/hand/page").as_deref(), Some("by hand\n"));
    assert_eq!(page(&host, "/hand/link").as_deref(), Some("by hand\n"));
    assert!(host.page().contains("hello"), "and what was there before");

    // It is what was seen, and can be written no more; what is of a moment was not kept.
    let now = first_instance(&host);
    let look = "stat -c %a /srv/hand/sub; test /srv/hand/page -ef /srv/hand/again && echo same; \
                ls /tmp/junk /run/junk 2>/dev/null; touch /srv/hand/new 2>/dev/null || echo read-only";
    let output = host.kiln(&["exec", &now, "--", "sh", "-c", look]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "700\nsame\nread-only\n", "{}", said(&output));

    marked_everywhere(&host, &release, &digest, &victim);
    kept_while_needed(&host, &over, &digest);
}

/// Whoever looks is told.
fn marked_everywhere(host: &TestHost, release: &str, digest: &str, victim: &str) {
    let audit = host.json(&["audit"]);
    assert_eq!(audit["services"][0]["handmade"]["image"], image_of(&audit, 1), "{audit}");
    assert_eq!(audit["services"][1].get("handmade"), None, "the one before was baked");
    assert!(said(&host.kiln(&["audit"])).contains("handmade"));
    let shown = said(&host.kiln(&["releases", "show", release]));
    let line = format!("handmade: `fixed`, {victim} with what it held in /srv/hand");
    assert!(shown.contains(&line) && shown.contains("policy      allow handmade images"), "{shown}");
    let log = host.json(&["log"]);
    let of = |what: &str| log.as_array().unwrap().iter().any(|e| e["what"] == what);
    assert!(of("commit fixed"), "{log}");
    for (document, says) in
        [("sbom.cdx.json", "kiln:handmade"), ("provenance.intoto.json", "urn:kiln:commit:v1")]
    {
        let record = std::fs::read(image_dir(host, digest).join("record.json")).unwrap();
        let record: Value = serde_json::from_slice(&record).unwrap();
        let object = record["documents"][document].as_str().unwrap().trim_start_matches("sha256:");
        let path = host.root.path().join("objects").join(&object[..2]).join(&object[2..]);
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains(says) && text.contains(victim), "{document}: {text}");
    }
}

fn image_of(audit: &Value, entry: usize) -> Value {
    audit["services"][entry]["image"].clone()
}

/// What has a name stays; what has lost it goes when no release needs it, and those made from it live on.
fn kept_while_needed(host: &TestHost, over: &Project, digest: &str) {
    age(&image_dir(host, digest));
    let collected = host.kiln(&["gc", "--keep", "0"]);
    assert!(collected.status.success(), "{}", said(&collected));
    assert!(image_dir(host, digest).join("record.json").exists(), "it has its name");
    assert_eq!(host.deploy(over), host.live(), "and is what the spec starts from");

    let other = first_instance(host);
    let hands = Hands::on(host, &other, "true");
    refused(host, &["commit", &other, "--name", "fixed"], 2, &["holds nothing"]);
    hands.let_go();
    std::fs::write(host.root.path().join("state/handmade.json"), "{}").unwrap();
    let collected = host.kiln(&["gc", "--keep", "0"]);
    assert!(collected.status.success(), "{}", said(&collected));
    assert!(!image_dir(host, digest).exists(), "nothing needs it any more");
    assert_eq!(page(host, "/hand/page").as_deref(), Some("by hand\n"));
    host.wait_until("the fleet made from it is whole", || {
        let now = host.json(&["instances"]);
        let ready = now.as_array().unwrap().iter().filter(|i| i["state"] == "ready");
        ready.count() >= 4
    });
}

#[test]
fn what_is_volatile_again_would_hide_what_was_kept() {
    let host = TestHost::start();
    host.deploy(&project());
    let victim = first_instance(&host);
    let hands = Hands::on(&host, &victim, "mkdir /srv/hand/sub; echo by hand > /srv/hand/sub/page");
    let image = host.json(&["commit", &victim, "--name", "fixed"])["image"].clone();
    host.json(&["commit", &victim, "--name", "again"]);
    let listed = host.json(&["image", "list"]);
    let entry = listed.as_array().unwrap().iter().find(|entry| entry["digest"] == image).unwrap();
    let names: Vec<&str> =
        entry["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(["fixed", "again"].iter().all(|name| names.contains(name)), "{listed}");
    for name in ["fixed", "again"] {
        let shown = host.json(&["image", "inspect", name, "--app-dir", "/"]);
        assert_eq!(shown["digest"], image, "a name leads to it wherever one is");
    }
    hands.let_go();
    // What was kept itself, a part of it, what it is in, and the place a link leads to.
    for (volatile, place) in [
        ("/srv/hand", "/srv/hand"),
        ("/srv/hand/sub", "/srv/hand/sub"),
        ("/srv", "/srv"),
        ("/to", "/srv/hand"),
    ] {
        let over = over_handmade();
        let more = format!(
            "user = \"www-data\"\nvolatile = [\"{volatile}\"]\nlinks = [{{ path = \"/to\", to = \"/srv/hand\" }}]"
        );
        over.edit("kiln.toml", "user     = \"www-data\"", &more);
        over.append("kiln.toml", "\n[policy]\nallow_handmade = true\n");
        refused(&host, &["deploy", over.dir()], 4, &[&format!("{place}:"), "take it out of `volatile`"]);
    }
    // The project's own files below it are nothing that was kept.
    let own = over_handmade();
    let more = "user = \"www-data\"\nvolatile = [\"/srv/hand/own\"]\nfiles = [{ src = \"site/\", dst = \"/srv/hand/own\" }]";
    own.edit("kiln.toml", "user     = \"www-data\"", more);
    own.append("kiln.toml", "\n[policy]\nallow_handmade = true\n");
    host.deploy(&own);
    let unknown = over_handmade();
    unknown.edit("kiln.toml", "image:fixed", "image:unknown");
    unknown.append("kiln.toml", "\n[policy]\nallow_handmade = true\n");
    refused(&host, &["deploy", unknown.dir()], 4, &["`image:unknown`", "kiln image list"]);
}

#[test]
fn what_is_written_to_meanwhile_is_no_state() {
    let (host, project) = (TestHost::start(), project());
    // Whoever has used up its share of the processor holds still, perhaps for as long as it takes to read what it wrote:
    // these have more than there is, and write much.
    project.edit("kiln.toml", "cpu       = 0.5", "cpu       = 64");
    project.edit("kiln.toml", "memory    = \"64MiB\"", "memory    = \"128MiB\"");
    project.edit(
        "kiln.toml",
        "volatile = [\"/srv/hand\"]",
        "volatile = [{ path = \"/srv/hand\", size = \"64MiB\" }]",
    );
    host.deploy(&project);
    let victim = first_instance(&host);
    let hands = Hands::on(
        &host,
        &victim,
        // Several, so that one of them gets a processor while it is read, however busy the machine is.
        "head -c 40000000 /dev/zero > /srv/hand/large; for n in 1 2 3 4; do \
         (while :; do echo x >> /srv/hand/large; done) & done; sleep 0.2",
    );
    refused(
        &host,
        &["commit", &victim],
        2,
        &["/srv/hand/large", "is being written to", "end what writes there"],
    );
    hands.let_go();
}
