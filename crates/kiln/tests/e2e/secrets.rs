//! Secrets from the command line into instances, pinned by releases.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Output, Stdio};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use crate::contents::in_mounts_of;
use crate::host::{TestHost, said};
use crate::project::Project;

/// An app that says what it finds in its files and its environment.
fn project() -> Project {
    let project = Project::example("hello");
    let serve = r#"["/usr/bin/perl", "-MIO::Socket::INET", "-e", "$s = IO::Socket::INET->new(Listen => 9, LocalPort => 8080, ReuseAddr => 1) or die; while ($c = $s->accept) { while (<$c>) { last if /^\\r/ } open F, '/run/secrets/API_KEY'; $k = <F>; $t = qq(hello $ENV{GREETING} file=$k env=$ENV{KEY}); print $c qq(HTTP/1.1 200 OK\\r\\nContent-Length: ) . length($t) . qq(\\r\\nConnection: close\\r\\n\\r\\n$t); close $c }"]"#;
    project.edit("kiln.toml", r#"["/usr/sbin/nginx", "-g", "daemon off;"]"#, serve);
    project.edit("kiln.toml", "[[image.web.check]]                      # the gate", "# the gate");
    project.edit("kiln.toml", "run = [\"/usr/sbin/nginx\", \"-t\"]", "");
    project.edit(
        "kiln.toml",
        "cpu       = 0.5",
        "cpu       = 0.5\nenv = { GREETING = \"one\" }\nsecrets = [{ name = \"API_KEY\", env = \"KEY\" }]",
    );
    project
}

fn set(host: &TestHost, value: &str) -> Output {
    let mut command = host.command(&["secret", "set", "API_KEY", "--app", "hello"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(!said(&output).contains(value.trim_end()), "{}", said(&output));
    output
}

/// Promise 3, with secrets: image, configuration and secret versions go back together, warm and cold.
#[test]
fn a_rollback_restores_the_secret_versions_of_its_release() {
    let host = TestHost::start();
    let project = project();
    let missing = host.kiln(&["deploy", project.dir()]);
    assert_eq!(missing.status.code(), Some(3), "{}", said(&missing));
    assert!(said(&missing).contains("kiln secret set API_KEY --app hello --root"), "{}", said(&missing));
    assert_eq!(host.json(&["instances"]), serde_json::json!([]), "nothing was made");

    set(&host, "first-value\n");
    let first = host.deploy(&project);
    assert_eq!(host.page(), "hello one file=first-value env=first-value");
    set(&host, "second-value\n");
    assert_eq!(host.page(), "hello one file=first-value env=first-value", "a set value waits for a deploy");
    project.edit("kiln.toml", "GREETING = \"one\"", "GREETING = \"two\"");
    project.edit("kiln.toml", "keep_warm = \"10m\"", "keep_warm = \"0s\"");
    let second = host.deploy(&project);
    assert_eq!(host.page(), "hello two file=second-value env=second-value");
    let diff = host.json(&["releases", "diff", &first, &second]);
    let parts: Vec<&str> =
        diff["differences"].as_array().unwrap().iter().map(|d| d["part"].as_str().unwrap()).collect();
    assert_eq!(parts, ["env", "secret", "deploy"], "{diff}");

    host.wait_until("the first fleet is gone", || {
        let now = host.json(&["instances"]);
        now.as_array().unwrap().iter().all(|i| i["release"] == second.as_str())
    });
    let refused = host.kiln(&["secret", "rm", "API_KEY", "--app", "hello"]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains(&first) && said(&refused).contains(&second), "{}", said(&refused));
    assert!(said(&refused).contains("deploy something that does without this version"), "{}", said(&refused));
    let load = host.load();
    let back = host.kiln(&["rollback", &first]);
    assert!(back.status.success(), "{}", said(&back));
    assert_eq!(host.page(), "hello one file=first-value env=first-value", "cold, from the store");
    let report = load.stop();
    assert_eq!(report.failures, [], "of {} requests", report.requests);

    let of_first = host.json(&["instances"]).as_array().unwrap().clone();
    let inside = of_first.iter().find(|i| i["release"] == first.as_str()).unwrap()["id"].as_str().unwrap();
    let shown = host.kiln(&["exec", inside, "--", "sh", "-c", "echo $GREETING $KEY"]);
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "one first-value\n", "{}", said(&shown));

    let listed = host.json(&["secret", "list", "--app", "hello"]);
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
    assert_eq!((&listed[0]["present"], &listed[1]["present"]), (&true.into(), &false.into()));
    // Where what is on the disk is looked through.
    let exported = host.root.path().join("exported.kiln");
    let everywhere: [&[&str]; 7] = [
        &["log"],
        &["logs"],
        &["plan", project.dir()],
        &["status", "--json"],
        &["releases", "show", &first],
        &["releases", "diff", &first, &second],
        &["export", &first, "-o", exported.to_str().unwrap()],
    ];
    for command in everywhere {
        let output = host.kiln(command);
        let text = said(&output);
        assert!(output.status.success(), "{command:?}: {text}");
        assert!(!text.contains("first-value") && !text.contains("second-value"), "{text}");
    }
    assert!(said(&host.kiln(&["log"])).contains("set secret API_KEY"));
    nowhere_on_disk(host.root.path(), "first-value");
    nobody_shows(&host, "first-value");
}

/// Promise 6, of secrets: what an instance holds is what its release says, and no value is told.
#[test]
fn an_instance_with_another_secret_than_that_of_its_release_is_found() {
    let host = TestHost::start();
    set(&host, "first-value\n");
    host.deploy(&project());
    let well = host.kiln(&["verify"]);
    assert!(well.status.success(), "{}", said(&well));
    let victim = host.json(&["instances"])[0].clone();
    in_mounts_of(&victim["pid"].to_string(), || {
        use rustix::mount::{MountFlags, mount_remount};
        mount_remount("/run/secrets", MountFlags::BIND | MountFlags::NOSUID, "").unwrap();
        std::fs::write("/run/secrets/API_KEY", "other-value").unwrap();
        mount_remount(
            "/run/secrets",
            MountFlags::BIND
                | MountFlags::RDONLY
                | MountFlags::NOSUID
                | MountFlags::NODEV
                | MountFlags::NOEXEC,
            "",
        )
        .unwrap();
    });
    let other = host.kiln(&["verify"]);
    let (text, id) = (said(&other), victim["id"].as_str().unwrap());
    assert_eq!(other.status.code(), Some(9), "{text}");
    let told = "the file of secret API_KEY does not hold the version that its release has";
    assert!(text.contains(&format!("instance {id} of web: {told}")), "{text}");
    assert_eq!(text.matches("API_KEY").count(), 1, "the others hold it, and so does its variable: {text}");

    // Another user may read that of a third.
    let third = host.json(&["instances"])[2].clone();
    in_mounts_of(&third["pid"].to_string(), || {
        use rustix::mount::{MountFlags, mount_remount};
        let kept = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount_remount("/run/secrets", kept, "").unwrap();
        std::os::unix::fs::chown("/run/secrets/API_KEY", Some(0), None).unwrap();
        mount_remount("/run/secrets", kept | MountFlags::RDONLY, "").unwrap();
    });
    let owned = said(&host.kiln(&["verify"]));
    let told = "the file of secret API_KEY does not belong to user 33 of its service";
    assert!(owned.contains(&format!("instance {} of web: {told}", third["id"].as_str().unwrap())), "{owned}");

    // Another value in the memory of another one, where its variables are.
    let second = host.json(&["instances"])[1].clone();
    write_over_variable(second["pid"].as_i64().unwrap(), b"KEY=first-value\0", b"KEY=forth-value\0");
    let both = said(&host.kiln(&["verify"]));
    let told = "its main process was started with another version of secret API_KEY, in the variable KEY";
    assert!(both.contains(&format!("instance {} of web: {told}", second["id"].as_str().unwrap())), "{both}");
    assert!(!both.contains("-value"), "{both}");
}

/// Changes what a process shows as its environment.
fn write_over_variable(pid: i64, from: &[u8], to: &[u8]) {
    use std::os::unix::fs::FileExt;
    let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let at = environ.windows(from.len()).position(|part| part == from).expect("the variable");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let begins: u64 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(50 - 3).unwrap().parse().unwrap();
    let memory = std::fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/mem")).unwrap();
    memory.write_all_at(to, begins + at as u64).unwrap();
}

/// No instance could be started with it.
#[test]
fn a_value_that_no_variable_can_hold_is_refused_before_anything_is_made() {
    let host = TestHost::start();
    let project = project();
    set(&host, "sesame\0open");
    for command in ["plan", "deploy"] {
        let refused = host.kiln(&[command, project.dir()]);
        let text = said(&refused);
        assert_eq!(refused.status.code(), Some(3), "{text}");
        assert!(text.contains("API_KEY") && text.contains("`KEY`") && text.contains("a NUL byte"), "{text}");
        assert!(!text.contains("sesame"), "{text}");
    }
    assert_eq!(host.json(&["instances", "--all"]), serde_json::json!([]), "nothing was made");
    set(&host, "sesame");
    host.deploy(&project);
}

fn nowhere_on_disk(dir: &Path, value: &str) {
    let found = std::process::Command::new("grep").args(["-rlaF", "--", value]).arg(dir).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "the value is on the disk");
}

/// No argument of any process has the value, and no variable of one of the host's own, none of which leaves a core dump.
fn nobody_shows(host: &TestHost, value: &str) {
    for (pid, line) in crate::trace::processes() {
        assert!(!line.contains(value), "process {pid} shows it: {line}");
    }
    let control = host.control();
    for pid in [control, host.keeper(), host.holder(), host.process("edge")].map(|pid| pid.as_raw_nonzero()) {
        let read = |what: &str| std::fs::read(format!("/proc/{pid}/{what}")).unwrap();
        let environ = String::from_utf8_lossy(&read("environ")).into_owned();
        assert!(!environ.contains(value), "process {pid} shows it: {environ}");
        let limits = String::from_utf8_lossy(&read("limits")).into_owned();
        assert!(limits.contains("Max core file size        1                    1 "), "{pid}: {limits}");
    }
}

/// Wherever dumps are made of everything: nothing of its memory gets to the disk when it dies.
#[test]
fn control_leaves_no_core_dump() {
    let limit = getrlimit(Resource::Core);
    setrlimit(Resource::Core, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let mut host = TestHost::start();
    kill_process(host.control(), Signal::ABORT).unwrap();
    let status = host.wait_for_control();
    assert_eq!((status.signal(), status.core_dumped()), (Some(Signal::ABORT.as_raw()), false));
    host.restart_control();
}

#[test]
fn secrets_can_be_set_before_a_host_runs() {
    let root = tempfile::TempDir::new().unwrap();
    let kiln = |arguments: &[&str], value: Option<&str>| {
        let mut command = std::process::Command::new(crate::host::KILN);
        command.args(arguments).args(["--app", "hello", "--root"]).arg(root.path());
        let stdin = if value.is_some() { Stdio::piped() } else { Stdio::null() };
        let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        if let Some(value) = value {
            // Who refuses a name has ended, perhaps, before the value is asked for.
            let _ = child.stdin.take().unwrap().write_all(value.as_bytes());
        }
        child.wait_with_output().unwrap()
    };
    assert!(kiln(&["secret", "set", "API_KEY", "--json"], Some("x\n")).status.success());
    let listed = kiln(&["secret", "list", "--json"], None);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((&listed[0]["name"], &listed[0]["number"]), (&"API_KEY".into(), &1.into()));
    for (arguments, value, says) in [
        (&["secret", "set", "API_KEY"][..], Some(""), "the value is empty"),
        (&["secret", "set", "9"], Some("x"), "not a valid secret name"),
        (&["secret", "rm", "NONE"], None, "has no secret NONE"),
    ] {
        let refused = kiln(arguments, value);
        assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
        assert!(said(&refused).contains(says), "{}", said(&refused));
    }
    assert!(kiln(&["secret", "rm", "API_KEY"], None).status.success());
    assert_eq!(String::from_utf8_lossy(&kiln(&["secret", "list"], None).stdout), "no secret has been set\n");
}
