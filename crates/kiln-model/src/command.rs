//! Everything a host can be told or asked, as one enum: the command line and the HTTP API both lower into it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    AppName, ByteSize, ImageName, InstanceId, Millis, PackageRule, SecretName, SecretValue, SecretVersion,
    ServiceName,
};

/// One thing a host can be told or asked. Releases are given as people type them: a whole id or the beginning of
/// one. Where `app` is absent, the only app of the host is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Bake, check, plan and execute. Answers with [`crate::Answer::Deployed`].
    Deploy {
        /// The directory that holds `kiln.toml`, absolute.
        dir: PathBuf,
        /// Fail rather than change `kiln.lock`.
        locked: bool,
        /// Take the place of a deploy or rollback that is under way and does not serve yet.
        #[serde(default)]
        supersede: bool,
    },
    /// What a deploy would do, without doing it. Answers with [`crate::Answer::Plan`].
    Plan {
        /// The directory that holds `kiln.toml`, absolute.
        dir: PathBuf,
    },
    /// Back to the previous release, or to any in the log. Answers with [`crate::Answer::Deployed`].
    Rollback {
        /// Which app.
        app: Option<AppName>,
        /// Which release; the previous one if absent.
        release: Option<String>,
        /// The version of the schema the data has now, if it is not the one the live release left it at.
        #[serde(default)]
        schema: Option<u32>,
        /// Take the place of a deploy or rollback that is under way and does not serve yet.
        #[serde(default)]
        supersede: bool,
    },
    /// Follow what is under way to its end, whoever asked for it, or tell how an operation ended. Streams its events,
    /// answers with [`crate::Answer::Waited`].
    Wait {
        /// Which app.
        app: Option<AppName>,
        /// The number of the operation; what is under way if absent.
        operation: Option<u64>,
    },
    /// Give up the deploy or rollback that is under way, whoever asked for it. Answers with
    /// [`crate::Answer::Cancelled`].
    Cancel {
        /// Which app.
        app: Option<AppName>,
    },
    /// Have requests wait at the edge. Answers with [`crate::Answer::Done`] when all new ones do.
    Pause {
        /// Which app.
        app: Option<AppName>,
        /// How long each waits before it is refused with 503.
        wait: Millis,
    },
    /// Let them go on. Answers with [`crate::Answer::Done`].
    Resume {
        /// Which app.
        app: Option<AppName>,
    },
    /// What runs. Answers with [`crate::Answer::Status`].
    Status {
        /// Which app.
        app: Option<AppName>,
    },
    /// What there is to go back to. Answers with [`crate::Answer::Releases`].
    Releases {
        /// Which app.
        app: Option<AppName>,
    },
    /// One release in full. Answers with [`crate::Answer::Release`].
    ReleaseShow {
        /// Which app.
        app: Option<AppName>,
        /// Which release.
        release: String,
    },
    /// What differs between two releases. Answers with [`crate::Answer::ReleaseDiff`].
    ReleaseDiff {
        /// Which app.
        app: Option<AppName>,
        /// The one.
        from: String,
        /// The other.
        to: String,
    },
    /// What runs where. Answers with [`crate::Answer::Instances`].
    Instances {
        /// Which app; all if absent.
        app: Option<AppName>,
        /// Those that were replaced, too.
        #[serde(default)]
        all: bool,
    },
    /// What differs between an instance and its image. Answers with [`crate::Answer::Diff`].
    Diff {
        /// Which instance.
        instance: InstanceId,
    },
    /// The current state of an instance as a new image. Answers with [`crate::Answer::Committed`].
    Commit {
        /// Which instance.
        instance: InstanceId,
        /// What the image is called; as the one it was made from if absent.
        name: Option<ImageName>,
    },
    /// Who did what. Answers with [`crate::Answer::Log`].
    Log {
        /// Which app; all if absent.
        app: Option<AppName>,
        /// At most so many operations, newest first.
        limit: Option<u32>,
    },
    /// One release as a file. Answers with [`crate::Answer::Exported`].
    Export {
        /// Which app.
        app: Option<AppName>,
        /// Which release.
        release: String,
        /// The file on the host, absolute.
        file: PathBuf,
        /// The recipients its secrets are encrypted to, as age writes them; without any, there are no secrets in it.
        #[serde(default)]
        secrets_to: Vec<String>,
    },
    /// A release from a file. Answers with [`crate::Answer::Imported`].
    Import {
        /// The file on the host, absolute.
        file: PathBuf,
        /// The text of a file of identities that opens the secrets in it.
        #[serde(default)]
        identity: Option<SecretValue>,
        /// Leave the secrets in it where they are.
        #[serde(default)]
        without_secrets: bool,
    },
    /// Keep a release whatever else goes, until it is unpinned. Answers with [`crate::Answer::Pinned`].
    Pin {
        /// Which app.
        app: Option<AppName>,
        /// Which release.
        release: String,
    },
    /// Let a release go with the others again. Answers with [`crate::Answer::Pinned`].
    Unpin {
        /// Which app.
        app: Option<AppName>,
        /// Which release.
        release: String,
    },
    /// Let old releases go. Answers with [`crate::Answer::Gc`].
    Gc {
        /// So many releases of each app stay.
        keep: u32,
        /// Of releases that served or were imported, only those go to which that happened longer ago than this.
        older_than: Option<Millis>,
        /// Only so many go, the oldest first, as it takes until the store is no larger than this.
        #[serde(default)]
        bytes: Option<ByteSize>,
        /// Images that no release needs go when they are older than this; an hour if absent.
        #[serde(default)]
        images_older_than: Option<Millis>,
        /// Caches go as well.
        caches: bool,
        /// Only say what would go.
        dry_run: bool,
    },
    /// Follow the hash chain of the operation log. Answers with [`crate::Answer::LogVerified`].
    LogVerify,
    /// Give a secret a value. Answers with [`crate::Answer::Secret`].
    SecretSet {
        /// Which app.
        app: Option<AppName>,
        /// Which secret.
        name: SecretName,
        /// The value; in JSON its bytes in hex.
        value: SecretValue,
        /// Make another key if the one that values are sealed with is gone: what nothing opens any more is given up.
        #[serde(default)]
        new_key: bool,
    },
    /// What secrets there are. Answers with [`crate::Answer::Secrets`].
    SecretList {
        /// Which app.
        app: Option<AppName>,
    },
    /// Remove a secret that no kept release needs. Answers with [`crate::Answer::Done`].
    SecretRemove {
        /// Which app.
        app: Option<AppName>,
        /// Which secret.
        name: SecretName,
        /// Only this version; all if absent.
        version: Option<SecretVersion>,
    },
    /// What instances wrote. Streams [`crate::Event::Output`], answers with [`crate::Answer::Done`].
    Logs {
        /// Which app.
        app: Option<AppName>,
        /// Only of this service.
        service: Option<ServiceName>,
        /// Only of this instance.
        instance: Option<InstanceId>,
        /// Go on with what is written from now on until the asker goes.
        follow: bool,
        /// Only the last so many lines.
        tail: Option<u32>,
    },
    /// The figures of the edge, for Prometheus. Answers with [`crate::Answer::Metrics`].
    Metrics,
    /// Which services, releases and instances hold a package, from the record. Answers with [`crate::Answer::Audit`].
    Audit {
        /// Which app; all if absent.
        app: Option<AppName>,
        /// The package that is asked about; what is recorded of every release if absent.
        package: Option<PackageRule>,
    },
    /// Looks at everything in the store again, and compares every running instance with its release. Answers with
    /// [`crate::Answer::Verify`].
    Verify {
        /// Whether what is damaged is removed, so that the next bake makes it again.
        repair: bool,
    },
    /// Stop everything this host runs, and the host. Answers with [`crate::Answer::Done`], or with
    /// [`crate::Answer::Unrecorded`] where the operation log cannot be written.
    Down,
}
