//! An image as an OCI image: layers, configuration, manifest, and a layout that holds them.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use kiln_model::{ImageDigest, RunSettings, Sha256, Tree, signal};
use rayon::prelude::*;
use serde::Serialize;
use sha2::Digest as _;

use super::{ExportError, Stored, cut, tarball};
use crate::oci::document::Descriptor;
use crate::oci::{layer, written};
use crate::order::Report;
use crate::report::Task;
use crate::tree_file;

/// Layers that were made before, under the digest of their tree. The number changes with what is done here.
const CACHE: &str = "oci-export-1";
/// Of all images, so that the same image is the same bytes.
const CREATED: &str = "1970-01-01T00:00:00Z";
/// The label that says which image of Kiln's this is.
const LABEL: &str = "kiln.image";

/// A layout as a directory, or as one archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OciForm {
    /// A directory.
    Directory,
    /// A tar archive.
    Archive,
}

/// What an image became outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pushed {
    /// The image.
    pub image: ImageDigest,
    /// The digest of its OCI manifest, with its algorithm.
    pub manifest: String,
    /// How many layers it has.
    pub layers: usize,
    /// Bytes of all its blobs.
    pub bytes: u64,
    /// Bytes that were not there yet.
    pub new_bytes: u64,
}

/// A layer of an image being exported.
pub(crate) struct Layer {
    tree: Tree,
    pub(crate) descriptor: Descriptor,
    diff_id: Sha256,
}

/// An image with its documents; blobs of layers are made when they are asked for.
pub(crate) struct Made {
    pub(crate) layers: Vec<Layer>,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
}

/// Writes the image to `path`, called `tag` there.
///
/// # Errors
/// If something is at `path` already, or it cannot be written.
pub fn to_oci(
    image: &Stored<'_>,
    path: &Path,
    form: OciForm,
    tag: &str,
    architecture: &str,
    report: &dyn Report,
) -> Result<Pushed, ExportError> {
    ExportError::if_there(path)?;
    let made = make(image, architecture, report)?;
    let task = Task::new(report, "writing the OCI image", "bytes", Some(made.bytes()));
    match form {
        OciForm::Directory => directory(image, &made, path, tag, &task)?,
        OciForm::Archive => archive(image, &made, path, tag, &task)?,
    }
    task.finish();
    Ok(made.pushed(image, made.bytes()))
}

/// Cuts the image into layers and describes them.
pub(crate) fn make(image: &Stored<'_>, architecture: &str, report: &dyn Report) -> Result<Made, ExportError> {
    image.check_whole()?;
    if let Some((path, _)) = image.tree.iter().find(|(path, _)| layer::says_gone(path)) {
        return Err(ExportError::SaysGone(String::from_utf8_lossy(path).into_owned()));
    }
    let trees = cut::layers(image)?;
    let task = Task::new(report, "making OCI layers", "layers", Some(trees.len() as u64));
    let layer = |tree: Tree| {
        if report.cancelled() {
            return Err(ExportError::Cancelled);
        }
        let layer = Layer::described(image, tree)?;
        task.add(1);
        Ok(layer)
    };
    let layers = trees.into_par_iter().map(layer).collect::<Result<Vec<_>, _>>()?;
    task.finish();
    let config = config(image, &layers, architecture);
    let descriptors: Vec<Descriptor> = layers.iter().map(|layer| layer.descriptor.clone()).collect();
    let manifest = written::manifest(&written::described(written::CONFIG, &config), &descriptors);
    Ok(Made { layers, config, manifest })
}

impl Made {
    pub(crate) fn bytes(&self) -> u64 {
        let layers: u64 = self.layers.iter().map(|layer| layer.descriptor.size).sum();
        layers + (self.config.len() + self.manifest.len()) as u64
    }

    pub(crate) fn pushed(&self, image: &Stored<'_>, new_bytes: u64) -> Pushed {
        Pushed {
            image: image.record.digest,
            manifest: format!("sha256:{}", Sha256::of(&self.manifest).hex()),
            layers: self.layers.len(),
            bytes: self.bytes(),
            new_bytes,
        }
    }
}

impl Layer {
    /// What the layer of `tree` is; known from an earlier time, or found by making it.
    fn described(image: &Stored<'_>, tree: Tree) -> Result<Self, ExportError> {
        let key = Sha256::of(&tree_file::encode(&tree));
        let known = image.store.cache_get(CACHE, &key).and_then(|bytes| remembered(&bytes));
        let (digest, size, diff_id) = match known {
            Some(known) => known,
            None => {
                let made = write(image, &tree)?;
                let bytes = [&made.0.0[..], &made.1.to_le_bytes(), &made.2.0].concat();
                image.store.cache_put(CACHE, &key, &bytes)?;
                made
            }
        };
        let media_type = written::LAYER_GZIP.into();
        let descriptor = Descriptor { media_type, digest, size, platform: None, name: None };
        Ok(Self { tree, descriptor, diff_id })
    }

    /// Where its bytes are; made again if they are gone.
    pub(crate) fn blob(&self, image: &Stored<'_>) -> Result<PathBuf, ExportError> {
        if let Some(path) = image.store.blob(&self.descriptor.digest)? {
            return Ok(path);
        }
        write(image, &self.tree)?;
        image.store.blob(&self.descriptor.digest)?.ok_or_else(|| {
            let problem =
                io::Error::other("made again, the layer has other bytes: another version made it before");
            ExportError::Write { path: image.store.root().join("blobs"), source: problem }
        })
    }
}

fn remembered(bytes: &[u8]) -> Option<(Sha256, u64, Sha256)> {
    let (digest, rest) = bytes.split_first_chunk::<32>()?;
    let (size, rest) = rest.split_first_chunk::<8>()?;
    Some((Sha256(*digest), u64::from_le_bytes(*size), Sha256(rest.try_into().ok()?)))
}

/// Makes a layer's blob: its digest, its size, and the digest of what it is uncompressed. The compressor is part of
/// this program and told nothing of the moment, so that the same tree gives the same bytes.
fn write(image: &Stored<'_>, tree: &Tree) -> Result<(Sha256, u64, Sha256), ExportError> {
    let root = image.store.root().join("blobs");
    let blob = image.store.new_blob()?;
    let mut gzip = Hashed { inner: GzEncoder::new(blob, Compression::new(6)), hasher: sha2::Sha256::new() };
    tarball::write(image, tree, &mut gzip).map_err(ExportError::write(&root))?;
    let Hashed { inner, hasher } = gzip;
    let (digest, size) = inner.finish().map_err(ExportError::write(&root))?.finish()?;
    Ok((digest, size, Sha256(hasher.finalize().into())))
}

struct Hashed<W> {
    inner: W,
    hasher: sha2::Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// How the image is run, in the words of OCI.
fn config(image: &Stored<'_>, layers: &[Layer], architecture: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Config<'a> {
        created: &'a str,
        architecture: &'a str,
        os: &'a str,
        config: Run<'a>,
        rootfs: RootFs,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Run<'a> {
        user: String,
        env: Vec<String>,
        entrypoint: &'a [String],
        working_dir: &'a str,
        stop_signal: String,
        labels: BTreeMap<&'a str, String>,
    }
    #[derive(Serialize)]
    struct RootFs {
        r#type: &'static str,
        diff_ids: Vec<String>,
    }
    let run = &image.record.run;
    written::bytes(&Config {
        created: CREATED,
        architecture,
        os: "linux",
        config: Run {
            user: user(run),
            env: run.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            entrypoint: &run.argv,
            working_dir: &run.workdir,
            stop_signal: signal::name(run.stop_signal).map_or(run.stop_signal.to_string(), str::to_owned),
            labels: [(LABEL, image.record.digest.to_string())].into(),
        },
        rootfs: RootFs {
            r#type: "layers",
            diff_ids: layers.iter().map(|layer| format!("sha256:{}", layer.diff_id.hex())).collect(),
        },
    })
}

/// By number where that says it all; by name where there are further groups, which only a name leads to.
fn user(run: &RunSettings) -> String {
    if run.groups.is_empty() { format!("{}:{}", run.uid, run.gid) } else { run.user.clone() }
}

fn index(made: &Made, tag: &str) -> Vec<u8> {
    let mut manifest = written::described(written::MANIFEST, &made.manifest);
    manifest.name = Some(tag.to_owned());
    written::index(&[manifest])
}

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

fn directory(
    image: &Stored<'_>,
    made: &Made,
    path: &Path,
    tag: &str,
    task: &Task<'_>,
) -> Result<(), ExportError> {
    ExportError::if_there(path)?;
    let partial = beside(path);
    let blobs = partial.join("blobs/sha256");
    let written = (|| {
        fs::create_dir_all(&blobs).map_err(ExportError::write(&blobs))?;
        for layer in &made.layers {
            let to = blobs.join(layer.descriptor.digest.hex());
            fs::copy(layer.blob(image)?, &to).map_err(ExportError::write(&to))?;
            task.add(layer.descriptor.size);
        }
        let small = |path: PathBuf, bytes: &[u8]| fs::write(&path, bytes).map_err(ExportError::write(&path));
        small(blobs.join(Sha256::of(&made.config).hex()), &made.config)?;
        small(blobs.join(Sha256::of(&made.manifest).hex()), &made.manifest)?;
        small(partial.join("index.json"), &index(made, tag))?;
        small(partial.join("oci-layout"), LAYOUT)?;
        fs::rename(&partial, path).map_err(ExportError::write(path))
    })();
    if written.is_err() {
        let _ = fs::remove_dir_all(&partial);
    }
    written
}

fn archive(
    image: &Stored<'_>,
    made: &Made,
    path: &Path,
    tag: &str,
    task: &Task<'_>,
) -> Result<(), ExportError> {
    let blobs: BTreeMap<String, PathBuf> = made
        .layers
        .iter()
        .map(|layer| Ok((layer.descriptor.digest.hex(), layer.blob(image)?)))
        .collect::<Result<_, ExportError>>()?;
    let small = [&made.config, &made.manifest].map(|bytes| (Sha256::of(bytes).hex(), bytes.as_slice()));
    new_file(path, |file| {
        let mut out = tar::Builder::new(BufWriter::with_capacity(1 << 20, file));
        add(&mut out, "oci-layout", LAYOUT.len() as u64, LAYOUT)?;
        let index = index(made, tag);
        add(&mut out, "index.json", index.len() as u64, index.as_slice())?;
        for (digest, bytes) in small {
            add(&mut out, &format!("blobs/sha256/{digest}"), bytes.len() as u64, bytes)?;
        }
        for (digest, blob) in &blobs {
            let blob = File::open(blob)?;
            let size = blob.metadata()?.len();
            add(&mut out, &format!("blobs/sha256/{digest}"), size, blob)?;
            task.add(size);
        }
        out.into_inner()?.flush()
    })
    .map(drop)
}

fn add(out: &mut tar::Builder<impl Write>, name: &str, size: u64, content: impl io::Read) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    out.append_data(&mut header, name, content)
}

fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    path.with_file_name(format!(".{name}.{}.new", std::process::id()))
}

/// Writes a file that is not there yet, all of it or nothing; its size.
pub(crate) fn new_file(
    path: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<u64, ExportError> {
    ExportError::if_there(path)?;
    let partial = beside(path);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&partial)?;
        fill(&mut file)?;
        file.sync_all()?;
        let size = file.metadata()?.len();
        // Never over what somebody else has put there meanwhile.
        fs::hard_link(&partial, path)?;
        Ok(size)
    })();
    let _ = fs::remove_file(&partial);
    written.map_err(ExportError::write(path))
}
