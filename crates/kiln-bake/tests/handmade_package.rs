//! A package made by hand, installed over the real base: what its script sees, and where its paths lead. Needs root and
//! the host's mirror.

mod common;

use std::path::Path;

use common::{Told, baked, locked, order, printed};
use kiln_bake::{BakeOrder, bake};
use kiln_model::{Fate, ImageHandle, Lock, LockedPackage, Sha256};
use kiln_store::Store;
use tar::EntryType;

const CONTROL: &str = "Package: handmade\nVersion: 1\nArchitecture: all\nMaintainer: a\nDescription: b\n";

fn zst(entries: &[(EntryType, &str, u32, &str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, path, mode, link, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(content.len() as u64);
        let fields = header.as_gnu_mut().unwrap();
        fields.name[..path.len()].copy_from_slice(path.as_bytes());
        fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    ruzstd::encoding::compress_to_vec(builder.into_inner().unwrap().as_slice(), level)
}

/// Beside a `postinst` it has a `preinst`, which is not marked as executable.
const PREINST: &str = "#!/bin/sh\nset -e\necho $0 $* $DPKG_MAINTSCRIPT_PACKAGE >/etc/before\ncd /var/lib/dpkg/tmp.ci\n\
                       stat -c '%A %U %s' . preinst >>/etc/before\necho * >>/etc/before\ncat control >>/etc/before\n\
                       rm postinst\n";

/// A package whose members are compressed with zstd.
fn deb(preinst: &str, script: &str, data: &[(EntryType, &str, u32, &str, &str)]) -> Vec<u8> {
    let control = [
        (EntryType::Regular, "./control", 0o644, "", CONTROL),
        (EntryType::Regular, "./postinst", 0o755, "", script),
        (EntryType::Regular, "./preinst", 0o644, "", preinst),
    ];
    let mut out = ar::Builder::new(Vec::new());
    for (name, bytes) in [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.zst", zst(&control)),
        ("data.tar.zst", zst(data)),
    ] {
        out.append(&ar::Header::new(name.into(), bytes.len() as u64), bytes.as_slice()).unwrap();
    }
    out.into_inner().unwrap()
}

/// An image of the base and the package.
fn installed(deb: &[u8], store: &Store) -> ImageHandle {
    let (order, lock) = locked_with(deb, &[], store);
    let record = baked(&order, &lock, store).record;
    store.handle(&record.digest).unwrap()
}

/// An order for the package and others, which sort behind it, and its lock.
fn locked_with(deb: &[u8], others: &[&str], store: &Store) -> (BakeOrder, Lock) {
    let mut lock = locked(&order(Path::new("/"), others), store);
    let package = LockedPackage {
        name: "handmade".into(),
        version: "1".into(),
        architecture: "all".into(),
        suite: "bookworm".into(),
        path: "pool/handmade.deb".into(),
        size: deb.len() as u64,
        sha256: Sha256::of(deb),
    };
    store.put_package(&package.sha256, &mut &*deb).unwrap();
    let order = order(Path::new("/"), &[&["handmade"], others].concat());
    let image = lock.images.get_mut(&order.image).unwrap();
    image.packages.push(package);
    image.packages.sort_by(|a, b| a.name.cmp(&b.name));
    image.request = order.lock_request();
    (order, lock)
}

#[test]
fn a_script_sees_a_clock_that_stands_still_and_links_lead_nowhere_but_into_the_tree() {
    // Where images keep what they hold: what is below /tmp is not kept.
    let (state, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/opt").unwrap());
    let store = Store::open(state.path()).unwrap();
    // A shell's date; in Perl time(2), and gettimeofday(2) itself.
    let script = "#!/bin/sh\nset -e\ndate +%s >/etc/now\nsleep 1\ndate +%s >>/etc/now\n\
                  perl -e 'print time, \"\\n\"' >>/etc/now\n\
                  perl -e '$t = pack \"x16\"; syscall 96, $t, 0; print unpack(\"q\", $t), \"\\n\"' >>/etc/now\n\
                  echo $SOURCE_DATE_EPOCH >>/etc/now\n";
    let (up, out) = ("../../../../../..", outside.path().to_str().unwrap());
    let bytes = deb(
        PREINST,
        script,
        &[
            (EntryType::Symlink, "./srv/out", 0o777, out, ""),
            (EntryType::Regular, "./srv/out/escaped", 0o644, "", "x"),
            (EntryType::Symlink, "./srv/up", 0o777, up, ""),
            (EntryType::Regular, "./srv/up/climbed", 0o644, "", "x"),
        ],
    );
    let handle = installed(&bytes, &store);
    let told = printed(&handle, &["/bin/cat", "/etc/now"]);
    let times: Vec<&str> = told.lines().collect();
    assert!(times.len() == 5 && times.iter().all(|time| *time == times[4]), "{told}");
    let before = printed(&handle, &["/bin/cat", "/etc/before"]);
    let expected = format!(
        "/var/lib/dpkg/tmp.ci/preinst install handmade\ndrwxr-xr-x root 100\n-rwxr-xr-x root {}\n\
         control postinst preinst\n{CONTROL}",
        PREINST.len()
    );
    assert_eq!(before, expected);
    let left = printed(&handle, &["/bin/ls", "/var/lib/dpkg"]);
    assert!(left.contains("status") && !left.contains("tmp.ci"), "{left}");
    // Inside.
    assert_eq!(printed(&handle, &["/bin/cat", &format!("{out}/escaped"), "/climbed"]), "xx");
    // And not where the same names lead on the host.
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    assert!(!Path::new("/climbed").exists());
}

/// Whichever package it was that made it, at whichever step, and whether that step was done now or is remembered.
#[test]
fn what_a_package_makes_for_one_machine_is_told_although_nobody_knows_it_for_that() {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    let script = "#!/bin/sh\nset -e\nmkdir -p /etc/ssh\necho key >/etc/ssh/ssh_host_rsa_key\n";
    let deb = deb("#!/bin/sh\n", script, &[(EntryType::Regular, "./etc/ssh/config", 0o644, "", "x")]);
    let (mut order, lock) = locked_with(&deb, &["hello"], &store);
    let remembered = state.path().join("cache/debian-roots-1");
    for with in ["nothing remembered", "the tree remembered", "the last step remembered"] {
        order.env.insert("WITH".into(), with.into());
        if with == "the last step remembered" {
            std::fs::remove_dir_all(&remembered).unwrap();
        }
        let told = Told::default();
        let record = bake(&order, &lock, &store, &told).unwrap().record;
        let [keys] = &record.left_out[..] else { panic!("{with}: {:?}", record.left_out) };
        assert_eq!((keys.what.as_str(), keys.paths[0].as_str()), ("SSH host keys", "/etc/ssh/ssh_host_*"));
        assert!(told.tasks().contains(&keys.to_string()), "{with}");
        let image = store.handle(&record.digest).unwrap();
        assert_eq!(printed(&image, &["/bin/ls", "/etc/ssh"]), "config\n");
    }
}

/// Whatever it is: nobody else may read it, and it is of no package. Not what a package brings that is read by few, nor what
/// is empty.
#[test]
fn what_scripts_make_that_others_may_not_read_is_kept_and_told() {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    let script = "#!/bin/sh\nset -e\numask 077\nhead -c 9 /dev/urandom >/etc/own/secret\n: >/etc/own/empty\n\
                  cp /etc/own/brought /etc/own/copied\nchmod 640 /etc/own/closed\n";
    let deb = deb(
        "#!/bin/sh\n",
        script,
        &[
            (EntryType::Directory, "./etc/own", 0o755, "", ""),
            (EntryType::Regular, "./etc/own/brought", 0o600, "", "x"),
            (EntryType::Regular, "./etc/own/closed", 0o644, "", "y"),
        ],
    );
    let (mut order, lock) = locked_with(&deb, &["hello"], &store);
    for with in ["nothing remembered", "the tree remembered"] {
        order.env.insert("WITH".into(), with.into());
        let told = Told::default();
        let record = bake(&order, &lock, &store, &told).unwrap().record;
        let [kept] = &record.left_out[..] else { panic!("{with}: {:?}", record.left_out) };
        assert_eq!((&kept.paths[..], kept.fate), (&["/etc/own/secret".to_owned()][..], Fate::Kept));
        assert!(kept.to_string().starts_with("kept: ") && told.tasks().contains(&kept.to_string()), "{with}");
        let image = store.handle(&record.digest).unwrap();
        assert_eq!(printed(&image, &["/bin/ls", "/etc/own"]), "brought\nclosed\ncopied\nempty\nsecret\n");
    }
}

/// As under dpkg, which unpacks a package after its `preinst`.
#[test]
fn what_comes_with_a_package_is_not_there_when_its_preinst_runs() {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    let preinst = "#!/bin/sh\nset -e\nmkdir -m 700 /usr/share/handmade\necho before >/usr/share/handmade/before\n\
                   dpkg-divert --package handmade --add --rename --divert /etc/issue.aside /etc/issue\n";
    let script = "#!/bin/sh\nset -e\ntest -e /usr/share/handmade/data\n";
    let deb = deb(
        preinst,
        script,
        &[
            (EntryType::Regular, "./etc/issue", 0o644, "", "ours"),
            (EntryType::Directory, "./usr/share/handmade", 0o755, "", ""),
            (EntryType::Regular, "./usr/share/handmade/data", 0o644, "", "data"),
        ],
    );
    let image = installed(&deb, &store);
    let files = ["/etc/issue", "/usr/share/handmade/before", "/usr/share/handmade/data"];
    assert_eq!(printed(&image, &[&["/bin/cat"], &files[..]].concat()), "oursbefore\ndata");
    assert!(printed(&image, &["/bin/cat", "/etc/issue.aside"]).contains("Debian"));
    // A directory that is there already stays as it is.
    assert_eq!(printed(&image, &["/bin/stat", "-c", "%a", "/usr/share/handmade"]), "700\n");
    // The package has no list of digests, so of its own files there is nothing to say.
    assert_eq!(printed(&image, &["/usr/bin/dpkg", "--verify"]), "");
}

/// Of Debian's own packages: one that diverts six programs of gzip's, with their pages of the manual.
#[test]
fn what_a_package_diverts_is_there_under_its_other_name() {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    let order = order(Path::new("/"), &["zutils"]);
    let record = baked(&order, &locked(&order, &store), &store).record;
    let image = store.handle(&record.digest).unwrap();
    assert_eq!(printed(&image, &["/usr/bin/dpkg", "--verify"]), "");
    assert_eq!(printed(&image, &["/usr/bin/dpkg-divert", "--truename", "/bin/zcat"]), "/bin/zcat.gzip\n");
    assert!(printed(&image, &["/bin/zcat.gzip", "--version"]).contains("(gzip)"));
    assert!(printed(&image, &["/bin/zcat", "--version"]).contains("zutils"));
}
