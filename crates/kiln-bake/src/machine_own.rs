//! What belongs to one machine, or is data: keys, certificates, identities, databases. No image holds any of it, whoever
//! would have made it.
//!
//! | made by | then |
//! |---|---|
//! | a package's scripts | left out, and recorded with what to do instead: what they made here ([`taken_out`]), and what they would have made on a machine ([`left_out_of`]) |
//! | an OCI image it starts from | the same ([`taken_out`]) |
//! | an instance that is made an image of | the same |
//! | the project's files, a build | refused ([`check`]): somebody meant it, and is told where it belongs |
//!
//! `/etc/machine-id` is each instance's own: a link to where its launcher writes one. `docs/design/debian.md` has the
//! whole story.

use kiln_model::{Content, Fate, LeftOut, LockedPackage, Node, Tree, TreeError};

use crate::tree_edit::{TreeEdit, root_meta};

/// Where every instance has its identity: written by its launcher.
pub(crate) const MACHINE_ID: &str = "/etc/machine-id";
/// What the link there says; relative, so that it leads nowhere else in a tree that is looked at from outside.
const MACHINE_ID_LINK: &str = "../run/machine-id";
/// What says that a machine has none yet.
const NO_MACHINE_ID: [&[u8]; 2] = [b"", b"uninitialized\n"];

/// One kind of such things.
struct Kind {
    what: &'static str,
    /// Packages whose scripts would make it.
    packages: &'static [&'static str],
    /// Where it would be; `*` stands for anything within a name.
    paths: &'static [&'static str],
    instead: &'static str,
    /// Makes it in an instance, where only volatile paths can be written; a line for `sh -e`.
    command: &'static str,
}

const KINDS: [Kind; 13] = [
    Kind {
        what: "SSH host keys",
        packages: &["openssh-server", "dropbear-initramfs", "dropbear"],
        paths: &["/etc/ssh/ssh_host_*", "/etc/dropbear/dropbear_*_host_key"],
        instead: "give them as secrets, so that all instances are the same host to clients, or make them at the start of each",
        command: "mkdir -p /run/ssh/etc/ssh && ssh-keygen -A -f /run/ssh",
    },
    Kind {
        what: "the snakeoil certificate and its key",
        packages: &["ssl-cert"],
        paths: &["/etc/ssl/private/ssl-cert-snakeoil.key", "/etc/ssl/certs/ssl-cert-snakeoil.pem"],
        instead: "let Kiln's edge speak TLS, give a certificate as a secret, or make one at the start of each instance",
        command: "openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=localhost -keyout /run/tls.key -out /run/tls.pem",
    },
    Kind {
        what: "PostgreSQL clusters",
        packages: &["postgresql-common"],
        paths: &["/var/lib/postgresql/*/*", "/etc/postgresql/*/*"],
        instead: "data lives in a store of the spec; for data that may go with an instance, make a cluster at its start (as user postgres)",
        command: "/usr/lib/postgresql/*/bin/initdb -D /run/postgresql/data",
    },
    Kind {
        what: "MariaDB's or MySQL's databases",
        packages: &["mariadb-server", "mysql-server", "default-mysql-server"],
        paths: &["/var/lib/mysql/*"],
        instead: "data lives in a store of the spec; for data that may go with an instance, make it at its start",
        command: "mariadb-install-db --datadir=/run/mysql --auth-root-authentication-method=socket",
    },
    Kind {
        what: "the key of rndc",
        packages: &["bind9"],
        paths: &["/etc/bind/rndc.key"],
        instead: "give one as a secret, or make one at the start of each instance",
        command: "rndc-confgen -a -c /run/rndc.key",
    },
    Kind {
        what: "the Erlang cookie of RabbitMQ",
        packages: &["rabbitmq-server"],
        paths: &["/var/lib/rabbitmq/.erlang.cookie"],
        instead: "give one as a secret that all nodes share; with HOME in a volatile directory each instance makes its own",
        command: "umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n' >/run/erlang.cookie",
    },
    Kind {
        what: "the secret of varnishd's management port",
        packages: &["varnish"],
        paths: &["/etc/varnish/secret"],
        instead: "give one as a secret and name its file with `-S`, or make one at the start of each instance",
        command: "umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n' >/run/varnish.secret",
    },
    Kind {
        what: "the key of munge",
        packages: &["munge"],
        paths: &["/etc/munge/munge.key"],
        instead: "give one as a secret that all hosts of a cluster share, or make one at the start of each instance",
        command: "umask 077 && head -c 128 /dev/urandom >/run/munge.key",
    },
    Kind {
        what: "the name of an iSCSI initiator",
        packages: &["open-iscsi"],
        paths: &["/etc/iscsi/initiatorname.iscsi"],
        instead: "two initiators of one name harm each other's data: make one at the start of each instance",
        command: "echo InitiatorName=$(/usr/sbin/iscsi-iname) >/run/initiatorname.iscsi",
    },
    Kind {
        what: "the keys of xrdp",
        packages: &["xrdp"],
        paths: &["/etc/xrdp/rsakeys.ini", "/etc/xrdp/key.pem", "/etc/xrdp/cert.pem"],
        instead: "give keys and certificate as secrets, or make them at the start of each instance",
        command: "umask 077 && xrdp-keygen xrdp /run/rsakeys.ini",
    },
    Kind {
        what: "the directory of slapd and its configuration",
        packages: &["slapd"],
        paths: &["/etc/ldap/slapd.d/*", "/var/lib/ldap/*"],
        instead: "data lives in a store of the spec, and a `slapd.conf` says the same as the configuration; for data that may go with an instance, make a place for it at its start",
        command: "umask 077 && mkdir -p /run/ldap",
    },
    Kind {
        what: "the certificate of ejabberd and its key",
        packages: &["ejabberd"],
        paths: &["/etc/ejabberd/ejabberd.pem"],
        instead: "let Kiln's edge speak TLS, give a certificate as a secret, or make one at the start of each instance",
        command: "umask 077 && openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=localhost -keyout /run/ejabberd.pem -out /run/ejabberd.crt && cat /run/ejabberd.crt >>/run/ejabberd.pem",
    },
    Kind {
        what: "the state of a random number generator",
        packages: &[],
        paths: &["/var/lib/systemd/random-seed", "/var/lib/urandom/random-seed"],
        instead: "the kernel of the host has random numbers for all instances",
        command: "true",
    },
];

impl Kind {
    fn left_out(&self) -> LeftOut {
        LeftOut {
            what: self.what.into(),
            paths: self.paths.iter().map(|path| (*path).to_owned()).collect(),
            instead: self.instead.into(),
            command: self.command.into(),
            fate: Fate::LeftOut,
        }
    }

    /// All of it that is in `tree`. Only the directories where it may be are gone through.
    fn places<'t>(&self, tree: &'t Tree) -> impl Iterator<Item = &'t [u8]> {
        self.paths.iter().flat_map(move |pattern| {
            let pattern = pattern.as_bytes();
            let plain = pattern.iter().position(|c| *c == b'*').unwrap_or(pattern.len());
            let dir = pattern[..plain].iter().rposition(|c| *c == b'/').unwrap_or(0);
            tree.below(&pattern[..dir]).map(|(path, _)| path).filter(move |path| is_like(pattern, path))
        })
    }
}

/// `*` stands for anything without a slash.
fn is_like(pattern: &[u8], path: &[u8]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            let name = path.iter().position(|c| *c == b'/').unwrap_or(path.len());
            (0..=name).any(|n| is_like(rest, &path[n..]))
        }
        (Some((p, rest)), Some((c, behind))) => p == c && is_like(rest, behind),
        _ => false,
    }
}

/// Something that a spec puts into an image, and that no image may hold.
#[derive(Debug, thiserror::Error)]
#[error("{path} belongs to one machine: {what} may not be in an image")]
pub struct MachineOwn {
    path: String,
    what: &'static str,
    instead: &'static str,
}

impl MachineOwn {
    /// What to do instead.
    pub fn hint(&self) -> &'static str {
        self.instead
    }
}

/// What these packages would have made, had their scripts run on a machine.
pub(crate) fn left_out_of(packages: &[LockedPackage]) -> Vec<LeftOut> {
    let brought = |kind: &&Kind| packages.iter().any(|p| kind.packages.contains(&p.name.as_str()));
    KINDS.iter().filter(brought).map(Kind::left_out).collect()
}

/// Both lists as one that says nothing twice.
pub(crate) fn together(mut some: Vec<LeftOut>, more: Vec<LeftOut>) -> Vec<LeftOut> {
    for new in more {
        if !some.iter().any(|old| old.what == new.what) {
            some.push(new);
        }
    }
    some
}

/// Takes all of it out of a tree; what that was.
pub(crate) fn taken_out(edit: &mut TreeEdit) -> Vec<LeftOut> {
    let mut found = Vec::new();
    for kind in &KINDS {
        let paths: Vec<Vec<u8>> = kind.places(edit.tree()).map(<[u8]>::to_vec).collect();
        if !paths.is_empty() {
            found.push(kind.left_out());
        }
        paths.iter().for_each(|path| edit.remove(path));
    }
    remove_links(edit);
    if has_identity(edit.tree())
        && let Some(Node::File(_, content)) = edit.node_mut(MACHINE_ID.as_bytes())
    {
        *content = Content::Inline(NO_MACHINE_ID[1].to_vec());
    }
    found
}

/// Links to the snakeoil certificate, named by its hash.
fn remove_links(edit: &mut TreeEdit) {
    const CERTIFICATE: &[u8] = b"ssl-cert-snakeoil.pem";
    let leads = |node: &Node| matches!(node, Node::Symlink(_, target) if target.ends_with(CERTIFICATE));
    let links: Vec<Vec<u8>> = edit
        .tree()
        .below(b"/etc/ssl/certs")
        .filter(|(_, node)| leads(node))
        .map(|(path, _)| path.to_vec())
        .collect();
    links.iter().for_each(|path| edit.remove(path));
}

/// Whether a finished tree holds any of it.
pub(crate) fn check(tree: &Tree) -> Result<(), MachineOwn> {
    for kind in &KINDS {
        if let Some(path) = kind.places(tree).next() {
            let path = String::from_utf8_lossy(path).into_owned();
            return Err(MachineOwn { path, what: kind.what, instead: kind.instead });
        }
    }
    if has_identity(tree) {
        return Err(MachineOwn {
            path: MACHINE_ID.into(),
            what: "an identity",
            instead: "leave it out: each instance is given one",
        });
    }
    Ok(())
}

/// Whether a machine's identity is in it.
pub(crate) fn has_identity(tree: &Tree) -> bool {
    tree.get(MACHINE_ID.as_bytes()).is_some_and(|node| !is_blank(node))
}

/// Whether it is no identity: no file at all, or one that says that there is none yet.
fn is_blank(node: &Node) -> bool {
    match node {
        Node::File(_, Content::Inline(bytes)) => NO_MACHINE_ID.contains(&bytes.as_slice()),
        Node::File(_, Content::Object { .. }) => false,
        _ => true,
    }
}

/// Has a tree with a place for it show the identity of the instance it is in.
pub(crate) fn link_machine_id(edit: &mut TreeEdit, epoch: i64) -> Result<(), TreeError> {
    match edit.tree().get(MACHINE_ID.as_bytes()) {
        Some(node @ Node::File(..)) if is_blank(node) => {
            let link = Node::Symlink(root_meta(0o777, epoch), MACHINE_ID_LINK.into());
            edit.put(MACHINE_ID.as_bytes(), link)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree_edit::directory;

    fn tree(files: &[(&str, &str)]) -> TreeEdit {
        let mut edit = TreeEdit::new(Tree::new());
        edit.put(b"/", directory(0o755, 0)).unwrap();
        for (path, text) in files {
            edit.ensure_parent(path.as_bytes(), 0).unwrap();
            let node = Node::File(root_meta(0o600, 0), Content::Inline(text.as_bytes().into()));
            edit.put(path.as_bytes(), node).unwrap();
        }
        edit
    }

    #[test]
    fn patterns_stay_within_a_name() {
        assert!(is_like(b"/a/*", b"/a/b") && is_like(b"/a/b*c", b"/a/bxc") && is_like(b"/*/b", b"/a/b"));
        assert!(!is_like(b"/a/*", b"/a/b/c") && !is_like(b"/a/*/*", b"/a/b"));
    }

    #[test]
    fn what_is_of_one_machine_is_found_wherever_it_comes_from() {
        for (path, text) in [
            ("/etc/ssh/ssh_host_rsa_key.pub", "x"),
            ("/var/lib/postgresql/15/main/PG_VERSION", "15"),
            ("/var/lib/mysql/ibdata1", ""),
            ("/etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
        ] {
            let refused = check(tree(&[("/etc/ssh/sshd_config", "x"), (path, text)]).tree()).unwrap_err();
            assert!(path.starts_with(&refused.path), "{path}: {refused}");
        }
        assert!(
            check(tree(&[("/etc/ssh/ssh_config", "x"), ("/etc/machine-id", "uninitialized\n")]).tree())
                .is_ok()
        );
    }

    #[test]
    fn it_is_taken_out_and_told() {
        let mut edit = tree(&[
            ("/etc/ssh/ssh_host_rsa_key", "x"),
            ("/etc/ssh/sshd_config", "x"),
            ("/etc/machine-id", ""),
        ]);
        let told: Vec<String> = taken_out(&mut edit).into_iter().map(|l| l.what).collect();
        assert_eq!(told, ["SSH host keys"]);
        assert!(check(edit.tree()).is_ok() && edit.tree().get(b"/etc/ssh/sshd_config").is_some());
        link_machine_id(&mut edit, 7).unwrap();
        assert!(
            matches!(edit.tree().get(b"/etc/machine-id"), Some(Node::Symlink(_, to)) if to == b"../run/machine-id")
        );
    }
}
