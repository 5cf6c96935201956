//! Images, what is recorded of them, and what was found out about them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use kiln_model::{BadDigest, ImageDigest, ImageHandle, ImageRecord, ObjectDigest, Sha256, hex_pair};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::documents::{encoded, names_in, parsed, read, read_json};
use crate::error::{if_present, on};
use crate::objects::digest_of_metadata;
use crate::temp::ensure_dir;
use crate::{Look, Moment, Result, Store, StoreError, Verity};

/// 64 digits and the end of a line.
const LINE: usize = 65;

/// What is kept under the digest of inputs.
enum Hint {
    /// What was written before it was the whole record.
    Digest(ImageDigest),
    Record(Box<ImageRecord>),
}

impl Hint {
    /// The hint at `path`; what is none, or is torn, counts as none.
    fn read(path: &Path) -> Result<Option<Self>> {
        let Some(bytes) = read(path)? else { return Ok(None) };
        if let Ok(record) = serde_json::from_slice(&bytes) {
            return Ok(Some(Self::Record(Box::new(record))));
        }
        let digest = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok());
        Ok(digest.map(Self::Digest))
    }

    fn digest(&self) -> ImageDigest {
        match self {
            Self::Digest(digest) => *digest,
            Self::Record(record) => record.digest,
        }
    }
}

impl Store {
    /// Keeps an image that was made elsewhere. Nobody here has seen that its inputs give it, so no bake finds it by
    /// them: a hint that leads to it is of one that was here before, and goes.
    pub(crate) fn put_foreign_image(
        &self,
        metadata: &[u8],
        record: &ImageRecord,
        objects: &BTreeSet<ObjectDigest>,
    ) -> Result<()> {
        let hint = self.inputs_path(&record.inputs);
        if Self::hinted(&hint)? == Some(record.digest) {
            if_present(fs::remove_file(&hint)).map_err(on("remove", &hint))?;
        }
        self.put_image_files(metadata, record, objects)
    }

    /// Keeps the files of an image, its record last: with it the image exists.
    pub(crate) fn put_image_files(
        &self,
        metadata: &[u8],
        record: &ImageRecord,
        objects: &BTreeSet<ObjectDigest>,
    ) -> Result<()> {
        let path = self.metadata_path(&record.digest);
        if Verity::of(metadata).0 != record.digest.0 {
            let problem = format!("its record names the digest {}", record.digest);
            return Err(StoreError::damaged(&path, problem));
        }
        ensure_dir(&self.image_dir(&record.digest))?;
        let objects: Vec<ObjectDigest> = objects.iter().copied().collect();
        self.write(&self.objects_list(&record.digest), &object_lines(&objects))?;
        if read(&path)?.as_deref() != Some(metadata) {
            self.write(&path, metadata)?;
        }
        let (path, record) = self.record_file(record)?;
        self.write(&path, &record)
    }

    /// The record of an image, and where it belongs.
    pub(crate) fn record_file(&self, record: &ImageRecord) -> Result<(PathBuf, Vec<u8>)> {
        let path = self.image_dir(&record.digest).join("record.json");
        let bytes = encoded(&path, record)?;
        Ok((path, bytes))
    }

    /// Lets the image be found by its inputs, with what is recorded of it where it is made from those: others may give the
    /// same image. That is a hint and not flushed: one torn by a crash leads nowhere, and costs a bake.
    pub(crate) fn put_inputs(&self, record: &ImageRecord) -> Result<()> {
        let path = self.inputs_path(&record.inputs);
        let mut file = self.temp().file()?;
        file.write(&encoded(&path, record)?)?;
        file.close().rename(&path)
    }

    /// What is recorded of an image, if it is here: of the first bake that came to it, whatever others came to the same.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], or what the system refused.
    pub fn image(&self, digest: &ImageDigest) -> Result<Option<ImageRecord>> {
        Ok(self.recorded(digest)?.map(|(record, _)| record))
    }

    /// The same, and the bytes it was read from.
    pub(crate) fn recorded(&self, digest: &ImageDigest) -> Result<Option<(ImageRecord, Vec<u8>)>> {
        let path = self.image_dir(digest).join("record.json");
        let Some(bytes) = read(&path)? else { return Ok(None) };
        let record: ImageRecord = parsed(&path, &bytes)?;
        match record.digest == *digest {
            true => Ok(Some((record, bytes))),
            false => Err(StoreError::damaged(&path, format!("it is the record of {}", record.digest))),
        }
    }

    /// The image baked from the inputs with this digest, if it is here.
    ///
    /// # Errors
    /// As [`Store::image`].
    pub fn image_by_inputs(&self, inputs: &Sha256) -> Result<Option<ImageRecord>> {
        // Only a hint: whatever does not lead to an image baked from these inputs counts as not known.
        let Some(hint) = Hint::read(&self.inputs_path(inputs))? else { return Ok(None) };
        let Some(first) = self.image(&hint.digest())? else { return Ok(None) };
        let record = match hint {
            Hint::Digest(_) => first,
            Hint::Record(record) => *record,
        };
        let is_here = |document: &ObjectDigest| self.objects().path(document).is_file();
        Ok(Some(record).filter(|r| r.inputs == *inputs && r.documents.values().all(is_here)))
    }

    /// What is recorded of each image where it was baked from other inputs, too: all that its hints say.
    ///
    /// # Errors
    /// What the system refused.
    pub fn image_records_by_inputs(&self) -> Result<Vec<ImageRecord>> {
        let dir = self.dir("inputs");
        let mut records = Vec::new();
        for name in names_in(&dir, "")? {
            if let Some(Hint::Record(record)) = Hint::read(&dir.join(name))? {
                records.push(*record);
            }
        }
        Ok(records)
    }

    /// What an engine needs to mount an image. The metadata file is compared with its digest each time (about a
    /// millisecond), because that digest vouches for everything inside.
    ///
    /// # Errors
    /// [`StoreError::NoSuchImage`], [`StoreError::NewerImage`], [`StoreError::Damaged`], or what the system refused.
    pub fn handle(&self, digest: &ImageDigest) -> Result<ImageHandle> {
        self.handle_of(&self.image(digest)?.ok_or(StoreError::NoSuchImage(*digest))?)
    }

    /// The same for an image whose record is at hand.
    ///
    /// # Errors
    /// As [`Store::handle`].
    pub fn handle_of(&self, record: &ImageRecord) -> Result<ImageHandle> {
        let digest = &record.digest;
        if let Some(unknown) = record.format.unknown() {
            return Err(StoreError::NewerImage { image: *digest, unknown });
        }
        let metadata = self.metadata_path(digest);
        if !metadata.is_file() {
            return Err(StoreError::damaged(&metadata, "it is missing"));
        }
        let found = digest_of_metadata(&metadata)?;
        if found.0 != digest.0 {
            return Err(StoreError::damaged(&metadata, format!("its digest is {found}, not {digest}")));
        }
        Ok(ImageHandle { digest: *digest, metadata, objects: self.objects_dir().to_owned() })
    }

    /// All images, sorted.
    ///
    /// # Errors
    /// What the system refused.
    pub fn images(&self) -> Result<Vec<ImageDigest>> {
        let mut images = Vec::new();
        for name in names_in(&self.dir("images"), "")? {
            let Ok(digest) = name.parse() else { continue };
            let record = self.image_dir(&digest).join("record.json");
            if if_present(record.metadata()).map_err(on("look for", &record))?.is_some() {
                images.push(digest);
            }
        }
        Ok(images)
    }

    /// The objects an image needs, if that has been recorded.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], or what the system refused.
    pub fn image_objects(&self, digest: &ImageDigest) -> Result<Option<BTreeSet<ObjectDigest>>> {
        let path = self.objects_list(digest);
        let Some(bytes) = read(&path)? else { return Ok(None) };
        let parsed: std::result::Result<_, BadDigest> =
            String::from_utf8_lossy(&bytes).lines().map(str::parse).collect();
        parsed.map(Some).map_err(|e| StoreError::damaged(&path, e.to_string()))
    }

    /// Keeps the result of the check of an image that `key` stands for, replacing the one before.
    ///
    /// # Errors
    /// [`StoreError::NoSuchImage`], or what the system refused.
    pub fn put_check_result(&self, image: &ImageDigest, key: &Sha256, result: &impl Serialize) -> Result<()> {
        if self.image(image)?.is_none() {
            return Err(StoreError::NoSuchImage(*image));
        }
        let dir = self.image_dir(image).join("checks");
        ensure_dir(&dir)?;
        self.write_json(&dir.join(format!("{key}.json")), result)
    }

    /// That result, if the check has been made.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], or what the system refused.
    pub fn check_result<T: DeserializeOwned>(&self, image: &ImageDigest, key: &Sha256) -> Result<Option<T>> {
        read_json(&self.image_dir(image).join("checks").join(format!("{key}.json")))
    }

    /// A document of an image by name (SBOM, provenance), compared with the digest the record has of it. Nothing if
    /// there is no such image or document.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], or what the system refused.
    pub fn image_document(&self, image: &ImageDigest, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(digest) = self.image(image)?.and_then(|r| r.documents.get(name).copied()) else {
            return Ok(None);
        };
        self.objects().read(&digest).map(Some)
    }

    /// Whether every object of an image is there, and unchanged as far as a long look shows. Reading all of them again
    /// is [`Store::verify`]'s.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], or what the system refused.
    pub fn has_objects_of(&self, image: &ImageDigest) -> Result<bool> {
        let list = self.objects_list(image);
        let Some(listed) = if_present(list.metadata()).map_err(on("look for", &list))? else {
            return Ok(false);
        };
        self.has_all(&image.0, Look::Long, Some(Moment::written(&listed)), || {
            let objects = self.image_objects(image)?.unwrap_or_default();
            Ok(objects.into_iter().map(|object| (object, None)).collect())
        })
    }

    pub(crate) fn objects_list(&self, digest: &ImageDigest) -> PathBuf {
        self.image_dir(digest).join("objects")
    }

    pub(crate) fn metadata_path(&self, digest: &ImageDigest) -> PathBuf {
        self.image_dir(digest).join("metadata.erofs")
    }

    pub(crate) fn image_dir(&self, digest: &ImageDigest) -> PathBuf {
        self.dir("images").join(digest.hex())
    }

    /// Which image the hint at `path` leads to, if it leads anywhere.
    pub(crate) fn hinted(path: &Path) -> Result<Option<ImageDigest>> {
        Ok(Hint::read(path)?.map(|hint| hint.digest()))
    }

    fn inputs_path(&self, inputs: &Sha256) -> PathBuf {
        self.dir("inputs").join(inputs.hex())
    }
}

/// One name a line.
pub(crate) fn object_lines(objects: &[ObjectDigest]) -> Vec<u8> {
    let mut lines = vec![b'\n'; objects.len() * LINE];
    for (line, object) in lines.chunks_exact_mut(LINE).zip(objects) {
        let digits = line.as_chunks_mut().0;
        digits.iter_mut().zip(&object.0.0).for_each(|(pair, byte)| *pair = hex_pair(*byte));
    }
    lines
}
