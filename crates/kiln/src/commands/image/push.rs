//! `kiln image push`

use clap::Args;
use kiln_bake::export::{Pushed, push};
use kiln_control::SystemClock;
use kiln_control::pipeline;
use kiln_model::{ExitCode, Failure, OciReference, RegistryReference};

use super::{AppDirectory, Wanted, find};
use crate::context::Context;
use crate::offline::Onlooker;
use crate::{progress, words};

const EXAMPLES: &str = "\
Examples:
  kiln image push web registry.example.com/team/web:1.0
  kiln image push 5d0c 127.0.0.1:5000/web            a registry on this machine is spoken to without TLS

Credentials are those of `podman login` and `docker login`. Layers that the registry has are not sent again.";

/// An image into a registry, as an OCI image
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Push {
    #[command(flatten)]
    wanted: Wanted,
    /// Where to: registry, repository and tag
    #[arg(value_name = "REFERENCE")]
    reference: String,
    #[command(flatten)]
    app: AppDirectory,
}

pub(crate) fn run(args: &Push, context: &Context) -> Result<(), Failure> {
    let reference = reference(&args.reference)?;
    let store = context.store()?;
    let image = find::open(&args.wanted.image, &args.app.directory, &store)?;
    let onlooker = Onlooker::new(progress::reporter(context.output))?;
    let teller = pipeline::Teller::new(&onlooker, &SystemClock);
    let result = push(&image, &reference, pipeline::architecture()?, &teller);
    let (pushed, _) = onlooker.end(result)?;
    context.output.result(&pushed, || words_for(&pushed, &reference))
}

fn reference(text: &str) -> Result<RegistryReference, Failure> {
    let wrong = |problem: String| {
        Failure::new(ExitCode::Usage, problem)
            .hint("name registry, repository and tag, like `registry.example.com/team/web:1.0`")
    };
    // As kiln.toml would have it.
    match text.strip_prefix("oci:").unwrap_or(text).parse() {
        Ok(OciReference::Registry(reference)) if reference.which.digest.is_none() => Ok(reference),
        Ok(OciReference::Registry(_)) => {
            Err(wrong(format!("`{text}` names a digest, which what is pushed will have by itself")))
        }
        Ok(OciReference::Path { .. }) => Err(wrong(format!("`{text}` names no registry"))),
        Err(error) => Err(wrong(error.to_string())),
    }
}

fn words_for(pushed: &Pushed, reference: &RegistryReference) -> String {
    let sent = match pushed.new_bytes {
        0 => "nothing to send, the registry had all of it".into(),
        all if all == pushed.bytes => "all of it sent".into(),
        some => format!("{} sent, the registry had the rest", words::bytes(some)),
    };
    format!(
        "image {} is now {reference}, manifest {}\n{} in {}: {sent}",
        pushed.image.short(),
        pushed.manifest,
        words::bytes(pushed.bytes),
        words::count(pushed.layers as u64, "layer"),
    )
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use kiln_model::{ImageDigest, Sha256};

    use super::*;

    #[test]
    fn a_registry_is_named_as_everywhere() {
        let host = |text| reference(text).map(|r| (r.host, r.repository)).map_err(|failure| failure.code);
        let meant = Ok(("127.0.0.1:5000".to_owned(), "team/web".to_owned()));
        assert_eq!(
            [host("127.0.0.1:5000/team/web:1"), host("oci:127.0.0.1:5000/team/web:1")],
            [meant.clone(), meant]
        );
        for none in ["docker:127.0.0.1:5000/web", "oci:./web", "web:1"] {
            assert_eq!(host(none), Err(ExitCode::Usage), "{none}");
        }
    }

    #[test]
    fn what_was_sent_is_said_plainly() {
        let reference = reference("registry.example.com/team/web:1.0").unwrap();
        let words = |layers, new_bytes| {
            let image = ImageDigest(Sha256([0x5d; 32]));
            let manifest = "sha256:0c".to_owned();
            words_for(&Pushed { image, manifest, layers, bytes: 3 << 20, new_bytes }, &reference)
        };
        assert_snapshot!(words(5, 3 << 20), @r"
        image 5d5d5d5d5d5d is now registry.example.com/team/web:1.0, manifest sha256:0c
        3.0 MiB in 5 layers: all of it sent
        ");
        assert_snapshot!(words(5, 1536), @r"
        image 5d5d5d5d5d5d is now registry.example.com/team/web:1.0, manifest sha256:0c
        3.0 MiB in 5 layers: 1.5 KiB sent, the registry had the rest
        ");
        assert_snapshot!(words(1, 0), @r"
        image 5d5d5d5d5d5d is now registry.example.com/team/web:1.0, manifest sha256:0c
        3.0 MiB in 1 layer: nothing to send, the registry had all of it
        ");
    }
}
