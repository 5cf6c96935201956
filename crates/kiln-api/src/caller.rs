//! Who asks: the user at the other end of the socket, as the kernel vouches for them.

use std::fs;
use std::os::unix::fs::MetadataExt;

use axum::extract::connect_info::Connected;
use axum::http::HeaderMap;
use axum::serve::IncomingStream;
use kiln_control::contract::Caller;
use kiln_model::Origin;
use tokio::net::UnixListener;

/// The other end of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer(pub(crate) Caller);

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        // The socket has mode 0600: whoever could connect and cannot be named is still not somebody else.
        let peer = stream.io().peer_cred().ok();
        let uid = peer.as_ref().map_or(u32::MAX, tokio::net::unix::UCred::uid);
        let pid = peer.and_then(|peer| peer.pid()).and_then(|pid| u32::try_from(pid).ok());
        Peer(caller(uid, pid))
    }
}

impl Peer {
    /// The same, with what the program says of where it was started.
    pub(crate) fn says(mut self, head: &HeaderMap) -> Caller {
        let said = head.get(SAYS).and_then(|said| said.to_str().ok());
        if let Some(origin) = &mut self.0.origin {
            origin.says = said.and_then(Origin::tame);
        }
        self.0
    }
}

/// The header field in which a program says where it was started.
pub(crate) const SAYS: &str = "kiln-from";

fn caller(uid: u32, pid: Option<u32>) -> Caller {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    // Looked at while it waits for its answer; one that has left already stays unknown.
    let program = pid.and_then(|pid| fs::read_link(format!("/proc/{pid}/exe")).ok());
    let program = program.map(|program| program.to_string_lossy().into_owned());
    let origin = Origin { uid, pid, program, says: None };
    Caller { uid, name: user_name(&users, uid).unwrap_or_else(|| uid.to_string()), origin: Some(origin) }
}

/// The user this process runs as, and where it was started.
pub fn this_process() -> Caller {
    let uid = fs::metadata("/proc/self").map_or(u32::MAX, |me| me.uid());
    let mut caller = caller(uid, Some(std::process::id()));
    if let Some(origin) = &mut caller.origin {
        origin.says = started_from();
    }
    caller
}

/// Where this process was started: as `KILN_FROM` has it (a job of a CI, say), or over SSH from that machine, and whom
/// sudo made another user.
pub(crate) fn started_from() -> Option<String> {
    let variable = |name: &str| std::env::var(name).ok();
    describe(variable("KILN_FROM"), variable("SSH_CONNECTION"), variable("SUDO_USER"))
}

fn describe(given: Option<String>, ssh: Option<String>, sudo: Option<String>) -> Option<String> {
    let ssh = ssh.and_then(|ssh| Some(format!("ssh {}", ssh.split_whitespace().next()?)));
    let sudo = sudo.map(|user| format!("{user} by sudo"));
    let all: Vec<String> = [given, ssh, sudo].into_iter().flatten().collect();
    Origin::tame(&all.join(", "))
}

/// The name of `uid` in the text of an `/etc/passwd`.
fn user_name(users: &str, uid: u32) -> Option<String> {
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    };
    users.lines().find_map(entry)
}

#[cfg(test)]
mod tests {
    use super::{describe, user_name};

    #[test]
    fn where_it_was_started() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(describe(None, None, None), None);
        assert_eq!(describe(None, some("192.0.2.7 50000 192.0.2.1 22"), None), some("ssh 192.0.2.7"));
        assert_eq!(
            describe(some("job 12"), some("192.0.2.7 1 2 3"), some("ann")),
            some("job 12, ssh 192.0.2.7, ann by sudo")
        );
    }

    #[test]
    fn users_have_names_or_do_not() {
        let users = "root:x:0:0:root:/root:/bin/bash\nodd line\n\ndeploy:x:1000:1000::/home/deploy:/bin/sh\n";
        assert_eq!(user_name(users, 0).as_deref(), Some("root"));
        assert_eq!(user_name(users, 1000).as_deref(), Some("deploy"));
        assert_eq!(user_name(users, 7), None);
    }
}
