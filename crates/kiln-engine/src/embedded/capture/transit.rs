//! Bytes on their way from a pipe to a file.
//!
//! A keeper may be killed between any two instructions, and what an instance has written must be in its file once all
//! the same. Bytes leave a pipe when they are read, and are in the file when they are written; in between they are in a
//! mapped file, which the next keeper finds as it was left.
//!
//! ```text
//!   /dev/shm/kiln-<hash of run dir>.output     0   a slip: whose bytes they are, how many, and where they go
//!                                           4096   the bytes
//! ```
//! In memory that is never written to a disk: a page that is just being written there cannot be read into at once, and a
//! call that has to wait for it could be cut short by a kill, in the middle. (Where /dev/shm is no tmpfs, it is
//! `keeper.output` in the run directory.)
//!
//! | step | a keeper killed before the next one leaves |
//! |---|---|
//! | 1. learns how many bytes are in the pipe, and the first of them (by `tee`, which takes none) | all in the pipe |
//! | 2. fills in the slip; where the first byte will be is its complement | all in the pipe |
//! | 3. marks the slip as valid | all in the pipe: the complement is there still |
//! | 4. reads exactly so many, in one call, which happens whole or not at all | all in the mapped file: the byte is there |
//! | 5. writes the lines they make at their place in the file | some or all of them written |
//! | 6. marks the slip as invalid | nothing |
//!
//! After 4 and after 5 the next keeper does 5 and 6. Lines depend on nothing but the bytes and the slip, so that written
//! again they are the same bytes at the same place.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use kiln_model::{InstanceId, OutputStream, OutputTime, Sha256};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, tee};

use super::OutputDir;
use super::lines::frame;

/// What one look at a pipe takes at most, so that one instance that writes without end does not keep others waiting:
/// as much as a pipe holds.
pub(super) const ONE_TURN: usize = 64 << 10;

const SLIP: usize = 4096;
const ID: usize = 64;

/// The file, as it is mapped.
#[repr(C)]
struct Map {
    slip: Slip,
    rest: [u8; SLIP - size_of::<Slip>()],
    bytes: [u8; ONE_TURN],
}

#[repr(C)]
struct Slip {
    /// `VALID`, or anything else.
    mark: AtomicU64,
    at: u64,
    offset: u64,
    length: u64,
    first: u8,
    is_stderr: u8,
    id_length: u8,
    id: [u8; ID],
}

/// Says that the slip is one, and of this format.
const VALID: u64 = u64::from_le_bytes(*b"kiln out");

/// Room for the bytes of one turn.
pub(crate) struct Transit {
    map: NonNull<Map>,
    /// For a look at what a pipe holds.
    peeked: [OwnedFd; 2],
}

/// Whose bytes are on their way, and where they go.
pub(super) struct Way<'a> {
    pub(super) id: &'a InstanceId,
    pub(super) stream: OutputStream,
    pub(super) at: OutputTime,
    pub(super) offset: u64,
}

impl Transit {
    /// The file of the keeper that works in `run_dir`; gone when it has ended properly.
    pub(crate) fn path(run_dir: &Path) -> io::Result<PathBuf> {
        const SHARED: &str = "/dev/shm";
        if rustix::fs::statfs(SHARED).is_ok_and(|fs| fs.f_type == libc::TMPFS_MAGIC) {
            let whole = run_dir.canonicalize()?;
            let hash = Sha256::of(whole.as_os_str().as_encoded_bytes()).hex();
            return Ok(Path::new(SHARED).join(format!("kiln-{}.output", &hash[..12])));
        }
        Ok(run_dir.join("keeper.output"))
    }

    /// Opens the file, as another keeper may have left it.
    pub(crate) fn open(run_dir: &Path) -> io::Result<Self> {
        let file = open_own(&Self::path(run_dir)?)?;
        if file.metadata()?.len() != size_of::<Map>() as u64 {
            // Written, not only made longer: a page without room on the disk could not be written to later.
            std::os::unix::fs::FileExt::write_all_at(&file, &vec![0; size_of::<Map>()], 0)?;
            file.set_len(size_of::<Map>() as u64)?;
        }
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { map: map(&file)?, peeked: [reader, writer] })
    }

    /// Finishes what another keeper had begun.
    pub(crate) fn finish(&mut self, dir: &OutputDir) -> io::Result<()> {
        let map = self.map();
        if map.slip.mark.load(Ordering::SeqCst) == VALID
            && let Some((way, length)) = map.slip.read()
            && map.bytes[0] != !map.slip.first
        {
            let (id, stream, at, offset) = way;
            let mut lines = Vec::new();
            frame(&map.bytes[..length], stream, at, &mut lines);
            dir.place_again(&id, offset)?.write(&lines)?;
        }
        self.arrived();
        Ok(())
    }

    /// The first byte in a pipe, which stays there.
    pub(super) fn peek(&self, pipe: BorrowedFd<'_>) -> Option<u8> {
        let mut byte = [0];
        tee(pipe, &self.peeked[1], 1, SpliceFlags::NONBLOCK).ok().filter(|n| *n == 1)?;
        rustix::io::read(&self.peeked[0], &mut byte).ok().filter(|n| *n == 1)?;
        Some(byte[0])
    }

    /// Steps 2 and 3: from here on they count as on their way if they are no longer in the pipe.
    pub(super) fn depart(&mut self, way: &Way<'_>, length: usize, first: u8) {
        let map = self.map();
        // What others wrote before must not be taken for these.
        map.bytes[..length].fill(0);
        map.bytes[0] = !first;
        map.slip.fill_in(way, length, first);
        fence(Ordering::SeqCst);
        map.slip.mark.store(VALID, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Step 4. Fewer come only if the instance itself has read from its output.
    pub(super) fn take(&mut self, pipe: BorrowedFd<'_>, length: usize) -> rustix::io::Result<&[u8]> {
        let bytes = &mut self.map().bytes[..length];
        let taken = rustix::io::read(pipe, &mut *bytes)?;
        Ok(&bytes[..taken])
    }

    /// Step 6: nothing is on its way.
    pub(super) fn arrived(&mut self) {
        fence(Ordering::SeqCst);
        self.map().slip.mark.store(0, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    fn map(&mut self) -> &mut Map {
        // SAFETY: mapped for as long as this value lives, of this size, and any bytes are a valid `Map`. Only the
        // keeper that holds the lock has it mapped, in one place.
        unsafe { self.map.as_mut() }
    }
}

impl Drop for Transit {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `map`, to which no reference is left.
        unsafe { libc::munmap(self.map.as_ptr().cast(), size_of::<Map>()) };
    }
}

impl Slip {
    fn fill_in(&mut self, way: &Way<'_>, length: usize, first: u8) {
        let id = way.id.as_str().as_bytes();
        (self.at, self.offset, self.length, self.first) = (way.at.0, way.offset, length as u64, first);
        self.is_stderr = u8::from(way.stream == OutputStream::Stderr);
        // Ids are host names, of 63 bytes at most.
        self.id_length = id.len().min(ID) as u8;
        self.id[..id.len().min(ID)].copy_from_slice(&id[..id.len().min(ID)]);
    }

    /// None if it says what no keeper fills in.
    fn read(&self) -> Option<((InstanceId, OutputStream, OutputTime, u64), usize)> {
        let id = std::str::from_utf8(self.id.get(..usize::from(self.id_length))?).ok()?.parse().ok()?;
        let length = usize::try_from(self.length).ok().filter(|n| (1..=ONE_TURN).contains(n))?;
        let stream = if self.is_stderr == 0 { OutputStream::Stdout } else { OutputStream::Stderr };
        Some(((id, stream, OutputTime(self.at), self.offset), length))
    }
}

/// Everybody may make files in /dev/shm: one that is not ours is in the way, and goes.
fn open_own(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
    let mut options = File::options();
    options.read(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let is_ours = |file: &File| {
        let found = file.metadata()?;
        let is_private = found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o777 == 0o600;
        Ok::<_, io::Error>(is_private && found.is_file() && found.nlink() == 1)
    };
    match options.open(path) {
        Ok(file) if is_ours(&file)? => return Ok(file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        // A link, a socket: they cannot be opened like this. Any other refusal says nothing of what is there, which may
        // hold the last bytes of an instance.
        Err(e) if !matches!(e.raw_os_error(), Some(libc::ELOOP | libc::ENXIO)) => return Err(e),
        _ => std::fs::remove_file(path)?,
    }
    options.create_new(true).open(path)
}

fn map(file: &File) -> io::Result<NonNull<Map>> {
    let (access, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: fresh memory of the kernel's choosing disturbs nothing.
    let at = unsafe {
        libc::mmap(std::ptr::null_mut(), size_of::<Map>(), access, shared, file.as_fd().as_raw_fd(), 0)
    };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // All of it is there from now on, and stays. Where that is not allowed it mostly does anyway.
    // SAFETY: exactly the mapping made above.
    unsafe { libc::mlock(at, size_of::<Map>()) };
    NonNull::new(at.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::pipe::pipe;

    use super::*;

    /// Where a keeper is killed.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    enum Killed {
        Peeked,
        Departed,
        Taken,
        HalfWritten,
        Written,
        Arrived,
    }
    use Killed::{Arrived, Departed, HalfWritten, Peeked, Taken, Written};

    struct Bench {
        dir: tempfile::TempDir,
        pipe: [OwnedFd; 2],
        id: InstanceId,
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            let _ = Transit::path(self.dir.path()).and_then(fs::remove_file);
        }
    }

    impl Bench {
        fn new() -> Self {
            let (reader, writer) = pipe().unwrap();
            Self {
                dir: tempfile::tempdir().unwrap(),
                pipe: [reader, writer],
                id: "app-web-1-1".parse().unwrap(),
            }
        }

        /// One turn of a keeper that is killed after this step, as far as the world can tell.
        fn turn(&self, killed: Killed) {
            let (mut transit, output) =
                (Transit::open(self.dir.path()).unwrap(), OutputDir::open(self.dir.path()).unwrap());
            transit.finish(&output).unwrap();
            let reader = self.pipe[0].as_fd();
            let length = rustix::io::ioctl_fionread(reader).unwrap() as usize;
            if length == 0 {
                return;
            }
            let first = transit.peek(reader).unwrap();
            let at = OutputTime(1);
            let place = output.place(&self.id, length, at).unwrap();
            let way = Way { id: &self.id, stream: OutputStream::Stdout, at, offset: place.offset };
            let mut lines = Vec::new();
            for step in [Departed, Taken, HalfWritten, Written, Arrived] {
                if step > killed {
                    return;
                }
                match step {
                    Departed => transit.depart(&way, length, first),
                    Taken => {
                        frame(transit.take(reader, length).unwrap(), way.stream, way.at, &mut lines);
                    }
                    HalfWritten => place.write(&lines[..lines.len() / 2]).unwrap(),
                    Written => place.write(&lines).unwrap(),
                    _ => transit.arrived(),
                }
            }
        }

        fn kept(&self) -> Vec<String> {
            let log = fs::read(self.dir.path().join("app-web-1-1.log")).unwrap_or_default();
            let lines = log.split(|b| *b == b'\n').filter_map(kiln_model::OutputLine::parse);
            lines.map(|l| String::from_utf8_lossy(l.text).into_owned()).collect()
        }
    }

    #[test]
    fn whenever_a_keeper_is_killed_everything_is_kept_once() {
        let all = [Peeked, Departed, Taken, HalfWritten, Written, Arrived];
        // Bytes that the complement, zeroes and each other could be mistaken for.
        for text in ["one\ntwo\n", "\n", "\0\n", "\0\0\0\n", "a\n", "\u{7f}\n"] {
            for kills in all.iter().flat_map(|a| all.map(|b| [*a, b])) {
                let bench = Bench::new();
                for killed in kills {
                    rustix::io::write(&bench.pipe[1], text.as_bytes()).unwrap();
                    bench.turn(killed);
                }
                bench.turn(Arrived);
                let expected: Vec<&str> = text.lines().chain(text.lines()).collect();
                assert_eq!(bench.kept(), expected, "{kills:?} {text:?}");
            }
        }
    }

    #[test]
    fn what_is_no_slip_is_nothing() {
        let bench = Bench::new();
        let path = Transit::path(bench.dir.path()).unwrap();
        for byte in 0..=255_u8 {
            let mut garbage = vec![byte; size_of::<Map>()];
            garbage[..8].copy_from_slice(&VALID.to_le_bytes());
            fs::write(&path, garbage).unwrap();
            bench.turn(Arrived);
        }
        fs::write(&path, "short").unwrap();
        bench.turn(Arrived);
        assert_eq!(fs::read_dir(bench.dir.path()).unwrap().count(), 0, "nothing was kept");
    }

    /// In a process of its own: the limit is the whole process's.
    #[test]
    fn want_of_descriptors_costs_nothing_that_is_there() {
        const IN: &str = "KILN_TEST_TRANSIT";
        if let Some(dir) = std::env::var_os(IN) {
            use rustix::process::{Resource, Rlimit, setrlimit};
            setrlimit(Resource::Nofile, Rlimit { current: Some(0), maximum: Some(0) }).unwrap();
            let refused = Transit::open(Path::new(&dir)).err().unwrap();
            assert_eq!(refused.raw_os_error(), Some(libc::EMFILE));
            return;
        }
        let bench = Bench::new();
        let path = Transit::path(bench.dir.path()).unwrap();
        drop(Transit::open(bench.dir.path()).unwrap());
        fs::write(&path, "on its way").unwrap();
        let this = "embedded::capture::transit::tests::want_of_descriptors_costs_nothing_that_is_there";
        let mut again = std::process::Command::new("/proc/self/exe");
        let output = again.args(["--exact", this]).env(IN, bench.dir.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "on its way");
    }

    #[test]
    fn what_somebody_else_has_put_in_its_place_goes() {
        let bench = Bench::new();
        let path = Transit::path(bench.dir.path()).unwrap();
        let other = bench.dir.path().join("other");
        fs::write(&other, "precious").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        drop(Transit::open(bench.dir.path()).unwrap());
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
        drop(Transit::open(bench.dir.path()).unwrap());
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(&path).unwrap()), 0);
        assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
    }
}
