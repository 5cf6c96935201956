//! A directory to be in, a way to type commands there, and a host that does what a test says.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Output};
use std::sync::Arc;

use kiln_api::{Registered, Registration, Registry, Server};
use kiln_control::contract::{Caller, EventSink, Host};
use kiln_model::{Answer, Command, Failure, Timestamp};
use tempfile::TempDir;

pub(crate) struct Place {
    directory: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().canonicalize().unwrap()
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        let file = self.path().join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    /// The program with these arguments, ready to run here.
    pub(crate) fn process(&self, arguments: &[&str]) -> Process {
        let mut process = Process::new(env!("CARGO_BIN_EXE_kiln"));
        process
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("NO_COLOR", "1")
            .env("KILN_RUN_DIR", self.path().join("run"));
        process
    }

    /// The program, run by somebody who is not root.
    pub(crate) fn process_of_a_user(&self, arguments: &[&str]) -> Process {
        // Where the program was built, a user may not get.
        let program = self.path().join("kiln");
        kiln_testkit::program::program(&program, &std::fs::read(env!("CARGO_BIN_EXE_kiln")).unwrap());
        std::fs::set_permissions(self.path(), Permissions::from_mode(0o755)).unwrap();
        let mut process = Process::new(program);
        process.args(arguments).current_dir(self.path()).env_clear().env("NO_COLOR", "1");
        if rustix::process::geteuid().is_root() {
            process.uid(65_534).gid(65_534);
        }
        process
    }

    /// Runs the program; status, stdout and stderr as one text.
    pub(crate) fn kiln(&self, arguments: &[&str]) -> String {
        self.told(&self.process(arguments).output().unwrap())
    }

    /// How a process ended and what it wrote, with this place's own name taken out.
    pub(crate) fn told(&self, output: &Output) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        let status = output.status.code().map_or("signal".to_owned(), |code| code.to_string());
        let mut told = format!("status: {status}\n");
        for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
            if !bytes.is_empty() {
                told.push_str(&format!("--- {name}\n{}\n", text(bytes)));
            }
        }
        told.replace(self.path().to_str().unwrap(), "[DIR]")
    }

    /// A host that runs here and does what `does` says, found by the program as any other.
    pub(crate) fn host<F>(&self, name: &str, does: F) -> Running
    where
        F: Fn(Command, &dyn EventSink) -> Result<Answer, Failure> + Send + Sync + 'static,
    {
        let root = self.path().join(name);
        let socket = root.join("run/control.sock");
        let server = Server::start(&socket, Arc::new(Does(does))).unwrap();
        Running { _registered: self.register(1, &root, &socket), _server: server, socket }
    }

    fn register(&self, pid: u32, root: &Path, socket: &Path) -> Registered {
        let number = root.file_name().unwrap().len() as u32;
        let host = Registration {
            pid: pid + number,
            root: root.to_owned(),
            socket: socket.to_owned(),
            listen: format!("127.0.0.1:{}", 8000 + number),
            started: Timestamp(1_790_000_000_000),
        };
        Registry::new(self.path().join("run/hosts")).register(&host).unwrap()
    }
}

pub(crate) struct Running {
    _registered: Registered,
    _server: Server,
    pub(crate) socket: PathBuf,
}

struct Does<F>(F);

impl<F> Host for Does<F>
where
    F: Fn(Command, &dyn EventSink) -> Result<Answer, Failure> + Send + Sync + 'static,
{
    fn run(&self, command: Command, _: Caller, events: &dyn EventSink) -> Result<Answer, Failure> {
        (self.0)(command, events)
    }
}

pub(crate) const SPEC: &str = "\
app = \"hello\"

[image.web]
from = \"scratch\"
run = [\"/web\"]

[service.web]
image = \"web\"
port = 8080
";
