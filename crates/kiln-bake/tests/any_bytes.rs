//! Whatever bytes come from outside: an answer or an error, never a panic, an endless loop or memory without bound.
//!
//! The same calls as the fuzz targets in `fuzz/`, over samples that were damaged a few thousand times, the same way each
//! time.

use std::io::Write;

use kiln_bake::any_bytes as any;

type Target = fn(&[u8]);

/// A generator of numbers that look random: the test does the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

/// Changes bytes, cuts, repeats, and puts in numbers at the edge of what fits.
fn damaged(sample: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    for _ in 0..1 + dice.below(6) {
        let at = dice.below(bytes.len());
        match dice.below(6) {
            0 => bytes.truncate(at),
            1 => {
                let end = (at + dice.below(200)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            2 if bytes.len() > at + 4 => bytes[at..at + 4].copy_from_slice(&[0xff; 4]),
            3 if bytes.len() > at + 4 => bytes[at..at + 4].copy_from_slice(&[0; 4]),
            _ if at < bytes.len() => bytes[at] = dice.below(256) as u8,
            _ => {}
        }
    }
    bytes
}

fn assault(target: Target, sample: &[u8], times: usize) {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    target(sample);
    target(&[]);
    for _ in 0..times {
        target(&damaged(sample, &mut dice));
    }
}

fn times() -> usize {
    if std::env::var_os("KILN_LONG").is_some() { 200_000 } else { 3_000 }
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        builder.append_pax_extensions([("SCHILY.xattr.user.a", &b"two\nlines"[..])]).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_mtime(1);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    builder.append_link(&mut link, "./usr/link", "share").unwrap();
    builder.into_inner().unwrap()
}

fn package(compress: &dyn Fn(&[u8]) -> Vec<u8>, suffix: &str) -> Vec<u8> {
    let control =
        tar(&[("./control", b"Package: a\nVersion: 1\nArchitecture: all\n"), ("./postinst", b"#!/bin/sh\n")]);
    let data = tar(&[("./usr/share/doc/a/copyright", &[b'c'; 700]), ("./usr/bin/a", b"#!/bin/sh\n")]);
    let mut builder = ar::Builder::new(Vec::new());
    let mut add = |name: String, content: &[u8]| {
        builder.append(&ar::Header::new(name.into_bytes(), content.len() as u64), content).unwrap();
    };
    add("debian-binary".into(), b"2.0\n");
    add(format!("control.tar{suffix}"), &compress(&control));
    add(format!("data.tar{suffix}"), &compress(&data));
    builder.into_inner().unwrap()
}

#[test]
fn packages() {
    assault(any::deb, &package(&|b| b.to_vec(), ""), times());
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    assault(any::deb, &package(&gzip, ".gz"), times() / 4);
    let xz = |bytes: &[u8]| {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    assault(any::deb, &package(&xz, ".xz"), times() / 4);
}

#[test]
fn texts() {
    let index = b"Package: a\nVersion: 1\nArchitecture: all\nFilename: a.deb\nSize: 3\nSHA256: 00\nDepends: b (>= 1),\n c\n\n\
        Package: b\nVersion: 2\n";
    let release = b"Origin: Debian\nSuite: stable\nCodename: bookworm\nDate: Sat, 21 Nov 2026 00:53:02 UTC\n\
        Valid-Until: Sat, 28 Nov 2026 00:53:02 UTC\nSHA256:\n 00 12 main/binary-amd64/Packages\n 11 9 main/binary-amd64/Packages.xz\n";
    let copyright = b"Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
        Files: *\nLicense: GPL-2+ or (Expat and ISC)\n text\n .\n more\n\nFiles: b\nLicense: BSD-3-clause\n";
    let signed = b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nSuite: stable\n- --\n\
        -----BEGIN PGP SIGNATURE-----\n\niQIzBAEBCgAdFiEE\n=abcd\n-----END PGP SIGNATURE-----\n";
    assault(any::deb822, index, times());
    assault(any::relation, b"libc6 (>= 2.36), a | b:any (<< 1:2~rc), c [amd64] <!nocheck>\n1:2.3-4", times());
    assault(any::release, release, times());
    assault(any::copyright, copyright, times());
    assault(any::signature, signed, times());
}

#[test]
fn images_and_trees() {
    use kiln_model::{Content, Meta, Node, Tree, Xattrs};
    let meta = |mode| Meta {
        mode,
        uid: 0,
        gid: 0,
        mtime: 7,
        xattrs: Xattrs::from([(b"user.a".to_vec(), vec![1; 9])]),
    };
    let mut tree = Tree::new();
    for (path, node) in [
        ("/", Node::Directory(meta(0o755))),
        ("/a", Node::Directory(meta(0o755))),
        ("/a/b", Node::File(meta(0o644), Content::Inline(vec![b'x'; 100]))),
        ("/a/c", Node::Symlink(meta(0o777), b"b".to_vec())),
        ("/d", Node::Hardlink(b"/a/b".to_vec())),
        ("/null", Node::CharDevice(meta(0o666), 1, 3)),
    ] {
        tree.insert(path, node).unwrap();
    }
    let image = kiln_bake::erofs::write(&tree).unwrap().bytes;
    let end = image.iter().rposition(|b| *b != 0).unwrap() + 1;
    // Damage belongs where the inodes are, and the file must stay whole blocks.
    let mut dice = Dice(7);
    for _ in 0..times() {
        let mut bytes = damaged(&image[1024..end], &mut dice);
        bytes.resize(image.len() - 1024, 0);
        any::image(&[&image[..1024], &bytes].concat());
    }
    assault(any::image, &image, times() / 4);
    assault(
        any::tree,
        b"kiln tree 1\n\x02\0\x01/\0\xed\x03\0\0\0\0\x01\x02/a\x03\xff\x03\0\0\0\0\x01b",
        times(),
    );
}
