//! Writing one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use kiln_model::{ImageDigest, ReleaseId, Sha256};

use super::{FORMAT, MANIFEST, Manifest, Member, SECRETS};
use crate::age::Recipient;
use crate::error::on;
use crate::packages::sha256_of;
use crate::{Damage, Result, Store, StoreError};

impl Store {
    /// Writes a release with all it needs to `out`; `log` is what the operation log has of it. The same release and
    /// log give the same bytes, if there are no recipients: with any, its secrets are in it, encrypted to them. `path` is
    /// what `out` is called, for messages. Returns how many bytes were written.
    ///
    /// # Errors
    /// If something that belongs to it is not here or damaged, or the system refuses.
    pub fn export_release(
        &self,
        id: &ReleaseId,
        log: &[u8],
        recipients: &[Recipient],
        out: &mut dyn Write,
        path: &Path,
    ) -> Result<u64> {
        let release = self.release(id)?;
        let mut sources: Vec<(String, Source)> = vec![("release.json".into(), self.release_path(id).into())];
        if !recipients.is_empty() {
            let sealed = self.sealed_secrets(&release, recipients)?;
            sources.push((SECRETS.into(), Source::Bytes(sealed)));
        }
        for (name, source) in self.documents_of(id, log)? {
            sources.push((format!("documents/{name}"), source));
        }
        let images: BTreeSet<ImageDigest> = release.services.values().map(|s| s.image).collect();
        let (mut objects, mut packages) = (BTreeSet::new(), BTreeSet::new());
        let records = self.image_records_by_inputs()?;
        for image in &images {
            if let Some(Damage { path, problem }) = self.damage_of(image)?.into_iter().next() {
                return Err(StoreError::Damaged { path, problem });
            }
            let record = self.image(image)?.ok_or(StoreError::NoSuchImage(*image))?;
            let dir = self.image_dir(image);
            let listed = self.image_objects(image)?;
            objects.extend(listed.ok_or_else(|| StoreError::damaged(&dir.join("objects"), "it is missing"))?);
            objects.extend(record.documents.values().copied());
            packages.extend(self.packages_of(image)?.unwrap_or_default());
            // Whoever else made it from others may be who deployed it. What has lost its documents nobody can tell of.
            let others = records.iter().filter(|other| other.digest == *image);
            packages.extend(others.filter_map(|other| self.packages_in(other).ok().flatten()).flatten());
            for name in ["objects", "record.json", "metadata.erofs"] {
                sources.push((format!("images/{}/{name}", image.hex()), dir.join(name).into()));
            }
        }
        for object in objects {
            let hex = object.hex();
            sources
                .push((format!("objects/{}/{}", &hex[..2], &hex[2..]), self.objects().path(&object).into()));
        }
        let members = sources.iter().map(|(name, source)| member(name, source)).collect::<Result<Vec<_>>>();
        let mut members = members?;
        for package in packages.into_iter().filter(|p| self.package_path(p).is_file()) {
            let path = self.package_path(&package);
            let (name, source) = (format!("packages/{package}.deb"), path.clone().into());
            let member = member(&name, &source)?;
            if member.sha256 != package {
                return Err(StoreError::damaged(&path, format!("its hash is {}", member.sha256)));
            }
            members.push(member);
            sources.push((name, source));
        }
        let manifest = Manifest { format: FORMAT, app: release.app, release: id.clone(), members };
        let written = archive(&manifest, &sources, out);
        written.map_err(on("write", path))
    }

    fn documents_of(&self, id: &ReleaseId, log: &[u8]) -> Result<BTreeMap<String, Source>> {
        let mut documents: BTreeMap<String, Source> = BTreeMap::new();
        for name in self.release_documents(id)? {
            let path = self.release_documents_dir(id).join(&name);
            documents.insert(name, path.into());
        }
        if !log.is_empty() {
            documents.insert("log.jsonl".into(), Source::Bytes(log.to_vec()));
        }
        Ok(documents)
    }
}

/// Where the content of a member comes from.
enum Source {
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl From<PathBuf> for Source {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

fn member(name: &str, source: &Source) -> Result<Member> {
    let (bytes, sha256) = match source {
        Source::Bytes(bytes) => (bytes.len() as u64, Sha256::of(bytes)),
        Source::File(path) => {
            let meta = fs::metadata(path).map_err(on("look for", path))?;
            let hash = sha256_of(path)?.ok_or_else(|| StoreError::damaged(path, "it is missing"))?;
            (meta.len(), hash)
        }
    };
    Ok(Member { path: name.to_owned(), bytes, sha256 })
}

fn archive(manifest: &Manifest, sources: &[(String, Source)], out: &mut dyn Write) -> io::Result<u64> {
    let mut tar = tar::Builder::new(Counting { to: out, bytes: 0 });
    let text = serde_json::to_vec(manifest)?;
    append(&mut tar, MANIFEST, text.len() as u64, &mut text.as_slice())?;
    for ((name, source), member) in sources.iter().zip(&manifest.members) {
        match source {
            Source::Bytes(bytes) => append(&mut tar, name, member.bytes, &mut bytes.as_slice())?,
            Source::File(path) => append(&mut tar, name, member.bytes, &mut File::open(path)?)?,
        }
    }
    Ok(tar.into_inner()?.bytes)
}

/// Counts what passes.
struct Counting<'a> {
    to: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counting<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.to.write(buffer)?;
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    name: &str,
    bytes: u64,
    content: &mut dyn io::Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o600);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    tar.append_data(&mut header, name, content)
}
