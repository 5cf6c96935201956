//! What packages make for one machine is not in an image; the image says so, and what it says to do instead works. Needs
//! root and the host's mirror.

mod common;

use std::path::Path;

use common::{baked, inside, locked, order};
use kiln_model::{Fate, ImageHandle, LeftOut};
use kiln_store::Store;

/// What a line for `sh -e` prints in an image whose `/run` is empty and belongs to `user`, as who it is run.
fn as_user(image: &ImageHandle, user: &str, line: &str) -> String {
    let script =
        "chown \"$1\" /run && exec setpriv --reuid \"$1\" --regid \"$1\" --clear-groups sh -ec \"$2\"";
    let output = inside(image, &["/bin/sh", "-ec", script, "sh", user, line]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {} {error}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn what_is_left_out_is_told_and_can_be_made_by_each_instance() {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    let order = order(Path::new("/"), &["openssh-server", "ssl-cert", "postgresql"]);
    let record = baked(&order, &locked(&order, &store), &store).record;
    let image = store.handle(&record.digest).unwrap();
    let told: Vec<&str> = record.left_out.iter().map(|l| l.what.as_str()).collect();
    assert_eq!(told, ["SSH host keys", "the snakeoil certificate and its key", "PostgreSQL clusters"]);
    for left_out in &record.left_out {
        let there = format!("ls -d {} 2>/dev/null || true", left_out.paths.join(" "));
        assert_eq!(as_user(&image, "root", &there), "", "{}", left_out.what);
    }
    let [ssh, certificate, cluster] = &record.left_out[..] else { panic!("{told:?}") };
    // Each instance is another machine.
    let key = |_| {
        as_user(
            &image,
            "root",
            &format!("{} >&2; cat /run/ssh/etc/ssh/ssh_host_ed25519_key.pub", ssh.command),
        )
    };
    let keys: Vec<String> = (0..2).map(key).collect();
    assert!(keys[0] != keys[1] && keys.iter().all(|key| key.starts_with("ssh-ed25519 ")), "{keys:?}");
    let line = format!(
        "{} 2>/dev/null; openssl x509 -in /run/tls.pem -noout -fingerprint; openssl rsa -in /run/tls.key -check -noout",
        certificate.command
    );
    let certificates: Vec<String> = (0..2).map(|_| as_user(&image, "www-data", &line)).collect();
    assert!(certificates[0] != certificates[1], "{certificates:?}");
    assert!(
        certificates.iter().all(|c| c.contains("ingerprint=") && c.contains("RSA key ok")),
        "{certificates:?}"
    );
    let made =
        as_user(&image, "postgres", &format!("{} >&2; cat /run/postgresql/data/PG_VERSION", cluster.command));
    assert_eq!(made, "15\n");
    // The identity of an instance is where its launcher writes it.
    assert_eq!(as_user(&image, "root", "readlink /etc/machine-id"), "../run/machine-id\n");
}

/// Each of another package, all of which make by chance what nobody else may have.
#[test]
fn what_daemons_know_each_other_by_is_left_out_and_can_be_made_by_each_instance() {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    let order = order(Path::new("/"), &["munge", "open-iscsi", "slapd", "xrdp", "ejabberd"]);
    let record = baked(&order, &locked(&order, &store), &store).record;
    let image = store.handle(&record.digest).unwrap();
    let left_out: Vec<&LeftOut> = record.left_out.iter().filter(|l| l.fate == Fate::LeftOut).collect();
    let made = [
        ("the key of munge", "stat -c %a-%s /run/munge.key", "600-128"),
        ("the name of an iSCSI initiator", "cut -c1-18 /run/initiatorname.iscsi", "InitiatorName=iqn."),
        ("the keys of xrdp", "grep -c ^pri_exp= /run/rsakeys.ini", "1"),
        ("the directory of slapd and its configuration", "stat -c %a /run/ldap", "700"),
        ("the certificate of ejabberd and its key", "grep -c BEGIN /run/ejabberd.pem", "2"),
    ];
    for (what, look, expected) in made {
        let Some(one) = left_out.iter().find(|one| one.what == what) else { panic!("{what}: {left_out:#?}") };
        let there = format!("ls -d {} 2>/dev/null || true", one.paths.join(" "));
        assert_eq!(as_user(&image, "root", &there), "", "{what}");
        let line = format!("{{ {}; }} >/dev/null 2>&1; {look}", one.command);
        assert_eq!(as_user(&image, "root", &line).trim_end(), expected, "{what}");
    }
    // A file of settings that holds the name of the host may be read by ejabberd alone: it may be more than that.
    let kept = record.left_out.iter().filter(|l| l.fate == Fate::Kept);
    let kept: Vec<&String> = kept.flat_map(|one| &one.paths).collect();
    assert_eq!(kept, ["/etc/ejabberd/ejabberd.yml", "/var/lib/ucf/cache/:etc:ejabberd:ejabberd.yml"]);
}

#[test]
fn of_what_makes_nothing_by_chance_nothing_is_told() {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    let order = order(Path::new("/"), &["nginx", "redis-server", "python3", "sudo"]);
    assert_eq!(baked(&order, &locked(&order, &store), &store).record.left_out, []);
}
