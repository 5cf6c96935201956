//! An image into a registry. What the registry has already is not sent again, nor made again.

use std::cell::Cell;
use std::fs::File;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use kiln_model::{RegistryReference, Sha256};
use ureq::http::{Response, header};
use ureq::{Agent, Body};

use super::oci::{Made, Pushed, make};
use super::{ExportError, Stored};
use crate::fetch::CONNECTIONS;
use crate::oci::RegistryError;
use crate::oci::http::{Http, Wish, body};
use crate::oci::pull::with;
use crate::oci::written;
use crate::order::Report;
use crate::report::Task;

/// Pushes the image as `reference`.
///
/// # Errors
/// If the registry cannot be reached or refuses; blobs that arrived stay there, the tag is set last of all.
pub fn push(
    image: &Stored<'_>,
    reference: &RegistryReference,
    architecture: &str,
    report: &dyn Report,
) -> Result<Pushed, ExportError> {
    let made = make(image, architecture, report)?;
    let cancelled = || report.cancelled();
    let http = Http::new(reference, Wish::Push, &cancelled)?;
    let task = Task::new(report, "pushing", "bytes", Some(made.bytes()));
    let pusher = Pusher { image, made: &made, http: &http, task: &task, sent: AtomicU64::new(0) };
    // First alone: whether it may be done at all is found out once, not by all at the same time.
    pusher.small(&made.config)?;
    pusher.layers()?;
    pusher.manifest(reference.tag())?;
    pusher.read_back()?;
    task.finish();
    Ok(made.pushed(image, pusher.sent.into_inner()))
}

struct Pusher<'a> {
    image: &'a Stored<'a>,
    made: &'a Made,
    http: &'a Http<'a>,
    task: &'a Task<'a>,
    sent: AtomicU64,
}

impl Pusher<'_> {
    /// The first failure ends it all.
    fn layers(&self) -> Result<(), ExportError> {
        let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
        let work = || {
            while let Some(layer) = self.made.layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = self.layer(layer) {
                    next.store(self.made.layers.len(), Ordering::Relaxed);
                    failure.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(error);
                }
            }
        };
        thread::scope(|scope| (0..CONNECTIONS).for_each(|_| drop(scope.spawn(work))));
        failure.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(()), Err)
    }

    fn layer(&self, layer: &super::oci::Layer) -> Result<(), ExportError> {
        let (digest, size) = (layer.descriptor.digest, layer.descriptor.size);
        if !self.has(&digest)? {
            let path = layer.blob(self.image)?;
            self.upload(&digest, size, &|| File::open(&path).map_err(ExportError::write(&path)))?;
        }
        self.task.add(size);
        Ok(())
    }

    fn small(&self, bytes: &[u8]) -> Result<(), ExportError> {
        let digest = Sha256::of(bytes);
        if !self.has(&digest)? {
            let path = self.image.store.blob(&self.image.store.put_blob(bytes)?)?.unwrap_or_default();
            self.upload(&digest, bytes.len() as u64, &|| {
                File::open(&path).map_err(ExportError::write(&path))
            })?;
        }
        self.task.add(bytes.len() as u64);
        Ok(())
    }

    fn has(&self, digest: &Sha256) -> Result<bool, ExportError> {
        self.is_there(&format!("blobs/sha256:{}", digest.hex()))
    }

    fn is_there(&self, what: &str) -> Result<bool, ExportError> {
        let url = self.http.url(what);
        let send = |agent: &Agent, authorization: Option<&str>| {
            // A registry may hide a manifest from who does not read its type; of a blob it does not ask.
            with(agent.head(&url), authorization).header(header::ACCEPT, written::MANIFEST).call()
        };
        let response = self.http.ask(&format!("HEAD {url}"), &[404], &send)?;
        Ok(response.status() == 200)
    }

    /// In one piece: where it goes is asked first, each time, because an upload that failed is not taken up again.
    fn upload(
        &self,
        digest: &Sha256,
        size: u64,
        open: &dyn Fn() -> Result<File, ExportError>,
    ) -> Result<(), ExportError> {
        let url = self.http.url("blobs/uploads/");
        let (file, leads_nowhere) = (open()?, Cell::new(false));
        let send = |agent: &Agent, authorization: Option<&str>| {
            let begun = with(agent.post(&url), authorization).send_empty()?;
            let place = self.place_of(digest, &begun);
            leads_nowhere.set(begun.status().is_success() && place.is_none());
            let Some(place) = place.filter(|_| begun.status().is_success()) else { return Ok(begun) };
            let request = with(agent.put(&place), authorization.filter(|_| self.http.is_own(&place)));
            let mut file = &file;
            std::io::Seek::rewind(&mut file)?;
            request.header(header::CONTENT_TYPE, "application/octet-stream").send(file)
        };
        let asked = format!("POST {url} and PUT");
        self.http.ask(&asked, &[], &send)?;
        if leads_nowhere.get() {
            let problem = "it does not say where the blob is to go".into();
            return Err(RegistryError::Contradiction { asked, problem }.into());
        }
        self.sent.fetch_add(size, Ordering::Relaxed);
        Ok(())
    }

    /// Where the registry wants a blob.
    fn place_of(&self, digest: &Sha256, begun: &Response<Body>) -> Option<String> {
        let location = begun.headers().get(header::LOCATION)?.to_str().ok()?;
        let place = self.http.location(location);
        let separator = if place.contains('?') { '&' } else { '?' };
        Some(format!("{place}{separator}digest=sha256:{}", digest.hex()))
    }

    fn manifest(&self, tag: &str) -> Result<(), ExportError> {
        let bytes = self.made.manifest.as_slice();
        let is_new = !self.is_there(&format!("manifests/sha256:{}", Sha256::of(bytes).hex()))?;
        // Also one that is there already: it may have another tag, or the tag may be another's.
        let url = self.http.url(&format!("manifests/{tag}"));
        let send = |agent: &Agent, authorization: Option<&str>| {
            let request = with(agent.put(&url), authorization);
            request.header(header::CONTENT_TYPE, written::MANIFEST).send(bytes)
        };
        self.http.ask(&format!("PUT {url}"), &[], &send)?;
        self.task.add(bytes.len() as u64);
        if is_new {
            self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    /// What answers 200 to everything is no registry: what was pushed counts if it can be had again.
    fn read_back(&self) -> Result<(), ExportError> {
        let expected = Sha256::of(&self.made.manifest);
        let url = self.http.url(&format!("manifests/sha256:{}", expected.hex()));
        let send = |agent: &Agent, authorization: Option<&str>| {
            with(agent.get(&url), authorization).header(header::ACCEPT, written::MANIFEST).call()
        };
        let asked = format!("GET {url}");
        let response = self.http.ask(&asked, &[], &send)?;
        let bytes = body(&asked, response, self.made.manifest.len() as u64)?;
        if Sha256::of(&bytes) != expected {
            let problem = "it took the manifest, and has another one now".into();
            return Err(RegistryError::Contradiction { asked, problem }.into());
        }
        Ok(())
    }
}
