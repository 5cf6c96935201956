//! An archive of an image: an OCI layout as a tar file, or what `docker save` and `podman save` write.
//!
//! ```text
//! oci-layout, index.json, blobs/sha256/…               an OCI layout
//! manifest.json  [{Config, RepoTags, Layers}, …]       Docker's own: names of members, no digests, no manifest
//! ```
//! An archive of Docker's own gets the manifest it lacks: made from its members, so that the same archive has the
//! same one, and it can be pinned.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take};
use std::path::PathBuf;

use kiln_model::{OciReference, Sha256, Which};
use kiln_store::BlobDraft;
use serde::Deserialize;
use sha2::Digest as _;

use super::document::{Descriptor, LARGEST_CONFIG, LARGEST_MANIFEST};
use super::error::OciError;
use super::layout;
use super::source::Source;
use super::written;

const MOST_MEMBERS: usize = 100_000;
/// Links of members to members, one after another.
const MOST_LINKS: usize = 8;

pub(crate) struct Archive {
    members: Members,
    kind: Kind,
}

enum Kind {
    Oci { which: Which, reference: OciReference },
    Docker { manifest: Vec<u8>, blobs: HashMap<Sha256, Place> },
}

/// Where the bytes of a member are.
#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    size: u64,
}

struct Members {
    path: PathBuf,
    places: HashMap<String, Place>,
    links: HashMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Archive {
    pub(crate) fn open(path: PathBuf, which: &Which, reference: &OciReference) -> Result<Self, OciError> {
        let members = Members::of(path)?;
        let kind = if members.place("index.json").is_some() && members.place("oci-layout").is_some() {
            Kind::Oci { which: which.clone(), reference: reference.clone() }
        } else if members.place("manifest.json").is_some() {
            docker(&members, which)?
        } else {
            return Err(members.shape("it has neither an index.json nor a manifest.json"));
        };
        Ok(Self { members, kind })
    }

    fn place(&self, descriptor: &Descriptor) -> Result<Place, OciError> {
        let name = format!("blobs/sha256/{}", descriptor.digest.hex());
        let place = match &self.kind {
            Kind::Oci { .. } => self.members.place(&name),
            Kind::Docker { blobs, .. } => blobs.get(&descriptor.digest).copied(),
        };
        place.ok_or_else(|| self.members.shape(format!("it lacks {name}")))
    }
}

fn docker(members: &Members, which: &Which) -> Result<Kind, OciError> {
    let text = members.small("manifest.json", LARGEST_MANIFEST)?;
    let images: Vec<Saved> = serde_json::from_slice(&text)
        .map_err(|e| members.shape(format!("its manifest.json does not read as one: {e}")))?;
    let image = chosen(members, &images, which)?;
    let mut blobs = HashMap::new();
    let config = members.described(&image.config, written::CONFIG, LARGEST_CONFIG, &mut blobs)?;
    let layer = |name: &String| members.described(name, written::LAYER, u64::MAX, &mut blobs);
    let layers = image.layers.iter().map(layer).collect::<Result<Vec<_>, _>>()?;
    let manifest = written::manifest(&config, &layers);
    match which.digest {
        Some(digest) if digest != Sha256::of(&manifest) => {
            Err(members.shape("it holds no image of that digest"))
        }
        _ => Ok(Kind::Docker { manifest, blobs }),
    }
}

fn chosen<'a>(members: &Members, images: &'a [Saved], which: &Which) -> Result<&'a Saved, OciError> {
    let tags = |image: &'a Saved| image.repo_tags.iter().flatten().map(String::as_str);
    let meant: Vec<&Saved> = match &which.tag {
        Some(asked) => {
            images.iter().filter(|image| tags(image).any(|name| layout::answers(name, asked))).collect()
        }
        None => images.iter().collect(),
    };
    match meant.as_slice() {
        [only] => Ok(only),
        found => {
            let names: Vec<String> =
                images.iter().flat_map(tags).map(|n| format!("`{}`", n.escape_debug())).collect();
            Err(OciError::not_named(&members.path, !found.is_empty(), &names))
        }
    }
}

impl Members {
    fn of(path: PathBuf) -> Result<Self, OciError> {
        let mut members = Self { path, places: HashMap::new(), links: HashMap::new() };
        let file = members.file()?;
        let mut archive = tar::Archive::new(file);
        let entries = archive.entries_with_seek().map_err(|e| members.unreadable(e))?;
        for (count, entry) in entries.enumerate() {
            let entry = entry.map_err(|e| members.unreadable(e))?;
            if count >= MOST_MEMBERS {
                return Err(members.shape(format!("it has more than {MOST_MEMBERS} members")));
            }
            let name = normal(&entry.path_bytes());
            match entry.header().entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    let place = Place { offset: entry.raw_file_position(), size: entry.size() };
                    members.places.insert(name, place);
                }
                tar::EntryType::Symlink | tar::EntryType::Link => {
                    let target = entry.link_name_bytes().unwrap_or_default();
                    let below = entry.header().entry_type() == tar::EntryType::Symlink;
                    let dir = name.rsplit_once('/').filter(|_| below).map_or("", |(dir, _)| dir);
                    let target = normal(format!("{dir}/{}", String::from_utf8_lossy(&target)).as_bytes());
                    members.links.insert(name, target);
                }
                _ => {}
            }
        }
        Ok(members)
    }

    fn file(&self) -> Result<File, OciError> {
        File::open(&self.path).map_err(|source| OciError::Read { path: self.path.clone(), source })
    }

    fn shape(&self, problem: impl Into<String>) -> OciError {
        OciError::Shape { path: self.path.clone(), problem: problem.into() }
    }

    fn unreadable(&self, error: io::Error) -> OciError {
        let mut start = [0; 2];
        let packed =
            self.file().and_then(|mut f| f.read_exact(&mut start).map_err(|_| self.shape(""))).is_ok();
        if packed && start == [0x1f, 0x8b] {
            return self.shape("it is compressed as a whole: unpack it with `gunzip` first");
        }
        self.shape(format!("it does not read as a tar archive: {error}"))
    }

    fn place(&self, name: &str) -> Option<Place> {
        let mut name = name;
        for _ in 0..MOST_LINKS {
            if let Some(place) = self.places.get(name) {
                return Some(*place);
            }
            name = self.links.get(name)?;
        }
        None
    }

    fn reader(&self, place: Place) -> Result<Take<File>, OciError> {
        let mut file = self.file()?;
        let source = |source| OciError::Read { path: self.path.clone(), source };
        file.seek(SeekFrom::Start(place.offset)).map_err(source)?;
        Ok(file.take(place.size))
    }

    fn small(&self, name: &str, limit: u64) -> Result<Vec<u8>, OciError> {
        let place = self.place(name).ok_or_else(|| self.shape(format!("it lacks {name}")))?;
        if place.size > limit {
            return Err(self.shape(format!("{name} has more than {limit} bytes")));
        }
        let mut bytes = Vec::new();
        let failed = |source| OciError::Read { path: self.path.clone(), source };
        self.reader(place)?.read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    /// A member by its digest, which is found by reading it.
    fn described(
        &self,
        name: &str,
        media_type: &str,
        limit: u64,
        blobs: &mut HashMap<Sha256, Place>,
    ) -> Result<Descriptor, OciError> {
        let name = normal(name.as_bytes());
        let place =
            self.place(&name).ok_or_else(|| self.shape(format!("it lacks {}", name.escape_debug())))?;
        if place.size > limit {
            return Err(self.shape(format!("{} has more than {limit} bytes", name.escape_debug())));
        }
        let mut reader = self.reader(place)?;
        let (mut hasher, mut buffer) = (sha2::Sha256::new(), vec![0; 128 << 10]);
        loop {
            let read = reader.read(&mut buffer);
            match read.map_err(|source| OciError::Read { path: self.path.clone(), source })? {
                0 => break,
                n => hasher.update(&buffer[..n]),
            }
        }
        let digest = Sha256(hasher.finalize().into());
        blobs.insert(digest, place);
        Ok(Descriptor { media_type: media_type.into(), digest, size: place.size, platform: None, name: None })
    }
}

/// A member's name without `.`, and with each `..` taking away what is before it.
fn normal(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

impl Source for Archive {
    fn top(&self) -> Result<Vec<u8>, OciError> {
        match &self.kind {
            Kind::Oci { which, reference } => {
                let index = self.members.small("index.json", LARGEST_MANIFEST)?;
                self.manifest(&layout::named(&index, which, &self.members.path, reference)?)
            }
            Kind::Docker { manifest, .. } => Ok(manifest.clone()),
        }
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>, OciError> {
        match &self.kind {
            Kind::Docker { manifest, .. } if Sha256::of(manifest) == descriptor.digest => {
                Ok(manifest.clone())
            }
            Kind::Docker { .. } => Err(self.members.shape("it holds no image of that digest")),
            Kind::Oci { .. } => {
                let place = self.place(descriptor)?;
                let mut bytes = Vec::new();
                let failed = |source| OciError::Read { path: self.members.path.clone(), source };
                self.members
                    .reader(place)?
                    .take(LARGEST_MANIFEST + 1)
                    .read_to_end(&mut bytes)
                    .map_err(failed)?;
                Ok(bytes)
            }
        }
    }

    fn blob(
        &self,
        descriptor: &Descriptor,
        draft: &mut BlobDraft,
        news: &dyn Fn(u64),
    ) -> Result<(), OciError> {
        let mut reader = self.members.reader(self.place(descriptor)?)?.take(descriptor.size + 1);
        draft.restart()?;
        draft.write_all(&mut reader)?;
        news(draft.length());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn names_stay_inside() {
        assert_eq!(normal(b"./a//b/../c"), "a/c");
        assert_eq!(normal(b"../../../etc/passwd"), "etc/passwd");
    }
}
