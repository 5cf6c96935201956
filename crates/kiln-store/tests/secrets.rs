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
    assert_eq!(store.secret_versions(&app()).unwrap()[&name()], second.version);
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
    assert_eq!(store.secret_versions(&app()).unwrap()[&name()], first.version, "the one before is present");
    let missing = store.removal_of_secret(&app(), &"NONE".parse().unwrap(), None, &nobody).unwrap_err();
    assert!(matches!(missing, StoreError::NoSuchSecret { .. }));
    let removed = store.removal_of_secret(&app(), &name(), None, &nobody).unwrap().carry_out().unwrap();
    assert_eq!(removed.into_iter().collect::<Vec<_>>(), [first.version], "no release that holds it");
}
