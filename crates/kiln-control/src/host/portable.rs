//! Releases as files: export and import.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use kiln_model::{
    Answer, AppName, ExitCode, ExportAnswer, Failure, ImportAnswer, Record, ReleaseId, SecretName,
    SecretValue, SecretVersion,
};
use kiln_store::age::{AgeError, Identity, Recipient};
use kiln_store::boundary::stored;
use kiln_store::{Imported, SecretsOfImport, Store, StoreError, has_no_space};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open};
use rustix::io::Errno;

use super::{LocalHost, failure};
use crate::contract::{Caller, EventSink};
use crate::sync::lock;
use crate::world::Clock;

impl LocalHost {
    pub(crate) fn export(
        &self,
        app: Option<AppName>,
        given: &str,
        file: &Path,
        secrets_to: &[String],
    ) -> Result<Answer, Failure> {
        let recipients = recipients(secrets_to)?;
        let app = self.app(app)?;
        let _use = self.store.while_in_use().map_err(|e| failure::store(&e))?;
        let document = self.named(&app, given)?;
        if !recipients.is_empty() {
            self.has_its_secrets(&document)?;
        }
        let release = document.id();
        let log = self.extract(&release)?;
        let bytes = write_whole(file, |out| {
            let written = self.store.export_release(&release, &log, &recipients, out, file);
            written.map_err(|e| not_exported(&e, file))
        })?;
        let is_in_it = !recipients.is_empty();
        let secrets = document.secrets().into_iter().filter(|_| is_in_it).map(|(name, _)| name.clone());
        let secrets = secrets.collect::<BTreeSet<_>>().into_iter().collect();
        Ok(Answer::Exported(ExportAnswer { release, file: file.to_owned(), bytes, secrets }))
    }

    /// What the log has of a release: its operations as `kiln log --json` shows them, one a line.
    fn extract(&self, release: &ReleaseId) -> Result<Vec<u8>, Failure> {
        self.operations(|entries| {
            let mut lines = Vec::new();
            for entry in entries.iter().filter(|entry| entry.to.as_ref() == Some(release)) {
                lines.extend_from_slice(&serde_json::to_vec(entry).expect("entries are plain data"));
                lines.push(b'\n');
            }
            lines
        })
    }

    pub(crate) fn import(
        &self,
        file: &Path,
        identity: Option<&SecretValue>,
        without_secrets: bool,
        (by, events): (&Caller, &dyn EventSink),
    ) -> Result<Answer, Failure> {
        let note = &mut |record: &Record| {
            lock(&self.driver.core).note(record).map_err(|trouble| {
                Failure::new(ExitCode::Host, "the import could not be written into the log")
                    .because(trouble.0)
            })
        };
        let wanted = Wanted { file, identity, without_secrets, is_called_off: &|| events.gone() };
        import(&self.store, &wanted, by, &self.clock, note).map(Answer::Imported)
    }
}

/// What is to be imported.
pub(super) struct Wanted<'a> {
    pub(super) file: &'a Path,
    pub(super) identity: Option<&'a SecretValue>,
    pub(super) without_secrets: bool,
    pub(super) is_called_off: &'a dyn Fn() -> bool,
}

/// Of what is imported; ends where that is called off.
struct Reading<'a> {
    file: File,
    is_called_off: &'a dyn Fn() -> bool,
}

impl Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if (self.is_called_off)() {
            return Err(io::Error::other("called off"));
        }
        self.file.read(buffer)
    }
}

/// Writes an entry into the log.
type Note<'a> = &'a mut dyn FnMut(&Record) -> Result<(), Failure>;

/// Takes a release in, with its secrets if they are wanted, and has the log tell of it.
pub(super) fn import(
    store: &Store,
    wanted: &Wanted<'_>,
    by: &Caller,
    clock: &dyn Clock,
    note: Note<'_>,
) -> Result<ImportAnswer, Failure> {
    let _use = store.while_in_use().map_err(|e| failure::store(&e))?;
    let Imported { app, release, secrets } = take_in(store, wanted)?;
    let secrets = keep_secrets(store, &app, secrets, by, clock, note)?;
    let (at, by) = (clock.now(), by.author());
    note(&Record::Imported { at, by, app: app.clone(), release: release.clone() })?;
    let document = store.release(&release).map_err(|e| failure::store(&e))?;
    // What does not open is as good as not there: setting it again gives the same version.
    let is_shut =
        |(name, version): &(&SecretName, &SecretVersion)| store.secret(&app, name, version).is_err();
    let missing = document.secrets().into_iter().filter(is_shut).map(|(name, _)| name.clone());
    let missing_secrets = missing.collect();
    Ok(ImportAnswer { app, release, secrets, missing_secrets })
}

fn take_in(store: &Store, wanted: &Wanted<'_>) -> Result<Imported, Failure> {
    let file = wanted.file;
    let identities = wanted.identity.map(identities).transpose()?;
    let secrets = match &identities {
        Some(identities) => SecretsOfImport::OpenedBy(identities),
        None if wanted.without_secrets => SecretsOfImport::LeftOut,
        None => SecretsOfImport::Unsaid,
    };
    let opened = File::open(file).map_err(|e| {
        Failure::new(ExitCode::Usage, format!("could not open {}", file.display())).because(e.to_string())
    })?;
    if opened.metadata().is_ok_and(|found| found.is_dir()) {
        let message = format!("could not import {}, which is a directory", file.display());
        return Err(Failure::new(ExitCode::Usage, message).hint("give the file that `kiln export` wrote"));
    }
    let reading = Reading { file: opened, is_called_off: wanted.is_called_off };
    let mut from = BufReader::with_capacity(1 << 20, reading);
    let import = || store.import_release(&mut from, file, secrets, &kiln_bake::objects_of_foreign);
    stored(|| store.root().join("objects"), import).map_err(|e| match (wanted.is_called_off)() {
        true => failure::cancelled(),
        false => refused(&e),
    })
}

/// Keeps values that came with a release; which secrets' they are.
fn keep_secrets(
    store: &Store,
    app: &AppName,
    secrets: Vec<(SecretName, SecretVersion, SecretValue)>,
    by: &Caller,
    clock: &dyn Clock,
    note: Note<'_>,
) -> Result<Vec<SecretName>, Failure> {
    let mut kept = Vec::new();
    for (name, version, value) in secrets {
        let at = clock.now();
        let keep = || store.keep_secret(app, &name, &value, at, &by.name);
        let is_new = stored(|| store.root().join("secrets"), keep).map_err(|e| failure::store(&e))?;
        if is_new {
            let (by, app, version) = (by.author(), app.clone(), Some(version));
            note(&Record::SecretSet { at, by, app, name: name.clone(), version })?;
        }
        kept.push(name);
    }
    Ok(kept)
}

/// What to do about a full disk that is the one of the file, whatever becomes of the store's.
const NO_SPACE_THERE: &str = "free space on the disk of that file, or name one on another disk with -o, then try again; nothing of it is left";

/// Only the file itself is called by its path.
fn not_exported(error: &StoreError, file: &Path) -> Failure {
    match error {
        StoreError::NoSpace { path, .. } if path == file => {
            Failure::from_error(ExitCode::Host, error).hint(NO_SPACE_THERE)
        }
        error => failure::store(error),
    }
}

/// Has `write` fill a draft beside `file` and gives it that name when it is whole: whoever finds the file finds all of it.
fn write_whole<T>(
    file: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let draft = draft_of(file)?;
    is_to_be_replaced(file)?;
    let unable = |e: io::Error| {
        let failure = Failure::new(ExitCode::Host, format!("could not write {}", file.display()))
            .because(format!("{}: {e}", draft.display()));
        if has_no_space(&e) { failure.hint(NO_SPACE_THERE) } else { failure }
    };
    let (opened, mut draft) = Draft::begin(draft.clone()).map_err(unable)?;
    let mut out = BufWriter::with_capacity(1 << 20, opened);
    let written = write(&mut out)?;
    out.flush().and_then(|()| out.get_ref().sync_all()).map_err(unable)?;
    draft.place(out.get_ref(), file).map_err(unable)?;
    Ok(written)
}

/// The name of what is being written, once it has one, which goes with this value. Where the disk can do that it has none
/// until it is whole: whoever is killed meanwhile leaves nothing.
struct Draft {
    path: PathBuf,
    has_name: bool,
}

impl Draft {
    fn begin(path: PathBuf) -> io::Result<(File, Self)> {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        match open(dir_of(&path), flags, Mode::from_raw_mode(0o600)) {
            Ok(file) => Ok((file.into(), Self { path, has_name: false })),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                // One that is there is somebody else's, or leads elsewhere.
                let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
                Ok((file, Self { path, has_name: true }))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives what was written the name of `file`, in the place of what has it.
    fn place(&mut self, written: &File, file: &Path) -> io::Result<()> {
        if !self.has_name {
            let whole = format!("/proc/self/fd/{}", written.as_raw_fd());
            linkat(CWD, whole, CWD, &self.path, AtFlags::SYMLINK_FOLLOW)?;
            self.has_name = true;
        }
        fs::rename(&self.path, file)?;
        self.has_name = false;
        File::open(dir_of(file))?.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.has_name {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What is renamed to a name takes the place of what had it: of a file, as is wanted; of `/dev/null` for everybody.
fn is_to_be_replaced(file: &Path) -> Result<(), Failure> {
    let kind = match fs::symlink_metadata(file) {
        Ok(there) => there.file_type(),
        Err(_) => return Ok(()),
    };
    let what = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a directory",
        kind if kind.is_symlink() => "a symbolic link, which is not followed",
        kind if kind.is_block_device() || kind.is_char_device() => "a device",
        _ => "a pipe or a socket",
    };
    Err(Failure::new(ExitCode::Usage, format!("could not write {}: it is {what}", file.display()))
        .hint("give the name of a file, which is replaced, or one that nothing has yet"))
}

/// The whole name and more, so that two files that are written at once have a draft each.
fn draft_of(file: &Path) -> Result<PathBuf, Failure> {
    let Some(name) = file.file_name() else {
        return Err(Failure::new(ExitCode::Usage, format!("{} is not the name of a file", file.display())));
    };
    let mut draft = name.to_owned();
    draft.push(format!(".{}.kiln-draft", std::process::id()));
    Ok(file.with_file_name(draft))
}

fn dir_of(file: &Path) -> &Path {
    file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn recipients(given: &[String]) -> Result<Vec<Recipient>, Failure> {
    let parse = |text: &String| {
        text.parse().map_err(|e: AgeError| {
            Failure::new(ExitCode::Usage, e.to_string()).hint("give --secrets-to a public key of age")
        })
    };
    given.iter().map(parse).collect()
}

fn identities(given: &SecretValue) -> Result<Vec<Identity>, Failure> {
    let wrong = |cause: String| {
        Failure::new(ExitCode::Usage, "the identity cannot be used; nothing was imported").because(cause)
    };
    let text = std::str::from_utf8(given.reveal()).map_err(|_| wrong("it is no text".into()))?;
    Identity::read(text).map_err(|e| wrong(e.to_string()))
}

/// A file that is not what was exported is the file's fault, not the store's.
fn refused(error: &StoreError) -> Failure {
    match error {
        StoreError::SealedSecrets { .. } => Failure::from_error(ExitCode::Usage, error).hint(
            "nothing was imported; give --identity FILE to take them, or --without-secrets to leave them",
        ),
        StoreError::CannotOpen { .. } => Failure::from_error(ExitCode::Usage, error)
            .hint("nothing was imported; give --identity the file with the key they were encrypted to"),
        StoreError::NoExport { .. } => Failure::from_error(ExitCode::Spec, error)
            .hint("`kiln export RELEASE -o FILE` on the machine that has it writes one"),
        StoreError::Damaged { .. } => Failure::from_error(ExitCode::Spec, error)
            .hint("nothing was imported; get the file again, or export it again"),
        _ => failure::store(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn files_written_at_once_have_a_draft_each_and_follow_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("shop-1.2"), dir.path().join("shop-1.3"));
        let written = write_whole(&one, |a| {
            write_whole(&two, |b| b.write_all(b"two").map_err(|e| panic!("{e}")))?;
            a.write_all(b"one").map_err(|e| panic!("{e}"))
        });
        assert_eq!(written, Ok(()));
        assert_eq!((fs::read(&one).unwrap(), fs::read(&two).unwrap()), (b"one".into(), b"two".into()));
        assert_eq!(fs::metadata(&one).unwrap().permissions().mode() & 0o777, 0o600);
        // What a process that is killed in the middle leaves behind: nothing.
        write_whole(&one, |out| {
            out.write_all(&vec![1; 3 << 20]).unwrap();
            assert!(!draft_of(&one)?.exists());
            Ok(())
        })
        .unwrap();
        fs::write(&one, b"one").unwrap();
        let elsewhere = dir.path().join("elsewhere");
        symlink(&elsewhere, draft_of(&one).unwrap()).unwrap();
        let failure = write_whole(&one, |_| Ok(())).unwrap_err();
        assert_eq!(failure.code, ExitCode::Host);
        assert!(!elsewhere.exists() && fs::read(&one).unwrap() == b"one", "{failure:?}");
        fs::remove_file(draft_of(&one).unwrap()).unwrap();
        let given_up = write_whole(&one, |_| Err::<(), _>(Failure::new(ExitCode::Bug, "no")));
        assert_eq!(given_up.unwrap_err().code, ExitCode::Bug);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no draft is left");
        assert_eq!(write_whole(Path::new("/"), |_| Ok(())).unwrap_err().code, ExitCode::Usage);
    }

    #[test]
    fn only_a_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("old"), "old").unwrap();
        fs::create_dir(at("dir")).unwrap();
        symlink(at("old"), at("link")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        let pipe = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let device = rustix::fs::makedev(1, 3);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("null"),
            rustix::fs::FileType::CharacterDevice,
            0o666.into(),
            device,
        )
        .unwrap();
        let kinds =
            || ["dir", "link", "dangling", "socket", "null"].map(|n| fs::symlink_metadata(at(n)).unwrap());
        let before = kinds().map(|kind| kind.file_type());
        for (name, says) in [
            ("dir", "a directory"),
            ("link", "a symbolic link"),
            ("dangling", "a symbolic link"),
            ("socket", "a socket"),
            ("null", "a device"),
        ] {
            let failure = write_whole(&at(name), |_| Ok(())).unwrap_err();
            assert_eq!(failure.code, ExitCode::Usage);
            assert!(failure.message.contains(&*at(name).to_string_lossy()), "{failure:?}");
            assert!(failure.message.contains(says), "{failure:?}");
        }
        assert_eq!(kinds().map(|kind| kind.file_type()), before);
        assert_eq!(fs::read(at("old")).unwrap(), b"old");
        assert_eq!(write_whole(&at("old"), |_| Ok(())), Ok(()));
        assert_eq!(fs::read(at("old")).unwrap(), b"");
        drop(pipe);
    }
}
