//! An image that started from an OCI image, as a running service.

use std::process::Command;

use crate::host::{KILN, TestHost, said};
use crate::project::Project;

/// A layout with a web server in it, made by Kiln itself from nothing but a busybox.
fn layout(project: &Project, root: &std::path::Path) {
    let spec = "app = \"base\"\n[image.base]\nfrom = \"scratch\"\n\
        files = [{ src = \"busybox\", dst = \"/bin/busybox\" }, { src = \"passwd\", dst = \"/etc/passwd\" }]\n\
        links = [{ path = \"/bin/sh\", to = \"busybox\" }]\n\
        run = [\"/bin/busybox\", \"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/srv\"]\nuser = \"web\"\n";
    let base = format!("{}/base", project.dir());
    std::fs::create_dir_all(&base).unwrap();
    std::fs::copy("/bin/busybox", format!("{base}/busybox"))
        .expect("busybox-static is needed: cargo xtask setup");
    std::fs::write(format!("{base}/kiln.toml"), spec).unwrap();
    std::fs::write(format!("{base}/passwd"), "root:x:0:0::/:/bin/sh\nweb:x:1000:1000::/srv:/bin/sh\n")
        .unwrap();
    let kiln = |arguments: &[&str]| {
        let output = Command::new(KILN).args(arguments).arg("--root").arg(root).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    };
    kiln(&["bake", &base]);
    let to = format!("{}/layout", project.dir());
    kiln(&["image", "export", "base", "--oci", &to, "--app-dir", &base]);
}

#[test]
fn an_image_from_an_oci_layout_starts_and_answers() {
    let host = TestHost::start();
    let project = Project::example("hello");
    let other = tempfile::tempdir().unwrap();
    layout(&project, other.path());
    // Run and user are those of the layout.
    project.write(
        "kiln.toml",
        "app = \"hello\"\n[image.web]\nfrom = \"oci:./layout\"\nfiles = [{ src = \"site/\", dst = \"/srv\" }]\n\
         build = [\"echo built >/srv/built.txt\"]\n\
         [[image.web.check]]\nhttp = { path = \"/built.txt\", status = 200, contains = \"built\" }\n\
         [service.web]\nimage = \"web\"\nport = 8080\ninstances = 2\nhealth = { http = \"/\", interval = \"50ms\", healthy_after = 2 }\n\
         [route.web]\nservice = \"web\"\n",
    );
    project.say("from an OCI image");
    host.deploy(&project);
    assert!(host.page().contains("hello from an OCI image"), "{}", host.page());
    let inspected = host.json(&["instances"]);
    let instances: Vec<&str> =
        inspected.as_array().unwrap().iter().map(|i| i["id"].as_str().unwrap()).collect();
    // Each is a machine of its own.
    let identity = |instance: &str| {
        let output = host.kiln(&["exec", instance, "--", "/bin/busybox", "cat", "/run/machine-id"]);
        assert!(output.status.success() && output.stdout.len() == 33, "{}", said(&output));
        output.stdout
    };
    assert_ne!(identity(instances[0]), identity(instances[1]));
}
