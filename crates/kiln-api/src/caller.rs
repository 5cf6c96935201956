//! Who asks: the user at the other end of the socket, as the kernel vouches for them.

use std::fs;
use std::os::unix::fs::MetadataExt;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use kiln_control::contract::Caller;
use tokio::net::UnixListener;

/// The other end of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer(pub(crate) Caller);

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        // The socket has mode 0600: whoever could connect and cannot be named is still not somebody else.
        let uid = stream.io().peer_cred().map_or(u32::MAX, |peer| peer.uid());
        Peer(caller(uid))
    }
}

fn caller(uid: u32) -> Caller {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    Caller { uid, name: user_name(&users, uid).unwrap_or_else(|| uid.to_string()) }
}

/// The user this process runs as.
pub fn this_process() -> Caller {
    caller(fs::metadata("/proc/self").map_or(u32::MAX, |me| me.uid()))
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
    use super::user_name;

    #[test]
    fn users_have_names_or_do_not() {
        let users = "root:x:0:0:root:/root:/bin/bash\nodd line\n\ndeploy:x:1000:1000::/home/deploy:/bin/sh\n";
        assert_eq!(user_name(users, 0).as_deref(), Some("root"));
        assert_eq!(user_name(users, 1000).as_deref(), Some("deploy"));
        assert_eq!(user_name(users, 7), None);
    }
}
