//! A disk that fails when it is told to: a block device over one file that this process serves by FUSE.
//!
//! ```text
//!   ext4  ──  loop device  ──  FUSE, one file  ──  here: which blocks hold what was named?  ──  a sparse file
//! ```
//! Blocks fail by what is in them, so that a test says which file is hit, wherever the file system has put it. Whoever reads
//! or writes one gets EIO from the kernel, as from a broken disk.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::{NamedTempFile, TempDir};

use crate::luck::runs;

/// How large it is, and how much of it is asked for at once.
const BYTES: u64 = 1 << 30;
const AT_ONCE: usize = 128 << 10;
const BLOCK: usize = 4096;

/// A file system on such a disk; gone when dropped.
pub(crate) struct FailingDisk {
    mounted: TempDir,
    device: NamedTempFile,
    fault: Arc<Fault>,
    served: Option<JoinHandle<()>>,
}

/// What fails at present.
#[derive(Default)]
struct Fault {
    marks: Mutex<Marks>,
}

#[derive(Default)]
struct Marks {
    written: Vec<Vec<u8>>,
    read: Vec<Vec<u8>>,
    /// How many requests failed.
    met: u64,
}

impl FailingDisk {
    pub(crate) fn mount() -> Self {
        let (mounted, device) = (TempDir::new().unwrap(), NamedTempFile::new().unwrap());
        let platter = tempfile::tempfile().unwrap();
        platter.set_len(BYTES).unwrap();
        let fault = Arc::new(Fault::default());
        let fuse = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=100600,user_id=0,group_id=0\0", fuse.as_raw_fd());
        let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).unwrap();
        mount("kiln-test", device.path(), "fuse", MountFlags::empty(), Some(options)).unwrap();
        let server = Server { fuse, platter, fault: fault.clone() };
        let served = std::thread::Builder::new().name("disk".into()).spawn(move || server.serve()).unwrap();
        let this = Self { mounted, device, fault, served: Some(served) };
        // No journal: one that cannot be written stops the whole file system, which is another story.
        let make = ["-q", "-F", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=0"];
        let make = make.iter().map(std::ffi::OsStr::new).chain([this.device.path().as_os_str()]);
        runs("mkfs.ext4", &make.collect::<Vec<_>>());
        let (device, mounted) = (this.device.path().as_os_str(), this.mounted.path().as_os_str());
        runs("mount", &["-o".as_ref(), "loop".as_ref(), device, mounted]);
        this
    }

    pub(crate) fn path(&self) -> &Path {
        self.mounted.path()
    }

    /// From now on blocks that hold this cannot be written, until what is given back is dropped.
    pub(crate) fn refuse_to_write(&self, mark: &str) -> Failing<'_> {
        self.fault.with(|marks| marks.written.push(mark.into()));
        Failing(self)
    }

    /// From now on blocks that hold this cannot be read, until what is given back is dropped. Those of `file` are not in
    /// memory then.
    pub(crate) fn refuse_to_read(&self, mark: &[u8], file: &Path) -> Failing<'_> {
        self.fault.with(|marks| marks.read.push(mark.into()));
        forget(file);
        Failing(self)
    }
}

/// Drops what the kernel holds of a file in memory: what is read from now on comes from the disk.
pub(crate) fn forget(file: &Path) {
    let opened = File::open(file).unwrap();
    opened.sync_all().unwrap();
    rustix::fs::fadvise(&opened, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        self.fault.with(Marks::heal);
        let _ = unmount(self.mounted.path(), UnmountFlags::DETACH);
        // The loop device lets go of it, and then nobody asks for anything any more.
        let _ = unmount(self.device.path(), UnmountFlags::DETACH);
        if let Some(served) = self.served.take().filter(|_| !std::thread::panicking()) {
            served.join().expect("the disk went well");
        }
    }
}

/// A disk with a fault.
pub(crate) struct Failing<'a>(&'a FailingDisk);

impl Failing<'_> {
    /// How often somebody has met the fault.
    pub(crate) fn met(&self) -> u64 {
        self.0.fault.with(|marks| marks.met)
    }
}

impl Drop for Failing<'_> {
    fn drop(&mut self) {
        self.0.fault.with(Marks::heal);
    }
}

impl Fault {
    fn with<T>(&self, act: impl FnOnce(&mut Marks) -> T) -> T {
        act(&mut self.marks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Marks {
    fn heal(&mut self) {
        *self = Self::default();
    }

    /// Whether one of these is in one of the blocks.
    fn meet(met: &mut u64, marks: &[Vec<u8>], bytes: &[u8]) -> bool {
        let is_in = |mark: &Vec<u8>| bytes.windows(mark.len()).any(|at| at == mark);
        let meets = marks.iter().any(is_in);
        *met += u64::from(meets);
        meets
    }
}

/// Answers the kernel.
struct Server {
    fuse: File,
    platter: File,
    fault: Arc<Fault>,
}

/// What the kernel asks, as fuse(4) numbers it.
mod ask {
    pub(super) const FORGET: u32 = 2;
    pub(super) const GETATTR: u32 = 3;
    pub(super) const SETATTR: u32 = 4;
    pub(super) const OPEN: u32 = 14;
    pub(super) const READ: u32 = 15;
    pub(super) const WRITE: u32 = 16;
    pub(super) const RELEASE: u32 = 18;
    pub(super) const FSYNC: u32 = 20;
    pub(super) const FLUSH: u32 = 25;
    pub(super) const INIT: u32 = 26;
    pub(super) const INTERRUPT: u32 = 36;
    pub(super) const BATCH_FORGET: u32 = 42;
}

/// Of the header of a question, and of what READ and WRITE have behind it.
const HEADER: usize = 40;

impl Server {
    /// Until the file is mounted no more.
    fn serve(mut self) {
        let mut question = vec![0; HEADER + 40 + AT_ONCE + BLOCK];
        loop {
            match self.fuse.read(&mut question) {
                Ok(length) => self.answer(&question[..length]).expect("an answer that the kernel takes"),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => return,
                Err(e) => panic!("could not read what is asked: {e}"),
            }
        }
    }

    fn answer(&mut self, question: &[u8]) -> io::Result<()> {
        let (what, unique) = (u32_at(question, 4), u64_at(question, 8));
        let asked = &question[HEADER..];
        let answer = match what {
            ask::FORGET | ask::BATCH_FORGET | ask::INTERRUPT => return Ok(()),
            ask::INIT => Ok(init(asked)),
            ask::GETATTR | ask::SETATTR => Ok(attributes()),
            // Not by the page cache: every question comes here.
            ask::OPEN => Ok([&0u64.to_ne_bytes()[..], &1u32.to_ne_bytes(), &[0; 4]].concat()),
            ask::READ => self.read(u64_at(asked, 8), u32_at(asked, 16)),
            ask::WRITE => self.write(u64_at(asked, 8), &asked[40..]),
            ask::RELEASE | ask::FLUSH | ask::FSYNC => Ok(Vec::new()),
            _ => Err(Errno::NOSYS),
        };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(errno) => (-errno.raw_os_error(), Vec::new()),
        };
        let length = u32::try_from(16 + body.len()).expect("a short answer");
        let header = [&length.to_ne_bytes()[..], &error.to_ne_bytes(), &unique.to_ne_bytes()].concat();
        match self.fuse.write(&[header, body].concat()) {
            // Whoever asked is gone.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            written => written.map(drop),
        }
    }

    fn read(&self, offset: u64, length: u32) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; length as usize];
        let read = self.platter.read_at(&mut bytes, offset).map_err(|_| Errno::IO)?;
        bytes.truncate(read);
        let fails = self.fault.with(|m| Marks::meet(&mut m.met, &m.read, &bytes));
        if fails { Err(Errno::IO) } else { Ok(bytes) }
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<Vec<u8>, Errno> {
        if self.fault.with(|m| Marks::meet(&mut m.met, &m.written, bytes)) {
            return Err(Errno::IO);
        }
        self.platter.write_all_at(bytes, offset).map_err(|_| Errno::IO)?;
        let length = u32::try_from(bytes.len()).expect("a short write");
        Ok([length.to_ne_bytes(), [0; 4]].concat())
    }
}

/// Version 7.31 is spoken, with requests as large as there is room for.
fn init(asked: &[u8]) -> Vec<u8> {
    const BIG_WRITES: u32 = 1 << 5;
    const MAX_PAGES: u32 = 1 << 22;
    let flags = u32_at(asked, 12) & (BIG_WRITES | MAX_PAGES);
    let at_once = u32::try_from(AT_ONCE).expect("a small number");
    let pages = u16::try_from(AT_ONCE / BLOCK).expect("a small number");
    let numbers = [7u32, 31, at_once, flags].map(u32::to_ne_bytes).concat();
    let background = [16u16, 12].map(u16::to_ne_bytes).concat();
    let sizes = [at_once, 1].map(u32::to_ne_bytes).concat();
    [numbers, background, sizes, pages.to_ne_bytes().into(), vec![0; 2 + 4 + 28]].concat()
}

fn attributes() -> Vec<u8> {
    let valid = [0u64, 0].map(u64::to_ne_bytes).concat();
    let numbers = [1, BYTES, BYTES / 512, 0, 0, 0].map(u64::to_ne_bytes).concat();
    let mode = 0o100_600;
    let block = u32::try_from(BLOCK).expect("a small number");
    let rest = [0, 0, 0, mode, 1, 0, 0, 0, block, 0u32].map(u32::to_ne_bytes).concat();
    [valid, numbers, rest].concat()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The block that begins a file, or the whole of a short one: by this it is known on the disk.
pub(crate) fn beginning(file: &Path) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK];
    let read = File::open(file).unwrap().read(&mut bytes).unwrap();
    bytes.truncate(read);
    bytes
}
