//! Disks that are full or broken while a host works: what serves serves on, what is said is true, and when the disk is well
//! again all goes on.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::failing_disk::{FailingDisk, beginning, forget};
use crate::host::{KILN, TestHost, lines, said};
use crate::luck::SmallDisk;
use crate::project::Project;
use crate::trace::hears;

fn log_of(host: &TestHost) -> PathBuf {
    host.root.path().join("log/operations.jsonl")
}

/// Instances that are well when somebody tells them to be, and no check, whose instances nobody would tell.
fn of_instances_that_wait(project: &Project) {
    project.edit(
        "kiln.toml",
        r#"run      = ["/usr/sbin/nginx", "-g", "daemon off;"]"#,
        r#"run      = ["/bin/sh", "-c", "trap 'exec /usr/sbin/nginx -g \"daemon off;\"' USR1; while :; do sleep 0.05; done"]"#,
    );
    // However slow the disk is, nobody is thrown away for having waited.
    project.edit("kiln.toml", "healthy_after = 2", r#"healthy_after = 2, start_timeout = "10m""#);
    without_checks(project);
}

/// The processes of instances of another release than `old`.
fn newer(host: &TestHost, old: &str) -> Vec<Pid> {
    let instances = host.json(&["instances"]);
    let new = instances.as_array().unwrap().iter().filter(|i| i["release"] != old);
    let pid = |i: &serde_json::Value| Pid::from_raw(i32::try_from(i["pid"].as_i64()?).ok()?);
    new.map(|i| pid(i).expect("its process")).collect()
}

fn without_checks(project: &Project) {
    project.edit("kiln.toml", "[[image.web.check]]                      # the gate", "# the gate");
    project.edit("kiln.toml", "run = [\"/usr/sbin/nginx\", \"-t\"]", "");
    let http = "[[image.web.check]]\nhttp = { path = \"/\", status = 200, contains = \"hello\" }";
    project.edit("kiln.toml", http, "");
}

/// The disk is `spoiled` in the middle of a deploy, which then waits and `says` why; what serves serves on, and when the disk
/// is well it ends well. What is in the log then is on the disk.
fn is_held_up_and_no_more<T>(mut host: TestHost, spoiled: impl FnOnce() -> T, says: &str) {
    let project = Project::example("hello");
    let old = host.deploy(&project);
    let load = host.load();
    of_instances_that_wait(&project);
    project.say("through a disk");
    let mut deploy = host.command(&["deploy", project.dir()]);
    let mut deploy = deploy.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let told = lines(&mut deploy);
    let waits = |what: &str| host.json(&["status"])["waiting"].to_string().contains(what);
    host.wait_until("the deploy waits for health", || waits("healthy"));
    let fault = spoiled();
    // What is left of the log's last block is used up, too.
    let refused = (0..100).map(|n| host.kiln(&[["pin", "unpin"][n % 2], &old])).find(|o| !o.status.success());
    let refused = refused.expect("it cannot be written");
    assert_eq!(refused.status.code(), Some(9), "{}", said(&refused));
    let new = newer(&host, &old);
    host.wait_until("they can be told", || new.iter().all(|pid| hears(*pid, Signal::USR1)));
    new.iter().for_each(|pid| kill_process(*pid, Signal::USR1).expect("it runs"));
    host.wait_until("it waits for the disk", || waits(says));
    let held_up = |line: &String| line.starts_with("warning: ") && line.contains(says);
    let held_up = told.iter().find(held_up).expect("who waits for it is told before it goes on");
    assert!(held_up.contains("`kiln cancel` gives up"), "{held_up}");
    assert_eq!(host.live(), old);
    drop(fault);
    let status = deploy.wait().unwrap();
    assert!(status.success(), "{status}");
    assert!(host.page().contains("through a disk"));
    let new = host.live();
    host.kill_control();
    forget(&log_of(&host));
    host.restart_control();
    assert_eq!(host.live(), new);
    assert_eq!(load.stop().failures, []);
    assert!(host.json(&["log", "--verify"])["entries"].as_u64().unwrap() > 5);
}

#[test]
fn a_disk_that_fills_up_during_a_deploy_holds_it_up_and_nothing_else() {
    let disk = SmallDisk::mount();
    is_held_up_and_no_more(TestHost::start_in(disk.path()), || disk.fill(), "no space left");
}

/// Nobody can deploy; who dies is replaced all the same, again and again, and old releases can be let go.
#[test]
fn a_disk_that_is_full_lets_nobody_stay_dead() {
    let disk = SmallDisk::mount();
    let host = TestHost::start_in(disk.path());
    let project = Project::example("hello");
    project.edit("kiln.toml", "keep_warm = \"10m\"", "keep_warm = \"0s\"");
    let releases = ["one", "two", "three"].map(|page| {
        project.say(page);
        host.deploy(&project)
    });
    let (live, load) = (host.live(), host.load());
    let full = disk.fill();
    let refused =
        (0..100).map(|n| host.kiln(&[["pin", "unpin"][n % 2], &live])).find(|o| !o.status.success());
    assert_eq!(refused.expect("there is no space").status.code(), Some(9));
    for _ in 0..4 {
        let before = host.json(&["instances"]);
        let dies = before[0].clone();
        let pid = i32::try_from(dies["pid"].as_i64().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).expect("it runs");
        host.wait_until("another is well in its place", || {
            let now = host.json(&["instances"]);
            let well = now.as_array().unwrap().iter().filter(|i| i["state"] == "ready");
            well.filter(|i| i["id"] != dies["id"]).count() == 4
        });
    }
    assert_eq!(host.json(&["gc", "--keep", "0"])["releases"], json!([releases[0]]));
    drop(full);
    assert!(host.kiln(&["pin", &live]).status.success());
    assert_eq!(load.stop().failures, []);
    host.json(&["log", "--verify"]);
}

/// Every block in which there are lines of the log.
const OF_THE_LOG: &str = "{\"seq\":";

#[test]
fn a_disk_that_fails_during_a_deploy_holds_it_up_and_nothing_else() {
    let disk = FailingDisk::mount();
    let host = TestHost::start_in(disk.path());
    is_held_up_and_no_more(host, || disk.refuse_to_write(OF_THE_LOG), "Input/output error");
}

/// The log cannot be read: who asks for it is told, no control plane starts, and everything serves on until one can.
#[test]
fn a_log_that_cannot_be_read_ends_nothing() {
    let disk = FailingDisk::mount();
    let mut host = TestHost::start_in(disk.path());
    let live = host.deploy(&Project::example("hello"));
    let load = host.load();
    let log = log_of(&host);
    let fault = disk.refuse_to_read(OF_THE_LOG.as_bytes(), &log);
    for arguments in [&["log"][..], &["log", "--verify"]] {
        let refused = host.kiln(arguments);
        assert_eq!(refused.status.code(), Some(9), "{}", said(&refused));
        let says = format!("could not read {}", log.display());
        assert!(said(&refused).contains(&says), "{}", said(&refused));
        assert!(said(&refused).contains("Input/output error"), "{}", said(&refused));
    }
    assert_eq!(host.live(), live);
    host.kill_control();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--root"];
    let refused = Command::new(KILN).args(serve).arg(host.root.path()).stdin(Stdio::null()).output().unwrap();
    assert_eq!(refused.status.code(), Some(9), "{}", said(&refused));
    assert!(said(&refused).contains("Input/output error"), "{}", said(&refused));
    assert!(fault.met() > 0);
    drop(fault);
    host.restart_control();
    assert_eq!(host.live(), live);
    assert_eq!(load.stop().failures, []);
    assert!(host.json(&["log", "--verify"])["entries"].as_u64().unwrap() > 5);
}

/// Going back to an image of which a file cannot be read comes to nothing, and what serves serves on.
#[test]
fn an_image_that_cannot_be_read_is_not_switched_to() {
    let disk = FailingDisk::mount();
    let host = TestHost::start_in(disk.path());
    let project = Project::example("hello");
    project.edit("kiln.toml", "keep_warm = \"10m\"", "keep_warm = \"0s\"");
    without_checks(&project);
    const RUN: &str = r#"run      = ["/usr/sbin/nginx", "-g", "daemon off;"]"#;
    let reads = r#"run = ["/bin/sh", "-c", "cat /srv/www/only.txt > /dev/null && exec /usr/sbin/nginx -g 'daemon off;'"]"#;
    project.edit("kiln.toml", RUN, reads);
    let only: String = (0..40_000).map(|n| format!("line {n} of what only one release has\n")).collect();
    project.write("site/only.txt", &only);
    let first = host.deploy(&project);
    fs::remove_file(format!("{}/site/only.txt", project.dir())).unwrap();
    project.edit("kiln.toml", reads, RUN);
    let second = host.deploy(&project);
    let gone =
        || host.json(&["instances"]).as_array().unwrap().iter().all(|i| i["release"] == second.as_str());
    host.wait_until("the first is cold", gone);
    let load = host.load();
    let object = object_of(&host, only.as_bytes());
    let fault = disk.refuse_to_read(&beginning(&object), &object);
    let back = host.kiln(&["rollback", &first]);
    assert_eq!(back.status.code(), Some(6), "{}", said(&back));
    assert_eq!(host.live(), second);
    let verify = host.kiln(&["verify"]);
    assert_eq!(verify.status.code(), Some(9), "{}", said(&verify));
    let name = object.file_name().unwrap().to_str().unwrap();
    assert!(
        said(&verify).contains(name) && said(&verify).contains("Input/output error"),
        "{}",
        said(&verify)
    );
    assert!(fault.met() > 0);
    drop(fault);
    let back = host.kiln(&["rollback", &first]);
    assert!(back.status.success(), "{}", said(&back));
    assert_eq!(host.live(), first);
    assert_eq!(load.stop().failures, []);
}

/// The object in the store that has these bytes.
fn object_of(host: &TestHost, bytes: &[u8]) -> PathBuf {
    let dirs = fs::read_dir(host.root.path().join("objects")).unwrap().map(|d| d.unwrap().path());
    let mut files = dirs.flat_map(|d| fs::read_dir(d).into_iter().flatten()).map(|f| f.unwrap().path());
    let is_it = |path: &PathBuf| {
        path.metadata().is_ok_and(|m| m.len() == bytes.len() as u64) && fs::read(path).unwrap() == bytes
    };
    files.find(is_it).expect("the object is in the store")
}

/// What is full is the disk of the file, and not the store's: that is told, and nothing of the file is left.
#[test]
fn an_export_onto_a_full_disk_tells_of_that_disk() {
    let (host, there) = (TestHost::start(), tempfile::TempDir::new().unwrap());
    let release = host.deploy(&Project::example("hello"));
    let size = Some(c"size=64k");
    rustix::mount::mount("none", there.path(), "tmpfs", rustix::mount::MountFlags::empty(), size).unwrap();
    let file = there.path().join("hello.kiln");
    let refused = host.kiln(&["export", &release, "-o", file.to_str().unwrap()]);
    let left = fs::read_dir(there.path()).unwrap().count();
    rustix::mount::unmount(there.path(), rustix::mount::UnmountFlags::empty()).unwrap();
    let text = said(&refused);
    assert_eq!(refused.status.code(), Some(9), "{text}");
    assert!(text.contains("No space left") || text.contains("no space left"), "{text}");
    assert!(text.contains("on the disk of that file") && !text.contains("kiln gc"), "{text}");
    assert_eq!(left, 0);
}
