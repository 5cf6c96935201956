//! `kiln up`: the whole thing in the foreground.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::host::{KILN, address, baked_root, lines, said};
use crate::project::Project;
use crate::trace::{Traces, hears};

struct Up {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
    said: String,
}

impl Up {
    fn start(project: &Project, root: &std::path::Path) -> Self {
        let mut child = Command::new(KILN)
            .args(["up", "--listen", "127.0.0.1:0", "--root"])
            .arg(root)
            .arg(project.dir())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kiln can be run");
        let lines = lines(&mut child);
        Self { child, lines, said: String::new() }
    }

    /// Reads what it says until a line holds `text`.
    fn until(&mut self, text: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(120));
            let line = line.unwrap_or_else(|e| panic!("`{text}` was never said ({e}):\n{}", self.said));
            self.said.push_str(&line);
            self.said.push('\n');
            if line.contains(text) {
                return line;
            }
        }
    }

    fn interrupt(&self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
    }

    fn end(mut self) -> String {
        let status = self.child.wait().unwrap();
        self.said.extend(self.lines.iter().map(|l| l + "\n"));
        assert!(status.success(), "kiln up ended with {status}:\n{}", self.said);
        self.said
    }
}

#[test]
fn up_serves_and_leaves_nothing_behind() {
    let traces = Traces::before();
    let (root, project) = (baked_root(), Project::example("hello"));
    let mut up = Up::start(&project, root.path());
    let address = address(&up.until("http://")).unwrap();
    let page = ureq::get(&address).call().unwrap().into_body().read_to_string().unwrap();
    assert!(page.contains("hello"), "{page}");
    up.interrupt();
    up.end();
    traces.assert_none(root.path());
}

#[test]
fn a_second_up_serves_the_same_release_and_says_so_at_once() {
    let (root, project) = (baked_root(), Project::example("hello"));
    for _ in 0..2 {
        let mut up = Up::start(&project, root.path());
        let address = address(&up.until("http://")).unwrap();
        assert_eq!(ureq::get(&address).call().unwrap().status(), 200);
        up.interrupt();
        up.end();
    }
    let entries = std::fs::read_dir(root.path().join("releases")).unwrap();
    let releases = entries.filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|x| x == "json"));
    assert_eq!(releases.count(), 1);
}

/// Ctrl-C at many moments: nothing is ever left, and the next start works.
#[test]
fn ctrl_c_at_any_moment_leaves_nothing_behind() {
    let traces = Traces::before();
    let (root, project) = (baked_root(), Project::example("hello"));
    for moment in [0, 20, 60, 120, 200, 350, 500, 800] {
        let mut up = Up::start(&project, root.path());
        let begun = Instant::now();
        // The moment itself is what is tested, so it is time that passes here.
        while begun.elapsed() < Duration::from_millis(moment) {
            let _ = up.lines.recv_timeout(Duration::from_millis(moment).saturating_sub(begun.elapsed()));
        }
        let hears = hears(Pid::from_child(&up.child), Signal::INT);
        up.interrupt();
        let status = up.child.wait().unwrap();
        // What has not come as far as to have a handler, which on a busy machine may be after any of these moments,
        // has made nothing yet.
        assert!(status.code().is_some() || !hears, "it was ended by a signal after {moment} ms: {status}");
        traces.assert_none(root.path());
    }
    let mut up = Up::start(&project, root.path());
    up.until("http://");
    up.interrupt();
    up.end();
}

#[test]
fn an_address_in_use_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (root, project) = (baked_root(), Project::example("hello"));
    let output = Command::new(KILN)
        .args(["up", "--listen", &taken.local_addr().unwrap().to_string(), "--root"])
        .arg(root.path())
        .arg(project.dir())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(9), "{}", said(&output));
    assert!(said(&output).contains("in use") && said(&output).contains("--listen"), "{}", said(&output));
}
