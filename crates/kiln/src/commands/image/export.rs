//! `kiln image export`

use std::path::{Path, PathBuf};

use clap::Args;
use kiln_bake::export::{OciForm, to_erofs, to_oci, to_tar};
use kiln_control::SystemClock;
use kiln_control::pipeline;
use kiln_model::{Failure, ImageDigest, LayoutName};
use serde_json::json;

use super::{AppDirectory, Wanted, find};
use crate::context::Context;
use crate::offline::Onlooker;
use crate::{progress, words};

const EXAMPLES: &str = "\
Examples:
  kiln image export web --oci web.tar      then: podman load -i web.tar, or skopeo copy oci-archive:web.tar …
  kiln image export web --oci layout/      an OCI layout as a directory
  kiln image export web --tar web-root.tar the root filesystem as one archive
  kiln image export web --erofs web.erofs  a file system to mount, with all contents inside";

/// An image as a file for others: an OCI image, a tar archive, an EROFS file system
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Export {
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    form: Form,
    /// The name it has in the OCI layout [default: the image's own]
    #[arg(long, value_name = "NAME", requires = "oci", conflicts_with_all = ["tar", "erofs"])]
    tag: Option<LayoutName>,
    #[command(flatten)]
    app: AppDirectory,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Form {
    /// An OCI image: an archive if PATH ends with `.tar`, else a directory
    #[arg(long, value_name = "PATH")]
    oci: Option<PathBuf>,
    /// One tar archive of the whole tree
    #[arg(long, value_name = "FILE")]
    tar: Option<PathBuf>,
    /// A file system that needs nothing else: it can be mounted, and booted from
    #[arg(long, value_name = "FILE")]
    erofs: Option<PathBuf>,
}

pub(crate) fn run(args: &Export, context: &Context) -> Result<(), Failure> {
    let store = context.store()?;
    let image = find::open(&args.wanted.image, &args.app.directory, &store)?;
    let onlooker = Onlooker::new(progress::reporter(context.output))?;
    let teller = pipeline::Teller::new(&onlooker, &SystemClock);
    let digest = image.record.digest;
    let result = match &args.form {
        Form { oci: Some(path), .. } => {
            let form = match path.extension() {
                Some(extension) if extension == "tar" => OciForm::Archive,
                _ => OciForm::Directory,
            };
            let tag = args.tag.as_ref().map_or(image.record.name.as_str(), LayoutName::as_str);
            let exported = to_oci(&image, path, form, tag, pipeline::architecture()?, &teller);
            exported.map(|made| (path, made.bytes, Some(made.manifest)))
        }
        Form { tar: Some(path), .. } => to_tar(&image, path).map(|bytes| (path, bytes, None)),
        Form { erofs: Some(path), .. } => to_erofs(&image, path).map(|bytes| (path, bytes, None)),
        // One of them is there: clap has seen to that.
        Form { .. } => return Err(Failure::new(kiln_model::ExitCode::Bug, "no form to export in")),
    };
    let ((path, bytes, manifest), _) = onlooker.end(result)?;
    let mut value = json!({ "image": digest.to_string(), "path": path, "bytes": bytes });
    if let Some(manifest) = &manifest {
        value["manifest"] = manifest.clone().into();
    }
    context.output.result(&value, || words_for(&digest, path, bytes, manifest.as_deref()))
}

fn words_for(image: &ImageDigest, path: &Path, bytes: u64, manifest: Option<&str>) -> String {
    let manifest = manifest.map(|m| format!(", manifest {m}")).unwrap_or_default();
    format!("image {} in {} ({}{manifest})", image.short(), path.display(), words::bytes(bytes))
}
