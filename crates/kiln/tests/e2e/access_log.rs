//! The access log of a real host: a line for each request, whatever file it is in.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use crate::host::TestHost;
use crate::project::Project;

/// The log and what was written before it, the newest first.
fn files(host: &TestHost) -> Vec<PathBuf> {
    let names = ["", ".new", ".1", ".2", ".3", ".4"].map(|end| format!("run/access.log{end}"));
    names.iter().map(|name| host.root.path().join(name)).filter(|path| path.exists()).collect()
}

/// Every line that is there. One that is being written has no end yet, and is not counted.
fn written(host: &TestHost) -> Vec<Value> {
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let texts: Vec<String> = files(host).into_iter().map(read).collect();
    let whole = texts.iter().flat_map(|text| text.split_inclusive('\n')).filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn no_request_is_lost_when_another_access_log_is_begun() {
    let mut host = TestHost::start();
    host.leave_control();
    host.restart_control_with(&["--access-log", "--access-log-size", "256KiB"]);
    host.deploy(&Project::example("hello"));
    let load = host.load();
    host.wait_until("a third one is written", || host.root.path().join("run/access.log.2").exists());
    let report = load.stop();
    assert_eq!(report.failures, [], "of {} requests", report.requests);
    let requests = usize::try_from(report.requests).unwrap();
    host.wait_until("every request has its line", || written(&host).len() >= requests);
    let lines = written(&host);
    let ids: BTreeSet<&str> = lines.iter().map(|line| line["id"].as_str().expect("an id")).collect();
    assert_eq!((lines.len(), ids.len()), (requests, requests));
    assert!(!host.root.path().join("run/access.log.new").exists());
}
