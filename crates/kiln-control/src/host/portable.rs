//! Releases as files: export and import.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use kiln_model::{Answer, AppName, ExitCode, ExportAnswer, Failure, ImportAnswer, Record, ReleaseId};

use super::{LocalHost, failure};
use crate::contract::Caller;
use crate::sync::lock;
use crate::world::Clock;

impl LocalHost {
    pub(crate) fn export(&self, app: Option<AppName>, given: &str, file: &Path) -> Result<Answer, Failure> {
        let app = self.app(app)?;
        let _use = self.store.while_in_use().map_err(|e| failure::store(&e))?;
        let release = self.named(&app, given)?.id();
        let log = self.extract(&release)?;
        // Beside its place and renamed: whoever finds the file finds all of it.
        let draft = file.with_extension("kiln-draft");
        let unable = |e: std::io::Error| {
            Failure::new(ExitCode::Host, format!("could not write {}", file.display())).because(e.to_string())
        };
        let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft);
        let mut out = BufWriter::with_capacity(1 << 20, opened.map_err(unable)?);
        let written =
            self.store.export_release(&release, &log, &mut out, file).map_err(|e| failure::store(&e));
        let placed = written.and_then(|bytes| {
            out.flush().and_then(|()| out.get_ref().sync_all()).map_err(unable)?;
            fs::rename(&draft, file).map_err(unable)?;
            Ok(bytes)
        });
        if placed.is_err() {
            let _ = fs::remove_file(&draft);
        }
        let bytes = placed?;
        Ok(Answer::Exported(ExportAnswer { release, file: file.to_owned(), bytes }))
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

    pub(crate) fn import(&self, file: &Path, by: &Caller) -> Result<Answer, Failure> {
        let _use = self.store.while_in_use().map_err(|e| failure::store(&e))?;
        let opened = File::open(file).map_err(|e| {
            Failure::new(ExitCode::Usage, format!("could not open {}", file.display())).because(e.to_string())
        })?;
        let mut from = BufReader::with_capacity(1 << 20, opened);
        let imported = self.store.import_release(&mut from, file, &sound).map_err(|e| refused(&e))?;
        let (app, release) = imported;
        let record =
            Record::Imported { at: self.clock.now(), by: by.name.clone(), app: app.clone(), release };
        let Record::Imported { release, .. } = &record else { unreachable!("just made") };
        let release = release.clone();
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
        Ok(Answer::Imported(ImportAnswer { app, release, missing_secrets: missing }))
    }
}

/// A file that is not what was exported is the file's fault, not the store's.
fn refused(error: &kiln_store::StoreError) -> Failure {
    match error {
        kiln_store::StoreError::Damaged { .. } => Failure::from_error(ExitCode::Spec, error)
            .hint("nothing was imported; get the file again, or export it again"),
        _ => failure::store(error),
    }
}

/// Whether the metadata of an image is one that Kiln writes: the kernel is to mount nothing else.
fn sound(metadata: &[u8]) -> Result<(), String> {
    kiln_bake::erofs::read(metadata).map(drop).map_err(|e| e.to_string())
}
