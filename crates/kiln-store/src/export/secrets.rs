//! The secrets of a release as they travel: one JSON document, encrypted to recipients and never written otherwise.

use std::path::Path;

use kiln_model::{AppName, Release, SecretName, SecretValue, SecretVersion};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::age::{self, AgeError, Identity, Recipient};
use crate::{Result, Store, StoreError};

/// The version of the document.
const FORMAT: u32 = 1;
/// The most it may be: a thousand secrets of a usual size.
pub(super) const BYTES: u64 = 16 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    app: AppName,
    secrets: Vec<Travelling>,
}

/// One version of one secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Travelling {
    pub(super) name: SecretName,
    pub(super) version: SecretVersion,
    pub(super) value: SecretValue,
}

/// What becomes of the secrets in an export.
#[derive(Debug, Clone, Copy)]
pub enum SecretsOfImport<'a> {
    /// They are opened with these and kept.
    OpenedBy(&'a [Identity]),
    /// They are left where they are.
    LeftOut,
    /// Nobody has said: if there are any, nothing is imported.
    Unsaid,
}

impl Store {
    /// The secrets of a release, encrypted.
    pub(super) fn sealed_secrets(&self, release: &Release, to: &[Recipient]) -> Result<Vec<u8>> {
        let secrets = release.secrets().into_iter().map(|(name, version)| {
            let value = self.secret(&release.app, name, version)?;
            Ok(Travelling { name: name.clone(), version: version.clone(), value })
        });
        let document =
            Document { format: FORMAT, app: release.app.clone(), secrets: secrets.collect::<Result<_>>()? };
        let plain = Zeroizing::new(serde_json::to_vec(&document).expect("plain data"));
        age::encrypt(&plain, to)?.map_err(StoreError::CannotSeal)
    }
}

/// Opens them; what is wrong with them is told by `wrong`.
pub(super) fn open(
    sealed: &[u8],
    identities: &[Identity],
    path: &Path,
    wrong: &dyn Fn(&str) -> StoreError,
) -> Result<(AppName, Vec<Travelling>)> {
    let plain = age::decrypt(sealed, identities).map_err(|e| match e {
        AgeError::Damaged(_) | AgeError::NotAge => wrong(&e.to_string()),
        source => StoreError::CannotOpen { path: path.to_owned(), source },
    })?;
    // What does not read is not repeated: it may be a secret.
    let document: Document =
        serde_json::from_slice(&plain).map_err(|_| wrong("what was encrypted are no secrets"))?;
    if document.format != FORMAT {
        return Err(wrong(&format!("they have format {}, and this Kiln reads {FORMAT}", document.format)));
    }
    Ok((document.app, document.secrets))
}
