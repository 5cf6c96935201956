//! Secrets at rest.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kiln_model::{AppName, Millis, PinnedSecret, Release, SecretName, SecretValue, Timestamp};
use kiln_store::{Holders, Store, StoreError};
use support::Scratch;

const AT: Timestamp = Timestamp(1_790_000_000_000);

fn app() -> AppName {
    "hello".parse().unwrap()
}

fn name() -> SecretName {
    "API_KEY".parse().unwrap()
}

fn value(text: &str) -> SecretValue {
    SecretValue::new(text.as_bytes().to_vec()).unwrap()
}

fn set(store: &Store, text: &str) -> kiln_store::SecretRecord {
    store.set_secret(&app(), &name(), &value(text), AT, "root").unwrap().0
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries.flat_map(|p| if p.is_dir() { files(&p) } else { vec![p] }).collect()
}

#[test]
fn versions_are_kept_and_the_last_one_set_is_present() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let (first, second) = (set(&store, "one"), set(&store, "two"));
    assert_ne!(first.version, second.version);
    assert_eq!((first.number, second.number), (1, 2));
    assert_eq!(store.present_secrets(&app()).unwrap().versions[&name()], second.version);
    let read = |v| store.secret(&app(), &name(), v).unwrap();
    assert_eq!((read(&first.version), read(&second.version)), (value("one"), value("two")));
    let again = store.set_secret(&app(), &name(), &value("two"), AT, "root").unwrap();
    assert_eq!(again, (second.clone(), false), "nothing has changed");
    let back = set(&store, "one");
    assert_eq!((back.number, &back.version), (3, &first.version), "the same value is the same version");
    assert_eq!(store.secrets(&app()).unwrap().len(), 3);
    let elsewhere = Scratch::new();
    assert_eq!(set(&elsewhere.open(), "one").version, first.version, "on every machine");
}

#[test]
fn nothing_on_the_disk_shows_a_value() {
    let scratch = Scratch::new();
    let store = scratch.open();
    set(&store, "a-value-nobody-would-guess");
    let all = files(store.root());
    for file in &all {
        let bytes = fs::read(file).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let hex: String = b"a-value-nobody".iter().map(|b| format!("{b:02x}")).collect();
        assert!(!text.contains("a-value-nobody") && !text.contains(&hex), "{}", file.display());
    }
    let secret = |p: &&PathBuf| p.starts_with(store.root().join("secrets")) && !p.ends_with("lock");
    let kept: Vec<_> = all.iter().filter(secret).collect();
    assert_eq!(kept.len(), 2, "the key and the secret: {kept:?}");
    for file in kept {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o7777, 0o600, "{}", file.display());
    }
}

#[test]
fn another_key_or_another_place_opens_nothing() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let record = set(&store, "one");
    let dir = store.root().join("secrets/hello/API_KEY");
    let other = store.root().join("secrets/hello/OTHER");
    fs::create_dir(&other).unwrap();
    let text = fs::read_to_string(dir.join("1.json")).unwrap().replace("API_KEY", "OTHER");
    fs::write(other.join("1.json"), text).unwrap();
    let moved = store.secret(&app(), &"OTHER".parse().unwrap(), &record.version).unwrap_err();
    assert!(matches!(moved, StoreError::Key { .. }), "{moved}");
    let key = store.root().join("secrets/key");
    fs::write(&key, format!("{}\n", "ab".repeat(32))).unwrap();
    assert!(matches!(store.secret(&app(), &name(), &record.version), Err(StoreError::Key { .. })));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let readable = store.secret(&app(), &name(), &record.version).unwrap_err().to_string();
    assert!(readable.contains("others may read it"), "{readable}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, "short\n").unwrap();
    let short = store.secret(&app(), &name(), &record.version).unwrap_err().to_string();
    assert!(short.contains("64 hex digits"), "{short}");
}

#[test]
fn what_a_kept_release_needs_is_not_removed() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let (first, second) = (set(&store, "one"), set(&store, "two"));
    let text = include_str!("../../kiln-model/tests/fixtures/release-2.json");
    let mut release: Release = Release::decode(text.trim_end().as_bytes()).unwrap();
    release.drain = Millis(1);
    let web = release.services.values_mut().next().unwrap();
    web.secrets.insert(name(), PinnedSecret { version: first.version.clone(), env: None });
    let id = store.put_release(&release).unwrap();
    let nobody = Holders::These(BTreeSet::new());
    for holders in [Holders::These(BTreeSet::from([id.clone()])), Holders::All] {
        for version in [None, Some(&first.version)] {
            let refused = store.removal_of_secret(&app(), &name(), version, &holders).unwrap_err();
            assert!(refused.to_string().contains(id.as_str()), "{refused}");
        }
    }
    assert_eq!(store.secrets(&app()).unwrap().len(), 2, "nothing was removed");
    let removed = store
        .removal_of_secret(&app(), &name(), Some(&second.version), &Holders::All)
        .unwrap()
        .carry_out()
        .unwrap();
    assert_eq!(removed.into_iter().collect::<Vec<_>>(), [second.version]);
    assert_eq!(
        store.present_secrets(&app()).unwrap().versions[&name()],
        first.version,
        "the one before is present"
    );
    let missing = store.removal_of_secret(&app(), &"NONE".parse().unwrap(), None, &nobody).unwrap_err();
    assert!(matches!(missing, StoreError::NoSuchSecret { .. }));
    let removed = store.removal_of_secret(&app(), &name(), None, &nobody).unwrap().carry_out().unwrap();
    assert_eq!(removed.into_iter().collect::<Vec<_>>(), [first.version], "no release that holds it");
}

/// The file of a setting.
fn setting(store: &Store, number: u64) -> PathBuf {
    store.root().join(format!("secrets/hello/API_KEY/{number}.json"))
}

#[test]
fn a_key_that_is_gone_is_only_made_again_when_asked() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let record = set(&store, "one");
    let key = store.root().join("secrets/key");
    let old = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    let refused = |error: StoreError| {
        assert!(matches!(&error, StoreError::NoKey { path } if *path == key), "{error}");
        assert!(!key.exists(), "a new one would hide that the old one is gone");
    };
    refused(store.set_secret(&app(), &name(), &value("one"), AT, "root").unwrap_err());
    refused(store.keep_secret(&app(), &name(), &value("two"), AT, "root").unwrap_err());
    refused(store.secret(&app(), &name(), &record.version).unwrap_err());
    let present = store.present_secrets(&app()).unwrap();
    assert!(present.versions.is_empty() && present.shut.contains_key(&name()), "{present:?}");
    let problem = |store: &Store| store.secret_settings(&app()).unwrap().pop().unwrap().problem;
    refused(problem(&store).unwrap());
    // Back from a backup, everything is as it was.
    fs::write(&key, &old).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(!store.replace_lost_key().unwrap(), "it is there");
    assert_eq!(store.secret(&app(), &name(), &record.version).unwrap(), value("one"));

    fs::remove_file(&key).unwrap();
    assert!(store.replace_lost_key().unwrap());
    assert!(matches!(problem(&store), Some(StoreError::Key { .. })), "what was sealed with the old one");
    let (again, changed) = store.set_secret(&app(), &name(), &value("one"), AT, "root").unwrap();
    assert!(changed && (again.number, &again.version) == (2, &record.version), "{again:?}");
    assert_eq!(store.secret(&app(), &name(), &record.version).unwrap(), value("one"));
    assert!(!setting(&store, 1).exists(), "the same value, which nothing opens any more");
    assert!(problem(&store).is_none());
}

#[test]
fn with_nothing_sealed_a_key_is_made() {
    let scratch = Scratch::new();
    let store = scratch.open();
    set(&store, "one");
    let nobody = Holders::These(BTreeSet::new());
    fs::remove_file(store.root().join("secrets/key")).unwrap();
    store.removal_of_secret(&app(), &name(), None, &nobody).unwrap().carry_out().unwrap();
    set(&store, "two");
}

#[test]
fn a_damaged_setting_is_told_of_and_set_again_and_removed() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let other = "OTHER".parse().unwrap();
    let (first, second) = (set(&store, "one"), set(&store, "two"));
    let kept = store.set_secret(&app(), &other, &value("other"), AT, "root").unwrap().0;
    let whole = fs::read_to_string(setting(&store, 2)).unwrap();
    let at = whole.find("\"sealed\": \"").unwrap() + 11;
    let flipped = if &whole[at..=at] == "0" { "1" } else { "0" };
    let flipped = format!("{}{flipped}{}", &whole[..at], &whole[at + 1..]);
    for damaged in [&whole[..whole.len() / 2], "", &flipped] {
        fs::write(setting(&store, 2), damaged).unwrap();
        let present = store.present_secrets(&app()).unwrap();
        assert_eq!(present.versions.keys().collect::<Vec<_>>(), [&other], "not the one before: {present:?}");
        assert!(present.shut[&name()].to_string().contains("API_KEY/2.json"), "{present:?}");
        let all = store.secret_settings(&app()).unwrap();
        let told: Vec<_> = all.iter().map(|s| (s.number, s.problem.is_some())).collect();
        assert_eq!(told, [(1, false), (2, true), (1, false)]);
        assert_eq!(store.secret(&app(), &name(), &first.version).unwrap(), value("one"));
        assert!(store.secret(&app(), &name(), &second.version).is_err());
        let again = set(&store, "two");
        assert_eq!((again.number, &again.version), (3, &second.version));
        assert_eq!(store.secret(&app(), &name(), &second.version).unwrap(), value("two"));
        assert!(!setting(&store, 2).exists(), "nobody needs it any more");
        fs::rename(setting(&store, 3), setting(&store, 2)).unwrap();
        fs::write(setting(&store, 2), &whole).unwrap();
    }
    fs::write(setting(&store, 2), "").unwrap();
    assert!(store.keep_secret(&app(), &name(), &value("three"), AT, "root").is_err(), "what is present?");
    let nobody = Holders::These(BTreeSet::new());
    store.removal_of_secret(&app(), &name(), None, &nobody).unwrap().carry_out().unwrap();
    assert_eq!(store.secrets(&app()).unwrap(), [kept]);
    assert!(!setting(&store, 2).exists());
}

#[test]
fn a_verify_opens_secrets_and_misses_their_key_once() {
    let scratch = Scratch::new();
    let store = scratch.open();
    set(&store, "one");
    set(&store, "two");
    let (looked_at, found) = store.verify_counted().unwrap();
    assert_eq!((looked_at, &found[..]), (2, &[][..]));
    let whole = fs::read_to_string(setting(&store, 1)).unwrap();
    fs::write(setting(&store, 1), whole.replace("root", "toor")).unwrap();
    let found = store.verify().unwrap();
    assert_eq!(found.iter().map(|d| &d.path).collect::<Vec<_>>(), [&setting(&store, 1)], "{found:?}");
    let key = store.root().join("secrets/key");
    fs::remove_file(&key).unwrap();
    let found = store.verify().unwrap();
    assert_eq!(found.iter().map(|d| &d.path).collect::<Vec<_>>(), [&key], "{found:?}");
}
