//! Releases as files: damaged in every way, and with secrets in them.

#[path = "support/sample.rs"]
mod sample;
mod support;

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use kiln_model::{ImageDigest, PinnedSecret, Release, SecretValue, Sha256, Timestamp};
use kiln_store::age::{AgeError, Identity};
use kiln_store::{SecretsOfImport, Store, StoreError, any_bytes};
use support::Scratch;

const AT: Timestamp = Timestamp(1);

fn ours() -> Vec<Identity> {
    Identity::read(any_bytes::IDENTITY).unwrap()
}

/// A release that needs a secret, and the file it is exported to.
fn exported(store: &Store, secret: Option<&str>) -> (Release, Vec<u8>) {
    let (_, mut release) = sample::with_release(store, "one");
    let mut recipients = Vec::new();
    if let Some(text) = secret {
        let (app, name) = (release.app.clone(), "API_KEY".parse().unwrap());
        let value = SecretValue::new(text.as_bytes().to_vec()).unwrap();
        let (record, _) = store.set_secret(&app, &name, &value, AT, "ann").unwrap();
        let pinned = PinnedSecret { version: record.version, env: None };
        release.services.values_mut().next().unwrap().secrets = [(name, pinned)].into();
        store.put_release(&release).unwrap();
        recipients.push(ours()[0].recipient());
    }
    let mut file = Vec::new();
    let bytes = store.export_release(&release.id(), b"", &recipients, &mut file, Path::new("file")).unwrap();
    assert_eq!(bytes, file.len() as u64);
    (release, file)
}

/// The image of a release, the file that is exported to, and where nothing is yet.
fn sent() -> (ImageDigest, Vec<u8>, Scratch) {
    let (release, file) = exported(&Scratch::new().open(), None);
    (release.services.values().next().unwrap().image, file, Scratch::new())
}

fn import(
    store: &Store,
    file: &[u8],
    secrets: SecretsOfImport<'_>,
) -> Result<kiln_store::Imported, StoreError> {
    let sound = |metadata: &[u8], _: &_| Ok(any_bytes::named_in(metadata));
    store.import_release(&mut &*file, Path::new("file"), secrets, &sound)
}

/// The same numbers each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

/// The same call as the fuzz target `export`: what is damaged is refused, or the damage was where nothing is.
#[test]
fn a_damaged_export_is_refused_or_nothing_is_lost_of_it() {
    let from = Scratch::new();
    // To see whether a secret is what it says costs as much as a guess is to cost: few of those.
    let long = if std::env::var_os("KILN_LONG").is_some() { 20 } else { 1 };
    batter(&exported(&from.open(), None).1, 1_500 * long);
    batter(&exported(&from.open(), Some("sesame, open")).1, 40 * long);
}

fn batter(file: &[u8], times: usize) {
    let mut to = Scratch::new();
    let mut store = to.open();
    assert!(any_bytes::export(file, &store), "as it is it is taken");
    let (mut dice, mut taken) = (Dice(0x9e37_79b9_7f4a_7c15), 1);
    for _ in 0..times {
        if taken > 0 {
            (to, taken) = (Scratch::new(), 0);
            store = to.open();
        }
        let mut bytes = file.to_vec();
        for _ in 0..1 + dice.below(4) {
            let at = dice.below(bytes.len());
            match dice.below(5) {
                0 => bytes.truncate(at),
                1 => drop(bytes.splice(at..at, [0; 512])),
                2 => drop(bytes.drain(at..(at + 512).min(bytes.len()))),
                _ if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
                _ => {}
            }
        }
        taken += usize::from(any_bytes::export(&bytes, &store));
    }
}

/// The file with what `change` makes of the member whose name ends like this; sizes and hashes around it fit.
fn forged(file: &[u8], member: &str, change: impl Fn(&str) -> String) -> Vec<u8> {
    let mut members: Vec<(String, Vec<u8>)> = Vec::new();
    for entry in tar::Archive::new(file).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        members.push((name, bytes));
    }
    let at = members.iter().position(|(name, _)| name.ends_with(member)).unwrap();
    let before = members[at].1.clone();
    members[at].1 = change(std::str::from_utf8(&before).unwrap()).into_bytes();
    assert_ne!(members[at].1, before, "{member} is forged");
    let mut manifest: serde_json::Value = serde_json::from_slice(&members[0].1).unwrap();
    manifest["members"][at - 1]["bytes"] = members[at].1.len().into();
    manifest["members"][at - 1]["sha256"] = Sha256::of(&members[at].1).hex().into();
    members[0].1 = serde_json::to_vec(&manifest).unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in &members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Whoever made the file says of an image only what the image says itself.
#[test]
fn an_import_changes_nothing_about_images_and_finds_none_by_inputs_it_claims() {
    let (image, file, to) = sent();
    let store = to.open();
    let taken = |bytes: &[u8]| import(&store, bytes, SecretsOfImport::LeftOut);
    let fewer = |text: &str| text.split_inclusive('\n').skip(1).collect::<String>();

    let refused = taken(&forged(&file, "/objects", fewer)).unwrap_err().to_string();
    assert!(refused.contains("its list of objects is not"), "{refused}");
    assert_eq!((store.images().unwrap(), store.releases().unwrap()), (vec![], vec![]));

    taken(&file).unwrap();
    let record = store.image(&image).unwrap().unwrap();
    assert_eq!(
        store.image_by_inputs(&record.inputs).unwrap(),
        None,
        "nobody here has seen that they give it"
    );
    assert!(store.has_objects_of(&image).unwrap());

    // The image is here by now: its list and record stay.
    let objects = store.image_objects(&image).unwrap();
    taken(&forged(&file, "/objects", fewer)).unwrap_err();
    let other = |text: &str| text.replace("web", "other");
    taken(&forged(&file, "/record.json", other)).unwrap();
    assert_eq!(store.image_objects(&image).unwrap(), objects);
    assert_eq!(store.image(&image).unwrap().unwrap(), record);

    // Nor is anything of it judged by bytes that are not the image.
    let refused = taken(&forged(&file, "/metadata.erofs", |text| format!("{text}more\n"))).unwrap_err();
    assert!(refused.to_string().contains("the digest of its metadata is"), "{refused}");
}

/// Nor is the file at fault for what cannot be written here.
#[test]
fn what_the_store_cannot_write_is_not_damage_of_the_file() {
    let (image, file, to) = sent();
    let store = to.open();
    // Where a file is to go there is a directory.
    let list = store.root().join("images").join(image.hex()).join("objects");
    std::fs::create_dir_all(&list).unwrap();
    let refused = import(&store, &file, SecretsOfImport::LeftOut).unwrap_err();
    assert!(matches!(&refused, StoreError::Io { path, .. } if *path == list), "{refused:?}");
    assert_eq!((store.images().unwrap(), store.releases().unwrap()), (vec![], vec![]));
    std::fs::remove_dir(&list).unwrap();
    import(&store, &file, SecretsOfImport::LeftOut).unwrap();
}

/// What is damaged of an image that is here is made whole: also a list that reads and is another image's.
#[test]
fn an_import_mends_the_list_of_an_image_that_is_here() {
    let (image, file, to) = sent();
    let store = to.open();
    let taken = || import(&store, &file, SecretsOfImport::LeftOut).unwrap();
    taken();
    let list = store.handle(&image).unwrap().metadata.with_file_name("objects");
    let whole = std::fs::read_to_string(&list).unwrap();
    let shorter = whole.lines().skip(1).map(|line| format!("{line}\n")).collect();
    let longer = format!("{whole}{}\n", Sha256::of(b"nowhere").hex());
    for damaged in [shorter, longer, "no digest\n".to_owned()] {
        std::fs::write(&list, damaged).unwrap();
        taken();
        assert_eq!(std::fs::read_to_string(&list).unwrap(), whole);
    }
    std::fs::remove_file(&list).unwrap();
    taken();
    assert_eq!(std::fs::read_to_string(&list).unwrap(), whole);
}

#[test]
fn a_damaged_release_is_not_exported_as_if_it_were_whole() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let (release, file) = exported(&store, None);
    let export = || {
        let mut file = Vec::new();
        store.export_release(&release.id(), b"", &[], &mut file, Path::new("file")).map(|_| file)
    };
    let image = release.services.values().next().unwrap().image;
    let objects = store.image_objects(&image).unwrap().unwrap();
    for object in &objects {
        let path = store.objects().path(object);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[1..], b"x"].concat()).unwrap();
        let refused = export().unwrap_err();
        assert!(matches!(&refused, StoreError::Damaged { path: named, .. } if *named == path), "{refused:?}");
        std::fs::write(&path, whole).unwrap();
        assert!(export().unwrap() == file, "with the object again it is the same file");
    }
}

/// What was recorded of an image here is not replaced by what a file claims, also where the file mends the rest.
#[test]
fn an_import_that_mends_an_image_leaves_what_is_recorded_of_it_here() {
    let (from, to) = (Scratch::new(), Scratch::new());
    let (_, file) = exported(&from.open(), None);
    let store = to.open();
    let (image, _) = sample::with_release(&store, "one");
    let record = store.image(&image).unwrap().unwrap();
    let dir = store.handle(&image).unwrap().metadata.with_file_name("");
    let other = forged(&file, "/record.json", |text| text.replace(r#"web"#, "other"));
    let taken = || import(&store, &other, SecretsOfImport::LeftOut).unwrap();
    for lost in ["objects", "metadata.erofs"] {
        std::fs::remove_file(dir.join(lost)).unwrap();
        taken();
        assert_eq!(store.image(&image).unwrap().unwrap(), record);
        assert!(store.handle(&image).is_ok() && store.has_objects_of(&image).unwrap());
        assert_eq!(store.image_by_inputs(&record.inputs).unwrap(), Some(record.clone()));
    }
    // Where nothing is recorded any more, what the file claims is, and its inputs are none that were seen to give it.
    std::fs::remove_file(dir.join("record.json")).unwrap();
    taken();
    assert_eq!(store.image(&image).unwrap().unwrap().name.as_str(), "other");
    assert_eq!(store.image_by_inputs(&record.inputs).unwrap(), None);
}

#[test]
fn secrets_travel_encrypted_and_to_nobody_else() {
    let (from, to) = (Scratch::new(), Scratch::new());
    let (release, file) = exported(&from.open(), Some("sesame, open"));
    assert!(!file.windows(6).any(|w| w == b"sesame") && !file.windows(12).any(|w| w == b"736573616d65"));
    let store = to.open();
    let unsaid = import(&store, &file, SecretsOfImport::Unsaid).unwrap_err();
    assert!(matches!(unsaid, StoreError::SealedSecrets { .. }), "{unsaid}");
    let others = Identity::read("AGE-SECRET-KEY-1HWYPCTSFYL48QTUF3KHH4L3GD9ZSA8G57QVEEAXD6QLA2HF6M7WS079LGP");
    let others = others.unwrap_or_else(|e| panic!("{e}"));
    let wrong = import(&store, &file, SecretsOfImport::OpenedBy(&others)).unwrap_err();
    assert!(matches!(wrong, StoreError::CannotOpen { source: AgeError::NotForUs(_), .. }), "{wrong}");
    assert_eq!(store.releases().unwrap(), []);
    let left = import(&store, &file, SecretsOfImport::LeftOut).unwrap();
    assert!(left.secrets.is_empty());
    let imported = import(&store, &file, SecretsOfImport::OpenedBy(&ours())).unwrap();
    let (name, version, value) = &imported.secrets[0];
    assert_eq!((value.reveal(), release.secrets().contains(&(name, version))), (&b"sesame, open"[..], true));
    assert!(store.keep_secret(&release.app, name, value, AT, "ann").unwrap());
    assert_eq!(store.secret(&release.app, name, version).unwrap(), *value);
}

/// Each byte of the encrypted part is held to what was written, although hashes and sizes around it fit.
#[test]
fn secrets_that_were_tampered_with_are_refused_with_the_place() {
    let (from, to) = (Scratch::new(), Scratch::new());
    let (_, file) = exported(&from.open(), Some("sesame, open"));
    let store = to.open();
    let start = file.windows(21).position(|w| w == b"age-encryption.org/v1").unwrap();
    for at in (start..start + 300).step_by(7) {
        let mut bytes = file.clone();
        bytes[at] ^= 1;
        let refused = import(&store, &bytes, SecretsOfImport::OpenedBy(&ours())).unwrap_err();
        let text = refused.to_string();
        let place = matches!(refused, StoreError::Damaged { .. }) && text.contains("secrets.age");
        // A recipient that is another one now is one who cannot open it.
        assert!(place || matches!(refused, StoreError::CannotOpen { .. }), "{at}: {text}");
        assert_eq!(store.releases().unwrap(), []);
    }
}

#[test]
fn what_is_present_stays_present_when_an_older_value_arrives() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let (app, name) = ("hello".parse().unwrap(), "KEY".parse().unwrap());
    let value = |text: &str| SecretValue::new(text.as_bytes().to_vec()).unwrap();
    let (present, _) = store.set_secret(&app, &name, &value("present"), AT, "ann").unwrap();
    assert!(store.keep_secret(&app, &name, &value("older"), AT, "bob").unwrap());
    assert_eq!(store.present_secrets(&app).unwrap().versions[&name], present.version);
    assert_eq!(store.secrets(&app).unwrap().len(), 3, "the older one, and the present one above it");
    assert!(!store.keep_secret(&app, &name, &value("older"), AT, "bob").unwrap(), "it is here already");
}

/// What we encrypt `age` opens, and what it encrypts we open.
#[test]
fn age_is_of_the_same_opinion() {
    let dir = Scratch::new();
    std::fs::create_dir_all(dir.root()).unwrap();
    let key = dir.root().join("key.txt");
    std::fs::write(&key, any_bytes::IDENTITY).unwrap();
    let run = |arguments: &[&str], input: &Path| {
        let output = Command::new("age").args(arguments).arg(input).stdin(Stdio::null()).output();
        let output = output.expect("`cargo xtask setup` installs age");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    for length in [0, 1, 5000, 64 << 10, (64 << 10) + 1, 300_000] {
        let plain: Vec<u8> = (0..length).map(|n| (n * 7 % 256) as u8).collect();
        let file = dir.root().join("file");
        std::fs::write(&file, kiln_store::age::encrypt(&plain, &[ours()[0].recipient()]).unwrap().unwrap())
            .unwrap();
        assert!(run(&["--decrypt", "-i", key.to_str().unwrap()], &file) == plain, "{length} bytes of ours");
        std::fs::write(&file, &plain).unwrap();
        let theirs = run(&["--encrypt", "-r", &ours()[0].recipient().to_string()], &file);
        assert!(*kiln_store::age::decrypt(&theirs, &ours()).unwrap() == plain, "{length} bytes of theirs");
    }
}

/// The same calls as the fuzz target `encrypted`.
#[test]
fn any_bytes_are_opened_or_refused() {
    let sealed = kiln_store::age::encrypt(b"a secret", &[ours()[0].recipient()]).unwrap().unwrap();
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    for _ in 0..5_000 {
        let mut bytes = sealed.clone();
        for _ in 0..1 + dice.below(5) {
            let at = dice.below(bytes.len());
            match dice.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, b'\n'),
                _ if at < bytes.len() => bytes[at] = dice.below(256) as u8,
                _ => {}
            }
        }
        any_bytes::encrypted(&bytes);
        any_bytes::keys(&bytes);
    }
    any_bytes::keys(any_bytes::IDENTITY.as_bytes());
    any_bytes::keys(ours()[0].recipient().to_string().as_bytes());
}

/// What stands between members and after the last belongs to no member, and is held to be what was written all the same.
#[test]
fn not_a_bit_of_padding_is_another() {
    let (from, to) = (Scratch::new(), Scratch::new());
    let (_, file) = exported(&from.open(), None);
    let store = to.open();
    let mut padding: Vec<usize> = (file.len() - 1024..file.len()).step_by(50).collect();
    padding.push(file.len() - 1);
    for entry in tar::Archive::new(&*file).entries().unwrap() {
        let entry = entry.unwrap();
        let end = usize::try_from(entry.raw_file_position() + entry.size()).unwrap();
        padding.extend([end, end.next_multiple_of(512) - 1].into_iter().filter(|_| !end.is_multiple_of(512)));
    }
    for at in padding {
        let mut bytes = file.clone();
        bytes[at] ^= 1;
        let refused = import(&store, &bytes, SecretsOfImport::LeftOut).unwrap_err();
        assert!(matches!(refused, StoreError::Damaged { .. }), "{at} of {}: {refused}", file.len());
    }
    for other in [&file[..file.len() - 512], &[&file[..], b"more"].concat(), &[&file[..], &[0; 512]].concat()]
    {
        let refused = import(&store, other, SecretsOfImport::LeftOut).unwrap_err();
        assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
    }
    assert_eq!(store.releases().unwrap(), []);
    import(&store, &file, SecretsOfImport::LeftOut).unwrap();
}

#[test]
fn a_file_that_ends_in_a_member_says_where() {
    let (from, to) = (Scratch::new(), Scratch::new());
    let (_, file) = exported(&from.open(), Some("sesame, open"));
    let store = to.open();
    let mut cuts = Vec::new();
    for entry in tar::Archive::new(&*file).entries().unwrap().skip(1) {
        let entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let (start, size) = (entry.raw_file_position(), entry.size());
        let inside = [start, start + size / 2, (start + size).saturating_sub(1)];
        cuts.extend(inside.into_iter().filter(|_| size > 0).map(|at| (name.clone(), at)));
    }
    assert!(cuts.len() > 9, "{cuts:?}");
    for (name, at) in cuts {
        let cut = &file[..usize::try_from(at).unwrap()];
        let refused = import(&store, cut, SecretsOfImport::LeftOut).unwrap_err().to_string();
        for part in
            [format!("member `{name}` at byte "), format!("the file ends at byte {at}, in the middle of it")]
        {
            assert!(refused.contains(&part), "`{part}` is not in: {refused}");
        }
    }
}

#[test]
fn what_is_no_export_is_called_that_and_not_damaged() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let mut other = tar::Builder::new(Vec::new());
    other.append_data(&mut tar::Header::new_gnu(), "other", &b""[..]).unwrap();
    let text = "root:x:0:0:root:/root:/bin/bash\n".repeat(40);
    for bytes in [&b""[..], &b"short"[..], text.as_bytes(), &other.into_inner().unwrap()] {
        let refused = import(&store, bytes, SecretsOfImport::LeftOut).unwrap_err();
        assert_eq!(refused.to_string(), "file is no export of a release");
    }
}
