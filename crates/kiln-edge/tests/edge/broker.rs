//! What the keeper does for a real edge: makes sockets and passes them on.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use kiln_edge::Dial;
use kiln_model::InstanceId;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// Hands out sockets, one per byte it is sent, to anybody who connects to `path`.
pub fn serve(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || hand_out(stream.unwrap()));
        }
    });
}

fn hand_out(mut stream: UnixStream) {
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
        let fds = [socket.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        rustix::net::sendmsg(&stream, &[IoSlice::new(&byte)], &mut control, SendFlags::empty()).unwrap();
    }
}

/// Asks such a broker. Also tells, once, what this process can still do that it should not.
pub struct Asking {
    pub path: PathBuf,
    pub told: PathBuf,
}

impl Dial for Asking {
    fn sockets(&self, _: &InstanceId, count: u32) -> io::Result<Vec<OwnedFd>> {
        let mut stream = UnixStream::connect(&self.path)?;
        confess(&self.told);
        (0..count).map(|_| one(&mut stream)).collect()
    }
}

fn one(stream: &mut UnixStream) -> io::Result<OwnedFd> {
    stream.write_all(&[1])?;
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(rustix::io::Errno::MFILE.into());
    }
    let passed = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    passed.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
}

/// What a confined process must not be able to do, tried from within it.
fn confess(told: &Path) {
    let Ok(mut listener) = UnixStream::connect(told) else { return };
    let mut possible = Vec::new();
    let mut tried = |what: &str, worked: bool| {
        if worked {
            possible.push(what.to_owned());
        }
    };
    tried("read a file", std::fs::File::open("/etc/passwd").is_ok());
    tried("list a directory", std::fs::read_dir("/").is_ok());
    tried("make a file", std::fs::File::create("/tmp/kiln-edge-test-must-not-exist").is_ok());
    tried("make a network socket", std::net::UdpSocket::bind("127.0.0.1:0").is_ok());
    tried("start a thread", thread::Builder::new().spawn(|| ()).is_ok());
    tried("start a program", std::process::Command::new("/bin/true").spawn().is_ok());
    tried("become root", rustix::thread::set_thread_res_uid(rustix::process::Uid::ROOT, None, None).is_ok());
    let _ = writeln!(listener, "possible: {}", possible.join(", "));
}
