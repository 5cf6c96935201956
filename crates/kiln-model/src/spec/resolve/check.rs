//! `[[image.NAME.check]]`.

use super::{Place, Problems, image, parse, paths};
use crate::spec::{CheckFile, FileCheckFile, HttpCheckFile, PackageCheckFile, VersionedPackageFile};
use crate::{Check, HttpProbe, INSTANCE_IDS, Millis};

const KINDS: &str = "exactly one of `run`, `http`, `port`, `file`, `package`";

/// One check of an image; `port` is where instances of it listen, if the services made from it agree.
pub(super) fn check(
    file: &CheckFile,
    port: Option<u16>,
    place: &Place,
    problems: &mut Problems<'_, '_>,
) -> Option<Check> {
    let given = file.timeout.as_ref().and_then(|t| parse(t, &place.key("timeout"), problems));
    let timeout = given.unwrap_or(Millis(30_000));
    match file {
        CheckFile { run: Some(argv), http: None, port: None, file: None, package: None, .. } => {
            run(argv, timeout, &place.key("run"), problems)
        }
        CheckFile { run: None, http: Some(h), port: None, file: None, package: None, .. } => {
            http(h, port, timeout, &place.key("http"), problems)
        }
        CheckFile { run: None, http: None, port: Some(port), file: None, package: None, .. } => {
            is_port(*port, &place.key("port"), problems);
            Some(Check::Port { port: *port, timeout })
        }
        CheckFile { run: None, http: None, port: None, file: Some(f), package: None, timeout } => {
            without_timeout(timeout.as_ref(), "file", place, problems);
            path(f, &place.key("file"), problems)
        }
        CheckFile { run: None, http: None, port: None, file: None, package: Some(p), timeout } => {
            without_timeout(timeout.as_ref(), "package", place, problems);
            package(p, &place.key("package"), problems)
        }
        _ => {
            problems.value(place, "a check asks one thing").expected(KINDS);
            None
        }
    }
}

fn run(argv: &[String], timeout: Millis, place: &Place, problems: &mut Problems<'_, '_>) -> Option<Check> {
    image::program(argv, place, problems);
    Some(Check::Run { argv: argv.to_vec(), timeout })
}

fn http(
    file: &HttpCheckFile,
    port: Option<u16>,
    timeout: Millis,
    place: &Place,
    problems: &mut Problems<'_, '_>,
) -> Option<Check> {
    let probe = probe(&file.path, file.status, file.contains.as_ref(), &place.key("path"), place, problems);
    if let Some(port) = file.port {
        is_port(port, &place.key("port"), problems);
    }
    let Some(port) = file.port.or(port) else {
        problems
            .value(place, "which port is to be asked is not known: the services do not say it with one voice")
            .expected("a `port` in the check, like `port = 8080`");
        return None;
    };
    Some(Check::Http { probe, port, timeout })
}

/// A request and what its answer must be, for checks and for health.
pub(super) fn probe(
    path: &str,
    status: Option<u16>,
    contains: Option<&String>,
    path_place: &Place,
    place: &Place,
    problems: &mut Problems<'_, '_>,
) -> HttpProbe {
    if !path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        let message = format!("`{}` is not a path to ask for", path.escape_debug());
        problems.value(path_place, message).expected("a path that starts with `/`");
    }
    if status.is_some_and(|s| !(100..=599).contains(&s)) {
        problems.value(&place.key("status"), "there is no such status").expected("100 to 599");
    }
    HttpProbe { path: path.to_owned(), status, contains: contains.cloned() }
}

/// A port that can be listened on.
pub(super) fn is_port(port: u16, place: &Place, problems: &mut Problems<'_, '_>) {
    if port == 0 {
        problems.value(place, "nothing can listen on port 0").expected("1 to 65535");
    }
}

fn without_timeout(timeout: Option<&String>, kind: &str, place: &Place, problems: &mut Problems<'_, '_>) {
    if timeout.is_some() {
        let message = format!("a `{kind}` check reads the image and waits for nothing");
        problems.key(&place.key("timeout"), message).expected("no `timeout`");
    }
}

fn path(file: &FileCheckFile, place: &Place, problems: &mut Problems<'_, '_>) -> Option<Check> {
    let mode = file.mode.as_ref().and_then(|m| mode(m, &place.key("mode"), problems));
    Some(Check::File {
        path: paths::absolute(&file.path, &place.key("path"), problems),
        mode,
        owner: file.owner.clone(),
        contains: file.contains.clone(),
    })
}

/// Permission bits in octal.
pub(super) fn mode(text: &str, place: &Place, problems: &mut Problems<'_, '_>) -> Option<u32> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|m| *m <= 0o7777 && !text.starts_with('+'));
    if mode.is_none() {
        problems.value(place, format!("`{text}` is not a mode")).expected("octal digits like `0644`");
    }
    mode
}

/// A user or a group, which is a number that instances have if it is one.
pub(super) fn id(text: &str, place: &Place, problems: &mut Problems<'_, '_>) {
    let is_number = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    if is_number && !text.parse().is_ok_and(|id: u32| id < INSTANCE_IDS) {
        problems
            .value(place, format!("no instance has a user or group {text}"))
            .expected(format!("a name, or 0 to {}", INSTANCE_IDS - 1));
    }
}

fn package(file: &PackageCheckFile, place: &Place, problems: &mut Problems<'_, '_>) -> Option<Check> {
    let (name, version, place) = match file {
        PackageCheckFile::Name(name) => (name, None, place.clone()),
        PackageCheckFile::Versioned(VersionedPackageFile { name, version }) => {
            (name, version.clone(), place.key("name"))
        }
    };
    super::packages::package_name(name, &place, problems);
    Some(Check::Package { name: name.clone(), version })
}
