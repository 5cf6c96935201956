//! Three parts: what is between services moves with releases as what comes from users does, and data stays where it
//! is. The store is a real PostgreSQL, started here.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::contents::in_mounts_of;
use crate::host::{TestHost, said};
use crate::host_limits::kill_keeper_and_holder;
use crate::project::Project;

/// A database server of its own, on a free port of an address of loopback.
struct Postgres {
    dir: TempDir,
    programs: PathBuf,
    uid: u32,
    host: &'static str,
    port: u16,
    server: Option<Child>,
}

impl Postgres {
    fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let versions =
            std::fs::read_dir("/usr/lib/postgresql").expect("this test needs the package postgresql");
        let programs = versions.map(|v| v.unwrap().path().join("bin")).max().expect("a version of it");
        let uid = user("postgres");
        // Bound to be known, and closed for the server to bind it again.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        std::os::unix::fs::chown(dir.path(), Some(uid), None).unwrap();
        let mut postgres = Self { dir, programs, uid, host: "127.0.0.1", port, server: None };
        let data = postgres.data();
        let init = ["-D", &data, "-U", "shop", "-A", "trust", "--no-sync", "-E", "UTF8"];
        let output = postgres.command("initdb").args(init).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        postgres.begin();
        let output = postgres.command("createdb").args(postgres.connection()).arg("shop").output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        postgres
    }

    fn data(&self) -> String {
        self.dir.path().join("data").to_str().unwrap().to_owned()
    }

    fn connection(&self) -> [String; 6] {
        ["-h", self.host, "-p", &self.port.to_string(), "-U", "shop"].map(String::from)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.uid(self.uid).current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    fn begin(&mut self) {
        let port = self.port.to_string();
        let sockets = self.dir.path().to_str().unwrap();
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let arguments = ["-D", &self.data(), "-p", &port, "-h", self.host, "-k", sockets, "-F"];
        let server =
            self.command("postgres").args(arguments).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        self.server = Some(server.unwrap());
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.command("pg_isready").args(self.connection()).arg("-q").status().unwrap().success() {
            assert!(Instant::now() < deadline, "the database does not come up: {}", self.log());
        }
    }

    /// The one value a query answers with.
    fn ask(&self, query: &str) -> String {
        let arguments = ["-d", "shop", "-At", "-c", query];
        let output = self.command("psql").args(self.connection()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn end(&mut self) {
        if let Some(mut server) = self.server.take() {
            kill_process(Pid::from_child(&server), Signal::INT).unwrap();
            server.wait().unwrap();
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.end();
    }
}

fn user(name: &str) -> u32 {
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|l| l.starts_with(&format!("{name}:"))).expect("its user");
    line.split(':').nth(2).unwrap().parse().unwrap()
}

/// The host of the database, as the spec has it and the file of names that Kiln sees.
const NAME: &str = "db.shop.test";

/// A name leads here from now on, or nowhere.
fn names(file: &Path, address: Option<&str>) {
    let line = address.map_or(String::new(), |address| format!("{address}\t{NAME}\n"));
    std::fs::write(file, format!("127.0.0.1\tlocalhost\n{line}")).unwrap();
}

fn example(postgres: &Postgres) -> Project {
    let project = Project::example("shop");
    project.edit("kiln.toml", "localhost:5432", &format!("{NAME}:{}", postgres.port));
    project.edit("kiln.toml", "port=5432", &format!("port={}", postgres.port));
    project
}

/// Both parts say that they are of this release.
fn number(project: &Project, from: u32, to: u32) {
    project.edit("kiln.toml", &format!("RELEASE = \"{from}\""), &format!("RELEASE = \"{to}\""));
    project.edit("web/nginx.conf", &format!("X-Release \"{from}\""), &format!("X-Release \"{to}\""));
}

/// What the front end and what is behind it say of themselves: the release of each, and the whole answer.
fn ask(agent: &ureq::Agent, url: &str, post: bool) -> Result<(String, Value), String> {
    let answer = if post { agent.post(url).send("x") } else { agent.get(url).call() };
    let mut answer = answer.map_err(|e| e.to_string())?;
    let web = answer.headers().get("X-Release").ok_or("no X-Release")?.to_str().unwrap().to_owned();
    let body = answer.body_mut().read_to_string().map_err(|e| e.to_string())?;
    Ok((web, serde_json::from_str(&body).map_err(|e| format!("{e}: {body}"))?))
}

#[test]
fn services_talk_to_those_of_their_own_release_and_data_stays() {
    let mut postgres = Postgres::start();
    let hosts = tempfile::NamedTempFile::new().unwrap();
    names(hosts.path(), Some(postgres.host));
    let host = TestHost::start_with_names(hosts.path());
    let project = example(&postgres);
    host.deploy(&project);
    let url = format!("{}/api/orders", host.address);
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(true).build().into();
    let (web, first) = ask(&agent, &url, true).unwrap();
    assert_eq!((web.as_str(), first["release"].as_str()), ("1", Some("1")), "{first}");

    let is_over = AtomicBool::new(false);
    let answers = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut answers = Vec::new();
            while !is_over.load(Ordering::SeqCst) {
                answers.push(ask(&agent, &url, answers.len() % 8 == 0));
            }
            answers
        });
        for n in 2..=4 {
            number(&project, n - 1, n);
            host.deploy(&project);
        }
        let back = host.kiln(&["rollback"]);
        is_over.store(true, Ordering::SeqCst);
        assert!(back.status.success(), "{}", said(&back));
        asking.join().unwrap()
    });
    let mut seen = std::collections::BTreeSet::new();
    for answer in &answers {
        let (web, body) =
            answer.as_ref().unwrap_or_else(|e| panic!("of {} requests one failed: {e}", answers.len()));
        assert_eq!(
            body["release"],
            web.as_str(),
            "the front end of one release asked what is behind another's"
        );
        seen.insert(web.clone());
    }
    assert!(seen.len() >= 3, "{} requests saw only releases {seen:?}", answers.len());

    outlives_all_that_connects_it(&host, &agent, &url);
    migrated_once_for_each_deploy(&host, &postgres, &project);

    // The database is away: a clear refusal, and everything goes on when it is back, be it somewhere else.
    postgres.end();
    let quick: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let refused = quick.get(&url).call().unwrap();
    assert_eq!(refused.status(), 503);
    assert!(host.json(&["status"])["live"].is_string());
    postgres.host = "127.0.0.2";
    postgres.begin();
    names(hosts.path(), Some(postgres.host));
    let orders = || ask(&agent, &url, false).ok().and_then(|(_, body)| body["orders"].as_u64());
    host.wait_until("orders are there again", || orders().is_some_and(|n| n >= 1));
    reaches_only_what_it_needs(&host, &postgres);
    names(hosts.path(), None);
    let told = format!("connections lead to {}:{} as before", postgres.host, postgres.port);
    host.wait_until("it is said that the name is lost", || {
        host.json(&["status"])["warnings"].to_string().contains(&told)
    });
    assert!(orders().is_some());
}

/// Keeper, holder and edge are killed, and with them all that listens inside for what is needed there.
fn outlives_all_that_connects_it(host: &TestHost, agent: &ureq::Agent, url: &str) {
    // Those that serve: of the releases before some are being ended.
    let live = host.live();
    let pids = || -> Vec<String> {
        let all = host.json(&["instances"]);
        let of_live = all.as_array().unwrap().iter().filter(|i| i["release"] == live.as_str());
        of_live.map(|i| i["pid"].to_string()).collect()
    };
    let (before, edge) = (pids(), host.process("edge"));
    kill_keeper_and_holder(host);
    kill_process(edge, Signal::KILL).unwrap();
    host.wait_until("another edge runs", || host.find_process("edge").is_some_and(|now| now != edge));
    host.wait_until("services reach each other again", || ask(agent, url, false).is_ok());
    assert_eq!(pids(), before, "not one instance was touched");
}

/// Going back migrates nothing, and a migration that fails leaves everything as it was.
fn migrated_once_for_each_deploy(host: &TestHost, postgres: &Postgres, project: &Project) {
    assert_eq!(postgres.ask("SELECT string_agg(release, ' ' ORDER BY at) FROM migrations"), "1 2 3 4");
    let live = host.live();
    let broken = "CREATE TABLE orders (id serial)";
    project.edit("api/migrate.py", "STEPS = [", &format!("STEPS = [\n    \"{broken}\","));
    let refused = host.kiln(&["deploy", project.dir()]);
    let text = said(&refused);
    assert_eq!(refused.status.code(), Some(6), "{text}");
    for says in ["exited with code 1", "relation \"orders\" already exists", "kiln logs --instance shop-api-"]
    {
        assert!(text.contains(says), "`{says}` is not said:\n{text}");
    }
    assert_eq!(host.live(), live);
    assert_eq!(postgres.ask("SELECT count(*) FROM migrations"), "4", "all or nothing");
}

/// The rest of the world is out of reach, by name and by number.
fn reaches_only_what_it_needs(host: &TestHost, postgres: &Postgres) {
    let of = |service: &str| {
        let all = host.json(&["instances"]);
        let found = all.as_array().unwrap().iter().find(|i| i["service"] == service).unwrap().clone();
        found["id"].as_str().unwrap().to_owned()
    };
    let reach = "import socket,sys\nfor place in sys.argv[1:]:\n  host, port = place.rsplit(':', 1)\n  \
        try:\n    socket.create_connection((host, int(port)), 2).close(); print('reached', place)\n  \
        except OSError as e: print('not', place)\n";
    let (api, port, db) =
        (of("api"), format!("{}:{}", postgres.host, postgres.port), format!("db:{}", postgres.port));
    let places = [db.as_str(), "db:1", "web:80", "web:8080", "api:80", &port, "10.0.0.5:5432", "1.1.1.1:80"];
    let output = host.kiln(&[&["exec", &api, "--", "/usr/bin/python3", "-c", reach], &places[..]].concat());
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let reached: Vec<&str> = told.lines().filter_map(|l| l.strip_prefix("reached ")).collect();
    assert_eq!(reached, [db.as_str()], "{told}{}", said(&output));
    let hosts = |id: &str| {
        let output = host.kiln(&["exec", id, "--", "cat", "/etc/hosts"]);
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let web = hosts(&of("web"));
    assert!(web.contains("\tapi\n") && !web.contains("db"), "{web}");
    assert!(Path::new(&postgres.data()).exists());
    // Its list of names is its own, and no drift.
    let whole = host.kiln(&["verify"]);
    assert!(!said(&whole).contains("/etc/hosts"), "{}", said(&whole));
    // One in which nobody has run a command: those are replaced.
    let all = host.json(&["instances"]);
    let is_other = |i: &&Value| i["service"] == "api" && i["id"] != api.as_str() && i["pid"].is_u64();
    let other = all.as_array().unwrap().iter().find(is_other).expect("another one");
    in_mounts_of(&other["pid"].to_string(), || {
        rustix::mount::mount_bind("/etc/passwd", "/etc/hosts").unwrap();
    });
    let drifted = host.kiln(&["verify"]);
    assert_eq!(drifted.status.code(), Some(9), "{}", said(&drifted));
    assert!(said(&drifted).contains("/etc/hosts does not say what its release needs"), "{}", said(&drifted));
}
