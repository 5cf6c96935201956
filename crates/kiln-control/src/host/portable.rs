//! Releases as files: export and import.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use kiln_model::{
    Answer, AppName, ExitCode, ExportAnswer, Failure, ImportAnswer, Record, ReleaseId, SecretName,
    SecretValue, SecretVersion,
};
use kiln_store::age::{AgeError, Identity, Recipient};
use kiln_store::{Imported, SecretsOfImport, StoreError};

use super::{LocalHost, failure};
use crate::contract::Caller;
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
        // Beside its place and renamed: whoever finds the file finds all of it.
        let draft = file.with_extension("kiln-draft");
        let unable = |e: std::io::Error| {
            Failure::new(ExitCode::Host, format!("could not write {}", file.display())).because(e.to_string())
        };
        let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft);
        let mut out = BufWriter::with_capacity(1 << 20, opened.map_err(unable)?);
        let written = self
            .store
            .export_release(&release, &log, &recipients, &mut out, file)
            .map_err(|e| failure::store(&e));
        let placed = written.and_then(|bytes| {
            out.flush().and_then(|()| out.get_ref().sync_all()).map_err(unable)?;
            fs::rename(&draft, file).map_err(unable)?;
            Ok(bytes)
        });
        if placed.is_err() {
            let _ = fs::remove_file(&draft);
        }
        let bytes = placed?;
        let is_in_it = !recipients.is_empty();
        let secrets = document.secrets().into_iter().filter(|_| is_in_it).map(|(name, _)| name.clone());
        let secrets = secrets.collect::<BTreeSet<_>>().into_iter().collect();
        Ok(Answer::Exported(ExportAnswer { release, file: file.to_owned(), bytes, secrets }))
    }

    /// What the log has of a release: its operations as `kiln log --json` shows them, one a line.
    fn extract(&self, release: &ReleaseId) -> Result<Vec<u8>, Failure> {
        let mut lines = Vec::new();
        for entry in super::history::operations(&self.records()?) {
            if entry.to.as_ref() == Some(release) {
                let line = serde_json::to_vec(&entry).expect("entries are plain data");
                lines.extend_from_slice(&line);
                lines.push(b'\n');
            }
        }
        Ok(lines)
    }

    pub(crate) fn import(
        &self,
        file: &Path,
        identity: Option<&SecretValue>,
        without_secrets: bool,
        by: &Caller,
    ) -> Result<Answer, Failure> {
        let identities = identity.map(identities).transpose()?;
        let wanted = match &identities {
            Some(identities) => SecretsOfImport::OpenedBy(identities),
            None if without_secrets => SecretsOfImport::LeftOut,
            None => SecretsOfImport::Unsaid,
        };
        let _use = self.store.while_in_use().map_err(|e| failure::store(&e))?;
        let opened = File::open(file).map_err(|e| {
            Failure::new(ExitCode::Usage, format!("could not open {}", file.display())).because(e.to_string())
        })?;
        let mut from = BufReader::with_capacity(1 << 20, opened);
        let imported = self.store.import_release(&mut from, file, wanted, &sound);
        let Imported { app, release, secrets } = imported.map_err(|e| refused(&e))?;
        let secrets = self.keep_secrets(&app, secrets, by)?;
        let (at, by) = (self.clock.now(), by.author());
        let record = Record::Imported { at, by, app: app.clone(), release: release.clone() };
        lock(&self.driver.core).note(&record).map_err(|trouble| {
            Failure::new(ExitCode::Host, "the import could not be written into the log").because(trouble.0)
        })?;
        let document = self.store.release(&release).map_err(|e| failure::store(&e))?;
        let mut missing = Vec::new();
        for (name, version) in document.secrets() {
            if !self.store.has_secret(&app, name, version).map_err(|e| failure::store(&e))? {
                missing.push(name.clone());
            }
        }
        Ok(Answer::Imported(ImportAnswer { app, release, secrets, missing_secrets: missing }))
    }

    /// Keeps values that came with a release; which secrets' they are.
    fn keep_secrets(
        &self,
        app: &AppName,
        secrets: Vec<(SecretName, SecretVersion, SecretValue)>,
        by: &Caller,
    ) -> Result<Vec<SecretName>, Failure> {
        let mut kept = Vec::new();
        for (name, version, value) in secrets {
            let at = self.clock.now();
            let is_new =
                self.store.keep_secret(app, &name, &value, at, &by.name).map_err(|e| failure::store(&e))?;
            if is_new {
                let (by, app, version) = (by.author(), app.clone(), Some(version));
                self.note(&Record::SecretSet { at, by, app, name: name.clone(), version })?;
            }
            kept.push(name);
        }
        Ok(kept)
    }
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
        StoreError::Damaged { .. } => Failure::from_error(ExitCode::Spec, error)
            .hint("nothing was imported; get the file again, or export it again"),
        _ => failure::store(error),
    }
}

/// Whether the metadata of an image is one that Kiln writes: the kernel is to mount nothing else.
fn sound(metadata: &[u8]) -> Result<(), String> {
    kiln_bake::erofs::read(metadata).map(drop).map_err(|e| e.to_string())
}
