//! Reading one, into the store.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use kiln_model::{
    AppName, ImageDigest, ImageRecord, ObjectDigest, Release, ReleaseId, SecretName, SecretValue,
    SecretVersion, Sha256,
};
use sha2::Digest as _;

use super::secrets::{self, SecretsOfImport, Travelling};
use super::{FORMAT, MANIFEST, Manifest, Member, SECRETS};
use crate::error::READ_GIVEN;
use crate::secrets::version_of_secret;
use crate::{Batch, Result, Store, StoreError, Verity};

/// The most that is taken of what is held in memory.
const MANIFEST_BYTES: u64 = 64 << 20;
const DOCUMENT_BYTES: u64 = 64 << 20;
const METADATA_BYTES: u64 = 512 << 20;
/// What an archive is made of.
const BLOCK: u64 = 512;
/// The most members; an image of a whole distribution has a tenth of it.
const MEMBERS: usize = 2_000_000;

/// The objects in the tree of an image with this metadata and record, or what is wrong with the two.
pub type Sound<'a> = &'a dyn Fn(&[u8], &ImageRecord) -> std::result::Result<BTreeSet<ObjectDigest>, String>;

impl Store {
    /// Takes the release in `from` into the store; which one it is. `path` is what `from` is called, for messages.
    /// `sound` judges images before they are kept: a kernel is going to mount them. An image that is here already stays
    /// as it is.
    ///
    /// # Errors
    /// [`StoreError::NoExport`]; [`StoreError::Damaged`] with the member and the byte at fault; [`StoreError::SealedSecrets`] and
    /// [`StoreError::CannotOpen`] for secrets that `secrets` does not open; otherwise what the system refused. Then there
    /// is no such release here; what has been taken of it may be collected.
    pub fn import_release(
        &self,
        from: &mut dyn Read,
        path: &Path,
        secrets: SecretsOfImport<'_>,
        sound: Sound<'_>,
    ) -> Result<Imported> {
        let padding = Rc::new(Cell::new(0..0));
        let mut archive = tar::Archive::new(Padded { from, at: 0, padding: padding.clone() });
        let mut place = Place { path, member: MANIFEST.into(), offset: 0 };
        let entries = archive.entries().map_err(|e| place.unreadable(&e))?;
        let mut import = Import::new(self, secrets)?;
        let mut manifest: Option<Manifest> = None;
        let mut next = 0;
        for entry in entries {
            let mut entry = entry.map_err(|e| match manifest {
                None if is_of_content(&e) => StoreError::NoExport { path: path.to_owned() },
                _ => place.unreadable(&e),
            })?;
            place.offset = entry.raw_file_position();
            let end = place.offset.saturating_add(entry.size());
            padding.set(end..end.checked_next_multiple_of(BLOCK).unwrap_or(end));
            let name = entry.path().map_err(|e| place.unreadable(&e))?.to_string_lossy().into_owned();
            match &manifest {
                None => manifest = Some(read_manifest(&mut entry, &name, &place)?),
                Some(known) => {
                    let expected =
                        known.members.get(next).ok_or_else(|| place.wrong("more follows after it"))?;
                    place.member.clone_from(&expected.path);
                    if name != expected.path || entry.size() != expected.bytes {
                        let problem =
                            format!("expected {} bytes, found `{name}`, {}", expected.bytes, entry.size());
                        return Err(place.wrong(&problem));
                    }
                    import.take(expected, &mut entry, &place)?;
                    next += 1;
                }
            }
        }
        let manifest = manifest.ok_or_else(|| StoreError::NoExport { path: path.to_owned() })?;
        if let Some(missing) = manifest.members.get(next) {
            place.member.clone_from(&missing.path);
            return Err(place.wrong("the file ends before it"));
        }
        place.at_end(archive.into_inner())?;
        import.finish(&manifest, &place, sound)
    }
}

/// Where in the file reading is, for messages.
struct Place<'a> {
    path: &'a Path,
    member: String,
    offset: u64,
}

impl Place<'_> {
    /// What follows the last member is what ends an archive, two blocks of nothing, the first of which has been read.
    fn at_end(&self, mut rest: Padded<'_>) -> Result<()> {
        let mut end = Vec::new();
        let read = (&mut rest).take(BLOCK + 1).read_to_end(&mut end);
        match read.is_ok() && end == [0; BLOCK as usize] {
            true => Ok(()),
            false => Err(StoreError::damaged(self.path, "it does not end as an export does")),
        }
    }

    fn wrong(&self, problem: &str) -> StoreError {
        let Self { member, offset, .. } = self;
        StoreError::damaged(self.path, format!("member `{member}` at byte {offset}: {problem}"))
    }

    fn unreadable(&self, error: &io::Error) -> StoreError {
        self.wrong(&format!("it cannot be read: {error}"))
    }
}

fn read_manifest(entry: &mut dyn Read, name: &str, place: &Place<'_>) -> Result<Manifest> {
    if name != MANIFEST {
        return Err(StoreError::NoExport { path: place.path.to_owned() });
    }
    let bytes = all(entry, MANIFEST_BYTES, place)?;
    let manifest: Manifest =
        serde_json::from_slice(&bytes).map_err(|e| place.wrong(&format!("it does not read: {e}")))?;
    if manifest.format != FORMAT {
        return Err(place.wrong(&format!("it has format {}, and this Kiln reads {FORMAT}", manifest.format)));
    }
    if manifest.members.len() > MEMBERS {
        return Err(place.wrong("it lists too many members"));
    }
    Ok(manifest)
}

/// All that a reader yields, if it is not more than `most`.
fn all(from: &mut dyn Read, most: u64, place: &Place<'_>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(most + 1).read_to_end(&mut bytes).map_err(|e| place.unreadable(&e))?;
    if bytes.len() as u64 > most { Err(place.wrong("it is too large")) } else { Ok(bytes) }
}

/// Whether what was read is at fault, and not who reads.
fn is_of_content(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, Other, UnexpectedEof};
    matches!(error.kind(), InvalidData | Other | UnexpectedEof)
}

/// Holds what stands between members to be nothing, and an end within one to be an error.
struct Padded<'a> {
    from: &'a mut dyn Read,
    at: u64,
    /// Which bytes of the file come after a member and before the next.
    padding: Rc<Cell<Range<u64>>>,
}

impl Read for Padded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buffer)?;
        let Range { start, end } = self.padding.take();
        self.padding.set(start..end);
        if n == 0 && !buffer.is_empty() && self.at < end {
            let told = format!("the file ends at byte {}, in the middle of it", self.at);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, told));
        }
        let within = |at: u64| usize::try_from(at.saturating_sub(self.at)).unwrap_or(n).min(n);
        if buffer[within(start)..within(end).max(within(start))].iter().any(|byte| *byte != 0) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "there is something behind it"));
        }
        self.at += n as u64;
        Ok(n)
    }
}

/// Hashes what passes.
struct Hashing<'a> {
    from: &'a mut dyn Read,
    hasher: sha2::Sha256,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        Ok(n)
    }
}

/// What an import has brought.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The app.
    pub app: AppName,
    /// The release.
    pub release: ReleaseId,
    /// Values of secrets that came with it, for [`Store::keep_secret`].
    pub secrets: Vec<(SecretName, SecretVersion, SecretValue)>,
}

/// What has been taken so far.
struct Import<'a> {
    store: &'a Store,
    wanted: SecretsOfImport<'a>,
    secrets: Vec<Travelling>,
    batch: Batch,
    release: Option<Release>,
    documents: BTreeMap<String, Vec<u8>>,
    images: BTreeMap<ImageDigest, Image>,
}

#[derive(Default)]
struct Image {
    objects: BTreeSet<ObjectDigest>,
    record: Option<ImageRecord>,
    metadata: Vec<u8>,
}

impl Image {
    /// Keeps the image if it is what it says; one that is here already, and whole, is not touched.
    fn settle(&self, digest: &ImageDigest, store: &Store, place: &Place<'_>, sound: Sound<'_>) -> Result<()> {
        let record = self.record.as_ref().filter(|r| r.digest == *digest);
        let record = record.ok_or_else(|| place.wrong("its record is missing or another image's"))?;
        let found = Verity::of(&self.metadata);
        if found.0 != digest.0 {
            return Err(place.wrong(&format!("the digest of its metadata is {found}")));
        }
        let in_tree = sound(&self.metadata, record).map_err(|problem| place.wrong(&problem))?;
        let claimed = with_documents(&in_tree, record);
        if let Some(missing) = claimed.iter().find(|object| !store.objects().path(object).is_file()) {
            return Err(place.wrong(&format!("object {missing} of it is missing")));
        }
        if claimed != self.objects {
            return Err(place.wrong("its list of objects is not that of its files and documents"));
        }
        let kept = match self.record_here(store, record, sound) {
            None => store.put_foreign_image(&self.metadata, record, &claimed),
            Some(own) => {
                let needed = with_documents(&in_tree, &own);
                let listed = store.image_objects(digest).ok().flatten();
                if listed.as_ref() == Some(&needed) && store.handle_of(&own).is_ok() {
                    return Ok(());
                }
                store.put_image_files(&self.metadata, &own, &needed)
            }
        };
        kept.map_err(|e| place.of(e))
    }

    /// What is recorded of it here was seen here, and stays if it is true.
    fn record_here(&self, store: &Store, claimed: &ImageRecord, sound: Sound<'_>) -> Option<ImageRecord> {
        let own = store.image(&claimed.digest).ok().flatten();
        own.filter(|own| own == claimed || sound(&self.metadata, own).is_ok())
    }
}

/// All objects an image needs.
fn with_documents(in_tree: &BTreeSet<ObjectDigest>, record: &ImageRecord) -> BTreeSet<ObjectDigest> {
    in_tree.iter().chain(record.documents.values()).copied().collect()
}

impl<'a> Import<'a> {
    fn new(store: &'a Store, wanted: SecretsOfImport<'a>) -> Result<Self> {
        let (documents, images) = (BTreeMap::new(), BTreeMap::new());
        let (batch, secrets) = (store.objects().batch()?, Vec::new());
        Ok(Self { store, wanted, secrets, batch, release: None, documents, images })
    }

    fn take(&mut self, member: &Member, entry: &mut dyn Read, place: &Place<'_>) -> Result<()> {
        let mut hashing = Hashing { from: entry, hasher: sha2::Sha256::new() };
        self.keep(&member.path, &mut hashing, place)?;
        let found = Sha256(hashing.hasher.finalize().into());
        if found == member.sha256 { Ok(()) } else { Err(place.wrong(&format!("its sha256 is {found}"))) }
    }

    fn keep(&mut self, path: &str, from: &mut dyn Read, place: &Place<'_>) -> Result<()> {
        let parts: Vec<&str> = path.split('/').collect();
        match parts[..] {
            ["release.json"] => {
                let bytes = all(from, DOCUMENT_BYTES, place)?;
                self.release = Some(Release::decode(&bytes).map_err(|e| place.wrong(&e.to_string()))?);
            }
            [SECRETS] => self.open_secrets(&all(from, secrets::BYTES, place)?, place)?,
            ["documents", name] => {
                self.documents.insert(name.to_owned(), all(from, DOCUMENT_BYTES, place)?);
            }
            ["images", digest, name] => self.keep_of_image(digest, name, from, place)?,
            ["objects", prefix, rest] => {
                let named: ObjectDigest = digest(&format!("{prefix}{rest}"), place)?;
                let (found, _) = self.batch.put_reader(from).map_err(|e| place.of(e))?;
                if found != named {
                    return Err(place.wrong(&format!("its content is {found}")));
                }
            }
            ["packages", name] => {
                let hash = digest(name.strip_suffix(".deb").unwrap_or(name), place)?;
                self.store.put_package(&hash, from).map_err(|e| place.of(e))?;
            }
            _ => return Err(place.wrong("no member has such a name")),
        }
        Ok(())
    }

    /// They come after the release, so that all of them are known to be its own.
    fn open_secrets(&mut self, sealed: &[u8], place: &Place<'_>) -> Result<()> {
        let identities = match self.wanted {
            SecretsOfImport::OpenedBy(identities) => identities,
            SecretsOfImport::LeftOut => return Ok(()),
            SecretsOfImport::Unsaid => {
                return Err(StoreError::SealedSecrets { path: place.path.to_owned() });
            }
        };
        let (app, secrets) = secrets::open(sealed, identities, place.path, &|problem| place.wrong(problem))?;
        let Some(release) = self.release.as_ref().filter(|release| release.app == app) else {
            return Err(place.wrong("they are another app's"));
        };
        let needed = release.secrets();
        for Travelling { name, version, value } in &secrets {
            if !needed.contains(&(name, version)) {
                return Err(place.wrong(&format!("secret {name} {version} is not one the release needs")));
            }
            if version_of_secret(&app, name, value) != *version {
                return Err(place.wrong(&format!("the value of secret {name} is not its version {version}")));
            }
        }
        self.secrets = secrets;
        Ok(())
    }

    fn keep_of_image(&mut self, hex: &str, name: &str, from: &mut dyn Read, place: &Place<'_>) -> Result<()> {
        let image = self.images.entry(digest(hex, place)?).or_default();
        match name {
            "objects" => {
                let text = String::from_utf8_lossy(&all(from, DOCUMENT_BYTES, place)?).into_owned();
                image.objects = text.lines().map(|line| digest(line, place)).collect::<Result<_>>()?;
            }
            "record.json" => {
                let record = serde_json::from_slice(&all(from, DOCUMENT_BYTES, place)?);
                image.record = Some(record.map_err(|e| place.wrong(&format!("it does not read: {e}")))?);
            }
            "metadata.erofs" => image.metadata = all(from, METADATA_BYTES, place)?,
            _ => return Err(place.wrong("no member has such a name")),
        }
        Ok(())
    }

    /// Objects first, then images, then the release.
    fn finish(self, manifest: &Manifest, place: &Place<'_>, sound: Sound<'_>) -> Result<Imported> {
        let place = Place { path: place.path, member: "release.json".into(), offset: place.offset };
        let release = self.release.ok_or_else(|| place.wrong("it is missing"))?;
        if (release.id(), &release.app) != (manifest.release.clone(), &manifest.app) {
            return Err(place.wrong(&format!("it is {}, not {}", release.id(), manifest.release)));
        }
        self.batch.commit()?;
        for (digest, image) in &self.images {
            let place =
                Place { path: place.path, member: format!("images/{}", digest.hex()), offset: place.offset };
            image.settle(digest, self.store, &place, sound)?;
        }
        for service in release.services.values() {
            self.store.handle(&service.image).map_err(|e| place.of(e))?;
        }
        let id = release.id();
        for (name, bytes) in &self.documents {
            self.store.put_release_document(&id, name, bytes).map_err(|e| place.of(e))?;
        }
        self.store.put_release(&release)?;
        let secrets = self.secrets.into_iter().map(|s| (s.name, s.version, s.value)).collect();
        Ok(Imported { app: release.app, release: id, secrets })
    }
}

impl Place<'_> {
    /// An error of the store that is the file's fault; what the disk of the store refuses is not.
    fn of(&self, error: StoreError) -> StoreError {
        match error {
            // Told by who reads the file: where it was to go says nothing.
            StoreError::Io { attempted: READ_GIVEN, source, .. } if is_of_content(&source) => {
                self.wrong(&source.to_string())
            }
            StoreError::Io { attempted: READ_GIVEN, source, .. } => self.unreadable(&source),
            StoreError::NoSpace { .. } | StoreError::Io { .. } => error,
            error => self.wrong(&error.to_string()),
        }
    }
}

fn digest<T: std::str::FromStr>(text: &str, place: &Place<'_>) -> Result<T> {
    text.parse().map_err(|_| place.wrong(&format!("`{text}` is no digest")))
}
