//! Why a child did not become its program, in words.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};

use super::Host;
use super::error::LaunchError;
use super::script::Script;
use super::step::{Failed, Step};
use super::template::Template;

/// The failure of a child, looked into.
pub(super) fn of(host: &Host, script: &Script, template: Option<&Template>, failed: Failed) -> LaunchError {
    let source = io::Error::from_raw_os_error(failed.errno);
    let item = usize::from(failed.item);
    let on = match failed.step {
        Step::Volatile => script.volatile.get(item).map(|t| t.path.as_c_str()),
        Step::Mask => host.masks.get(item).map(|m| m.path.as_c_str()),
        Step::WorkDir => Some(script.workdir.as_c_str()),
        Step::Execute => return of_execution(template.map(Template::root), script, source),
        _ => None,
    };
    let why = on.filter(|_| failed.step == Step::WorkDir).and_then(|path| hidden(script, &path_of(path)));
    let why = why.map_or(String::new(), |why| format!(", {why}"));
    let on = on.map_or(String::new(), |path| format!(" {}", path.to_string_lossy()));
    LaunchError::new(format!("{}{on}{why}", failed.step.words()), source)
}

fn path_of(path: &CStr) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path.to_bytes()))
}

/// Says which volatile path is in front of what the image has at `path`.
fn hidden(script: &Script, path: &Path) -> Option<String> {
    let mut volatile = script.volatile.iter().map(|volatile| path_of(&volatile.path));
    let hides = volatile.rfind(|volatile| path.starts_with(volatile) && path != volatile)?;
    Some(format!("which the volatile path {} hides", hides.display()))
}

/// The kernel answers ENOENT also for a missing loader, and EACCES for much: the file itself tells more.
fn of_execution(root: Option<&OwnedFd>, script: &Script, source: io::Error) -> LaunchError {
    if script.programs.iter().any(|program| program.is_empty()) {
        return LaunchError::new(format!("{} a program without a name", Step::Execute.words()), source);
    }
    let places: Vec<PathBuf> = script.programs.iter().map(|program| path_of(program)).collect();
    let is_there = |path: &&PathBuf| root.is_some_and(|root| open_in(root, path, OFlags::PATH).is_ok());
    let there = places.iter().find(is_there);
    let Some(path) = there.or(places.first().filter(|_| places.len() == 1)) else {
        let name = places.first().and_then(|p| p.file_name()).unwrap_or_default().display();
        let attempted = format!("{} {name}, which is not on the PATH of its image", Step::Execute.words());
        return LaunchError::new(attempted, source);
    };
    let reason = root.map_or_else(String::new, |root| match open_in(root, path, OFlags::PATH) {
        Err(_) => "which is not in its image".to_owned(),
        Ok(file) => hidden(script, path).or_else(|| of_file(root, path, &file)).unwrap_or_default(),
    });
    let comma = if reason.is_empty() { "" } else { ", " };
    LaunchError::new(format!("{} {}{comma}{reason}", Step::Execute.words(), path.display()), source)
}

fn of_file(root: &OwnedFd, path: &Path, file: &OwnedFd) -> Option<String> {
    let mode = fstat(file).ok()?.st_mode;
    if FileType::from_raw_mode(mode) != FileType::RegularFile {
        return Some("which is not a regular file".into());
    }
    if mode & 0o111 == 0 {
        return Some(format!("which is not executable (its mode is {:04o})", mode & 0o7777));
    }
    let mut head = [0; 4096];
    let length = rustix::io::read(open_in(root, path, OFlags::RDONLY).ok()?, &mut head).ok()?;
    let interpreter = match Program::of(&head[..length]) {
        Program::Unknown => return Some("which is neither an ELF program nor a script".into()),
        Program::OtherMachine(number) => return Some(other_machine(number)),
        Program::Interpreted(interpreter) => interpreter,
        Program::Static => return None,
    };
    let interpreter = Path::new(OsStr::from_bytes(interpreter));
    let is_missing = open_in(root, interpreter, OFlags::PATH).is_err();
    is_missing.then(|| {
        let name = interpreter.as_os_str().as_bytes();
        let line_ends = if name.ends_with(b"\r") { " (its lines end with CR LF)" } else { "" };
        format!("which needs {}, which is not in its image{line_ends}", name.escape_ascii())
    })
}

/// Opens what a path means to a process whose root is `root`.
fn open_in(root: &OwnedFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)?)
}

/// What the first bytes of a program say.
#[derive(Debug, PartialEq, Eq)]
enum Program<'a> {
    Static,
    /// By a loader, or as a script.
    Interpreted(&'a [u8]),
    OtherMachine(u16),
    Unknown,
}

/// ELF machine numbers.
#[cfg(target_arch = "x86_64")]
const THIS_MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const THIS_MACHINE: u16 = 183;

const MACHINES: [(u16, &str); 6] =
    [(3, "i386"), (40, "arm"), (62, "x86-64"), (183, "aarch64"), (243, "riscv64"), (21, "ppc64")];

fn other_machine(number: u16) -> String {
    let name =
        |number| MACHINES.iter().find(|(n, _)| *n == number).map_or("another machine", |(_, name)| name);
    format!("which is built for {}; this host is {}", name(number), name(THIS_MACHINE))
}

/// The program that a script is executed by, of which these are the first bytes, and the one argument that its first
/// line gives it; none if they are no script's. As the kernel reads it (`fs/binfmt_script.c`): to it a carriage return is
/// a part of the name, and what follows the name is one argument, spaces and all.
pub fn interpreter_of_script(head: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let is_space = |b: &u8| matches!(b, b' ' | b'\t');
    let line = head.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    let begin = line.iter().position(|b| !is_space(b)).unwrap_or(line.len());
    let end = line.iter().rposition(|b| !is_space(b)).map_or(begin, |last| last + 1);
    let mut words = line[begin..end].splitn(2, |b| is_space(b));
    let interpreter = words.next().unwrap_or_default();
    let argument = words.next().map(|rest| &rest[rest.iter().take_while(|b| is_space(b)).count()..]);
    Some((interpreter, argument))
}

impl<'a> Program<'a> {
    fn of(head: &'a [u8]) -> Self {
        if let Some((interpreter, _)) = interpreter_of_script(head) {
            return Self::Interpreted(interpreter);
        }
        if !head.starts_with(b"\x7fELF") {
            return Self::Unknown;
        }
        match number(head, 18, 2) {
            Some(machine) if machine == u64::from(THIS_MACHINE) => {
                Self::loader(head).map_or(Self::Static, Self::Interpreted)
            }
            Some(machine) => Self::OtherMachine(machine as u16),
            None => Self::Unknown,
        }
    }

    /// The text of the program header PT_INTERP of a 64-bit file.
    fn loader(head: &'a [u8]) -> Option<&'a [u8]> {
        const PT_INTERP: u64 = 3;
        let (table, size, count) = (number(head, 32, 8)?, number(head, 54, 2)?, number(head, 56, 2)?);
        let headers = (0..count).filter_map(|n| usize::try_from(table.checked_add(n * size)?).ok());
        let interp = headers.into_iter().find(|at| number(head, *at, 4) == Some(PT_INTERP))?;
        let (from, length) = (number(head, interp + 8, 8)?, number(head, interp + 32, 8)?);
        let text = head.get(usize::try_from(from).ok()?..)?.get(..usize::try_from(length).ok()?)?;
        text.split(|b| *b == 0).next()
    }
}

/// A little-endian number of `size` bytes.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.get(..size)?;
    Some(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_of_a_dynamic_program_is_found() {
        let this = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let Program::Interpreted(loader) = Program::of(&this[..4096]) else { panic!("tests are dynamic") };
        assert!(Path::new(OsStr::from_bytes(loader)).exists());
    }

    #[test]
    fn all_that_follows_an_interpreter_is_one_argument() {
        let script = |line: &'static str| interpreter_of_script(line.as_bytes()).unwrap();
        assert_eq!(script("#!/bin/sh"), (&b"/bin/sh"[..], None));
        assert_eq!(script("#! /usr/bin/env -S  a b \t\nx"), (&b"/usr/bin/env"[..], Some(&b"-S  a b"[..])));
        assert_eq!(script("#!\t/bin/sh \t -e\n"), (&b"/bin/sh"[..], Some(&b"-e"[..])));
        assert_eq!(script("#! \n"), (&b""[..], None));
        assert_eq!(interpreter_of_script(b"# !/bin/sh"), None);
    }

    #[test]
    fn what_is_no_program_for_this_machine_is_known_by_its_first_bytes() {
        assert_eq!(Program::of(b""), Program::Unknown);
        assert_eq!(Program::of(b"hello"), Program::Unknown);
        assert_eq!(Program::of(b"\x7fELF"), Program::Unknown);
        assert_eq!(Program::of(b"#! /bin/sh -e\necho"), Program::Interpreted(b"/bin/sh"));
        assert_eq!(Program::of(b"#!\t/bin/sh\t-e"), Program::Interpreted(b"/bin/sh"));
        assert_eq!(Program::of(b"#!/bin/sh\r\necho"), Program::Interpreted(b"/bin/sh\r"));
        let mut arm = [0; 64];
        arm[..4].copy_from_slice(b"\x7fELF");
        arm[18] = 40;
        assert_eq!(Program::of(&arm), Program::OtherMachine(40));
        assert_eq!(other_machine(40), "which is built for arm; this host is x86-64");
    }

    #[test]
    fn a_hostile_header_is_no_loader() {
        let mut head = vec![0xff; 4096];
        head[..4].copy_from_slice(b"\x7fELF");
        head[18..20].copy_from_slice(&THIS_MACHINE.to_le_bytes());
        assert_eq!(Program::of(&head), Program::Static);
    }
}
