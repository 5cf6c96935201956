//! Images from a registry.

use std::io::Read;

use kiln_model::{RegistryReference, Sha256};
use kiln_store::BlobDraft;
use ureq::http::{Response, header};
use ureq::{Agent, Body};

use super::document::{Descriptor, LARGEST_MANIFEST};
use super::error::OciError;
use super::http::{Http, Wish, body};
use super::registry::RegistryError;
use super::source::Source;

/// What is understood as a manifest or index.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
/// A blob that is cut off is asked for again as long as this much more of it arrives each time, …
const PROGRESS: u64 = 64 << 10;
/// … many times if it is less, …
const PATIENCE_WITH_LITTLE: usize = 256;
/// … and a few times if it is nothing.
const PATIENCE: usize = 4;

/// One repository, to take an image from.
pub(crate) struct Pull<'a> {
    http: Http<'a>,
    reference: &'a RegistryReference,
    cancelled: &'a (dyn Fn() -> bool + Sync),
}

impl<'a> Pull<'a> {
    pub(crate) fn new(
        reference: &'a RegistryReference,
        cancelled: &'a (dyn Fn() -> bool + Sync),
    ) -> Result<Self, RegistryError> {
        Ok(Self { http: Http::new(reference, Wish::Pull, cancelled)?, reference, cancelled })
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, RegistryError> {
        let url = self.http.url(&format!("manifests/{name}"));
        let asked = format!("GET {url}");
        let response = self.http.ask(&asked, &[], &|agent, authorization| {
            with(agent.get(&url).header(header::ACCEPT, ACCEPT), authorization).call()
        })?;
        let told =
            response.headers().get("docker-content-digest").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let bytes = body(&asked, response, LARGEST_MANIFEST)?;
        let found = Sha256::of(&bytes);
        match told.as_deref().and_then(|told| told.strip_prefix("sha256:")) {
            Some(told) if told != found.hex() => {
                let problem =
                    format!("it gives the digest sha256:{told}, and the bytes have sha256:{}", found.hex());
                Err(RegistryError::Contradiction { asked, problem })
            }
            _ => Ok(bytes),
        }
    }

    /// The blob from where `draft` ends, which may be its beginning.
    fn rest(&self, asked: &str, url: &str, draft: &mut BlobDraft) -> Result<Response<Body>, RegistryError> {
        let from = draft.length();
        let send = |agent: &Agent, authorization: Option<&str>| {
            let mut request = with(agent.get(url), authorization);
            if from > 0 {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            request.call()
        };
        let response = self.http.ask(asked, &[416], &send)?;
        let range = response.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok());
        let goes_on =
            response.status() == 206 && range.is_some_and(|r| r.starts_with(&format!("bytes {from}-")));
        if from > 0 && !goes_on {
            draft.restart()?;
        }
        if from == 0 || goes_on || response.status() == 200 {
            return Ok(response);
        }
        // It does not like where this begins: all of it, then.
        let whole = |agent: &Agent, authorization: Option<&str>| with(agent.get(url), authorization).call();
        self.http.ask(asked, &[], &whole)
    }

    fn pull(
        &self,
        descriptor: &Descriptor,
        draft: &mut BlobDraft,
        news: &dyn Fn(u64),
    ) -> Result<(), RegistryError> {
        let url = self.http.url(&format!("blobs/sha256:{}", descriptor.digest.hex()));
        let asked = format!("GET {url}");
        let size = descriptor.size;
        if draft.length() > size {
            draft.restart()?;
        }
        news(draft.length());
        let (mut in_vain, mut with_little) = (0, 0);
        let mut furthest = draft.length();
        while draft.length() < size {
            let response = self.rest(&asked, &url, draft)?;
            self.receive(response, size, draft, news)?;
            if draft.length() >= size {
                break;
            }
            // Where it was begun anew, only what was not there before counts.
            let more = draft.length().saturating_sub(furthest);
            furthest = furthest.max(draft.length());
            with_little = if more >= PROGRESS { 0 } else { with_little + 1 };
            in_vain = if more > 0 { 0 } else { in_vain + 1 };
            if in_vain >= PATIENCE || with_little >= PATIENCE_WITH_LITTLE {
                let found = draft.length();
                return Err(RegistryError::Cut { asked, found, expected: size, attempts: with_little });
            }
        }
        Ok(())
    }

    /// What arrives until it ends or is cut; never more than one byte too much, by which that shows.
    fn receive(
        &self,
        response: Response<Body>,
        size: u64,
        draft: &mut BlobDraft,
        news: &dyn Fn(u64),
    ) -> Result<(), RegistryError> {
        let mut reader = response.into_body().into_reader();
        let mut piece = vec![0; 128 << 10];
        while draft.length() <= size {
            if (self.cancelled)() {
                return Err(RegistryError::Cancelled);
            }
            let room = usize::try_from(size + 1 - draft.length()).unwrap_or(usize::MAX).min(piece.len());
            match reader.read(&mut piece[..room]) {
                Ok(0) | Err(_) => break,
                Ok(n) => {
                    draft.write(&piece[..n])?;
                    news(n as u64);
                }
            }
        }
        Ok(())
    }
}

/// A request of somebody.
pub(crate) fn with<B>(
    request: ureq::RequestBuilder<B>,
    authorization: Option<&str>,
) -> ureq::RequestBuilder<B> {
    match authorization {
        Some(value) => request.header(header::AUTHORIZATION, value),
        None => request,
    }
}

impl Source for Pull<'_> {
    fn top(&self) -> Result<Vec<u8>, OciError> {
        match self.reference.which.digest {
            None => Ok(self.document(self.reference.tag())?),
            Some(digest) => {
                let bytes = self.document(&format!("sha256:{}", digest.hex()))?;
                let found = Sha256::of(&bytes);
                if found == digest {
                    return Ok(bytes);
                }
                let reference = self.reference.to_string();
                Err(OciError::Hash { what: "manifest", reference, expected: digest, found })
            }
        }
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>, OciError> {
        Ok(self.document(&format!("sha256:{}", descriptor.digest.hex()))?)
    }

    fn blob(
        &self,
        descriptor: &Descriptor,
        draft: &mut BlobDraft,
        news: &dyn Fn(u64),
    ) -> Result<(), OciError> {
        Ok(self.pull(descriptor, draft, news)?)
    }
}
