//! Packages that are damaged or made to harm: each is refused with exit code 4 and a message that names it, and the
//! store stays as it was.

mod common;

use std::io::Write;
use std::path::Path;

use common::{order, try_bake};
use kiln_model::{ExitCode, Failure, Lock, LockedImage, LockedPackage, Sha256};
use kiln_store::Store;
use tar::EntryType;

/// One entry of a tar archive, written past the library's own checks.
struct Entry<'a>(EntryType, &'a str, &'a str, &'a [u8]);

fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for Entry(kind, path, link, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        let fields = header.as_gnu_mut().unwrap();
        fields.name[..path.len()].copy_from_slice(path.as_bytes());
        fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zst(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

fn deb_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = ar::Builder::new(Vec::new());
    for (name, bytes) in members {
        out.append(&ar::Header::new((*name).into(), bytes.len() as u64), *bytes).unwrap();
    }
    out.into_inner().unwrap()
}

fn control(name: &str) -> Vec<u8> {
    let text = format!("Package: {name}\nVersion: 1\nArchitecture: all\n");
    xz(&tar(&[Entry(EntryType::Regular, "./control", "", text.as_bytes())]))
}

/// A package with these data.
fn deb(data: &[Entry<'_>]) -> Vec<u8> {
    let (control, data) = (control("evil"), xz(&tar(data)));
    deb_of(&[("debian-binary", b"2.0\n"), ("control.tar.xz", &control), ("data.tar.xz", &data)])
}

/// Bakes an image of this one package, for which its hash vouches; it must be refused.
fn refused(bytes: &[u8]) -> Failure {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    let order = order(Path::new("/"), &["evil"]);
    let package = LockedPackage {
        name: "evil".into(),
        version: "1".into(),
        architecture: "all".into(),
        suite: "bookworm".into(),
        path: "pool/evil.deb".into(),
        size: bytes.len() as u64,
        sha256: Sha256::of(bytes),
    };
    store.put_package(&package.sha256, &mut &bytes[..]).unwrap();
    let image = LockedImage {
        request: order.lock_request(),
        oci: None,
        handmade: None,
        indexes: Vec::new(),
        packages: vec![package],
    };
    let lock = Lock { images: [(order.image.clone(), image)].into(), ..Lock::default() };
    let failure = try_bake(&order, &lock, &store).unwrap_err();
    assert_eq!(failure.code, ExitCode::Bake, "{failure:?}");
    assert_eq!(store.images().unwrap(), []);
    assert_eq!(store.verify().unwrap(), []);
    failure
}

/// Refuses `bytes` for this reason, and says of which package it speaks.
fn assert_refused(bytes: &[u8], why: &str) {
    let failure = refused(bytes);
    let said = format!("{}: {}", failure.message, failure.causes.join(": "));
    assert!(said.contains(why) && said.contains("evil"), "expected `{why}`, and it said: {said}");
}

#[test]
fn nothing_leaves_the_tree_and_nothing_links_to_nowhere() {
    let file = |path| Entry(EntryType::Regular, path, "", b"x");
    assert_refused(&deb(&[file("../../etc/passwd")]), "outside of any tree");
    assert_refused(&deb(&[file("./usr/../../etc/passwd")]), "outside of any tree");
    assert_refused(&deb(&[Entry(EntryType::Link, "./a", "./nowhere", b"")]), "another name of /nowhere");
    assert_refused(&deb(&[Entry(EntryType::Link, "./a", "../../../etc/shadow", b"")]), "outside of any tree");
    assert_refused(&deb(&[Entry(EntryType::Symlink, "./a", "", b"")]), "link to nothing");
    assert_refused(&deb(&[file("./a"), file("./a")]), "lists /a twice");
    assert_refused(&deb(&[Entry(EntryType::new(b'M'), "./a", "", b"")]), "of a kind");
}

#[test]
fn a_package_is_whole_and_the_one_it_says() {
    let whole = deb(&[Entry(EntryType::Regular, "./usr/share/x", "", &[7; 200_000])]);
    assert_refused(&whole[..whole.len() - 40], "ends in the middle of a member");
    assert_refused(&whole[..100], "could not read");
    let mut flipped = whole.clone();
    let at = flipped.len() - 60;
    flipped[at] ^= 0x10;
    assert_refused(&flipped, "could not");
    assert_refused(b"<html>not found</html>", "no archive");
    assert_refused(b"", "no archive");
    // Names that are too long for their field have other forms, and packages have none of them.
    for name in ["//", "/0", "#1/14"] {
        assert_refused(
            &deb_of(&[("debian-binary", b"2.0\n"), (name, b"control.tar.xz")]),
            "unknown or repeated",
        );
    }
    let (other, data) = (control("innocent"), xz(&tar(&[])));
    let impostor = deb_of(&[("debian-binary", b"2.0\n"), ("control.tar.xz", &other), ("data.tar.xz", &data)]);
    assert_refused(&impostor, "says of itself that it is `innocent 1 all`");
    assert_refused(&deb_of(&[("debian-binary", b"2.0\n"), ("control.tar.xz", &other)]), "lacks");
    assert_refused(&deb_of(&[("debian-binary", b"3.0\n")]), "not of format 2");
    assert_refused(&deb_of(&[("debian-binary", b"2.0\n"), ("data.tar.rar", b"")]), "with rar");
}

#[test]
fn a_package_does_not_grow_without_bound() {
    let zeroes = vec![0; 80 << 20];
    assert_refused(&deb(&[Entry(EntryType::Regular, "./zeroes", "", &zeroes)]), "larger than any package");
    // It only claims to be that long.
    let mut claim = tar(&[Entry(EntryType::Regular, "./claim", "", b"x")]);
    let mut header =
        tar::Header::from_byte_slice(&claim[..512].try_into().map(|h: [u8; 512]| h).unwrap()).clone();
    header.set_size(1 << 40);
    header.set_cksum();
    claim[..512].copy_from_slice(header.as_bytes());
    let (control, data) = (control("evil"), xz(&claim));
    let deb = deb_of(&[("debian-binary", b"2.0\n"), ("control.tar.xz", &control), ("data.tar.xz", &data)]);
    assert_refused(&deb, "larger than any package");
}

#[test]
fn members_of_zstd_are_held_to_the_same() {
    let with = |data: &[u8]| {
        let control = zst(&tar(&[Entry(
            EntryType::Regular,
            "./control",
            "",
            b"Package: evil\nVersion: 1\nArchitecture: all\n",
        )]));
        deb_of(&[("debian-binary", b"2.0\n"), ("control.tar.zst", &control), ("data.tar.zst", data)])
    };
    let noise: Vec<u8> = (0..200_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let data = zst(&tar(&[Entry(EntryType::Regular, "./usr/share/x", "", &noise)]));
    assert_refused(&with(&data[..data.len() / 2]), "could not");
    let mut flipped = data.clone();
    let middle = flipped.len() / 2;
    flipped[..middle][8..].fill(0xff);
    assert_refused(&with(&flipped), "could not");
    assert_refused(&with(b"no zstd at all"), "could not read");
    assert_refused(&with(&zst(&tar(&[Entry(EntryType::Regular, "../x", "", b"")]))), "outside of any tree");
    let zeroes = zst(&tar(&[Entry(EntryType::Regular, "./zeroes", "", &vec![0; 80 << 20])]));
    assert_refused(&with(&zeroes), "larger than any package");
}
