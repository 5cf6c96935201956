//! Failures several commands share.

use std::path::Path;

use kiln_model::{AppName, ExitCode, Failure, InstanceId, ReleaseId, SecretName, ServiceName};
use kiln_store::{Store, StoreError};

use crate::world::Trouble;

/// Of what the store refuses or lacks, with the next step.
pub fn store(error: &StoreError) -> Failure {
    if matches!(error, StoreError::InUse) {
        return Failure::from_error(ExitCode::Busy, error).hint("try again when it has ended");
    }
    let failure = Failure::from_error(ExitCode::Host, error);
    if error.is_no_space() {
        failure.hint(StoreError::ON_NO_SPACE)
    } else if matches!(error, StoreError::Foreign { .. }) {
        failure.hint("give --root a directory that is empty, or one that is not there yet")
    } else {
        let failure = match way_out(error) {
            Some(hint) => failure.hint(hint),
            None => failure,
        };
        with_remedy(failure, error)
    }
}

/// What is to be done about what is damaged or gone, where the file says it.
fn way_out(error: &StoreError) -> Option<&'static str> {
    match error {
        StoreError::NoKey { .. } => Some(
            "put the key back from a backup, or name the file that holds it by KILN_SECRETS_KEY_FILE; if there is none any \
             more, `kiln secret set NAME --new-key` makes another one, and every secret is to be set again",
        ),
        StoreError::Key { .. } => Some(
            "put the key back that they were sealed with, or give each that `kiln secret list` marks its value again by \
             `kiln secret set NAME`: the same value is the same version",
        ),
        StoreError::Damaged { path, .. } if is_in(path, "secrets", 3) => Some(
            "`kiln secret set NAME` gives it its value again, and the same value is the same version; `kiln secret rm \
             NAME` removes it",
        ),
        StoreError::Damaged { path, .. } if is_in(path, "releases", 1) => Some(REWRITE),
        StoreError::NoSuchRelease(_) => Some(REWRITE),
        _ => None,
    }
}

/// How a release that is damaged or gone comes back.
const REWRITE: &str = "`kiln import FILE` of an export of the release writes its document again, with --root also where no \
                       host runs, and so does the file from a backup; `kiln verify` tells what else is damaged";

/// Of a host that would have to go on with a release that cannot be had: nothing of what runs is touched.
pub(crate) fn cannot_start(app: &AppName, release: &ReleaseId, root: &Path, error: &StoreError) -> Failure {
    let cause = store(error);
    let message = format!("the host cannot go on: app {app} runs release {release}, which cannot be read");
    let failure = Failure::new(cause.code, message).because(cause.message);
    cause.causes.into_iter().fold(failure, Failure::because).hint(format!(
        "`kiln import FILE --root {}` of an export of the release writes its document again without a host, and so does the \
         file from a backup. Where there is neither, deploy the same project with the same secrets on a host with another \
         --root, by the kiln.toml and kiln.lock in {}: that makes the same release, to be exported there. Until then what runs \
         serves on, and `kiln down` ends it",
        root.display(),
        root.join("releases").join(format!("{release}.documents")).display()
    ))
}

/// Of a host whose operation log lacks what was appended last: whatever was made since would be taken for nobody's.
pub(crate) fn log_ends_before(instance: &InstanceId, more: usize, root: &Path) -> Failure {
    let others = if more == 0 { "runs".into() } else { format!("and {more} more run") };
    let log = root.join("log/operations.jsonl");
    Failure::new(ExitCode::Host, "the host cannot go on: more runs than its operation log tells of")
        .because(format!("{instance} {others}, and {} ends before that was planned", log.display()))
        .hint(
            "put back the file that was there, or what is missing at its end; until then what runs serves on, and `kiln down` \
             ends it",
        )
}

/// Of a sweep that was given up while it was planned.
pub(crate) fn not_swept(error: &StoreError) -> Failure {
    let cause = store(error);
    let failure = Failure::new(cause.code, "nothing was removed: it cannot be told what has to stay");
    let failure = cause.causes.into_iter().fold(failure.because(cause.message), Failure::because);
    failure.hint(cause.hint.unwrap_or_else(|| "`kiln verify` tells what is damaged, and who needs it".into()))
}

/// Of a log that tells of nothing where there is something: nobody knows what of it may go.
pub(crate) fn no_history(releases: usize, root: &Path) -> Failure {
    let are = if releases == 1 { "release is" } else { "releases are" };
    let log = root.join("log/operations.jsonl");
    Failure::new(ExitCode::Host, "nothing was removed: the operation log does not tell what is needed")
        .because(format!("{releases} {are} here, and {} tells of no app", log.display()))
        .hint(
            "if that file was lost, put it back before this host deploys; else `kiln gc` goes on when something was deployed \
             or imported",
        )
}

/// Whether a file of the store is in the part of it that is called so, so far down.
fn is_in(path: &Path, part: &str, depth: usize) -> bool {
    path.ancestors().nth(depth).is_some_and(|dir| dir.ends_with(part))
}

/// Of a secret that is needed and cannot be had. Nothing was made yet.
pub(crate) fn shut(app: &AppName, name: &SecretName, whose: &str, error: &StoreError) -> Failure {
    let cause = store(error);
    let failure =
        Failure::new(cause.code, format!("secret {name} of app {app}, which {whose} needs, cannot be had"))
            .because(cause.message);
    let failure = cause.causes.into_iter().fold(failure, Failure::because);
    let hint = cause.hint.unwrap_or_else(|| "`kiln secret list` tells more".into());
    failure.hint(format!("{}; nothing was made", hint.replace("NAME", name.as_str())))
}

/// Of a secret whose value is to be a variable as well, and has a byte that none can hold.
pub(crate) fn no_variable(name: &SecretName, service: &ServiceName, variable: &str) -> Failure {
    let message = format!("secret {name} cannot be the variable `{variable}` of service {service}");
    Failure::new(ExitCode::Spec, message).because("its value has a NUL byte").hint(format!(
        "its file /run/secrets/{name} holds any bytes: leave out `env` in kiln.toml; nothing was made"
    ))
}

/// Of an operation log that cannot be continued: the host stays as it is until somebody decides.
pub(crate) fn log(error: &StoreError) -> Failure {
    let failure = store(error);
    if !matches!(error, StoreError::Damaged { .. }) {
        return failure;
    }
    failure.hint(
        "`kiln log --repair` keeps this log as it is and puts one together from what can be read of it; until then what \
         runs serves on, and `kiln down` ends it",
    )
}

pub(crate) fn not_deployed(release: Option<&ReleaseId>, cause: String) -> Failure {
    let release = release.map_or_else(|| "the release".to_owned(), |r| format!("release {}", r.short()));
    let message = format!("{release} was not deployed; its fleet was thrown away");
    Failure::new(ExitCode::Deploy, message).because(cause).hint("`kiln logs` shows what its instances wrote")
}

pub(crate) fn superseded(by: &str) -> Failure {
    Failure::new(ExitCode::Deploy, format!("the deploy was superseded by {by}"))
        .hint("`kiln wait` follows what is under way now, `kiln log` shows who asked for it")
}

pub(crate) fn cancelled() -> Failure {
    Failure::new(ExitCode::Deploy, "the deploy was cancelled")
}

/// Says what was attempted, above what there is to say against it.
pub(crate) fn attempted(message: impl Into<String>, why: Failure) -> Failure {
    let mut failure = Failure::new(why.code, message);
    failure.causes = [vec![why.message], why.causes].concat();
    failure.hint = why.hint;
    failure
}

pub(crate) fn shutting_down() -> Failure {
    Failure::new(ExitCode::Host, "the host is shutting down")
}

/// Of what the system refused to the host itself, with the next step if a limit is the reason.
pub fn system(attempted: &str, error: &std::io::Error) -> Failure {
    let failure = Failure::new(ExitCode::Host, format!("could not {attempted}")).because(error.to_string());
    with_remedy(failure, error)
}

/// The same failure with the next step, if `error` says that a limit is reached.
pub fn with_remedy(failure: Failure, error: &(dyn std::error::Error + 'static)) -> Failure {
    match kiln_engine::remedy(error) {
        Some(remedy) => failure.hint(remedy),
        None => failure,
    }
}

pub(crate) fn cannot_go_on(trouble: &Trouble) -> Failure {
    Failure::new(ExitCode::Host, "could not go on where the operation log ends").because(trouble.to_string())
}

pub(crate) fn cannot_end(trouble: &Trouble) -> Failure {
    Failure::new(ExitCode::Host, "could not end all processes of this host").because(trouble.to_string())
}

pub(crate) fn needs_keeper(silence: String) -> Failure {
    Failure::new(ExitCode::Host, "nothing was begun: it takes the keeper, which does not answer")
        .because(silence)
}

pub(crate) fn waits_for_keeper(silence: String) -> Failure {
    Failure::new(
        ExitCode::Host,
        "the control plane waits for its keeper, and answers nothing until that does",
    )
    .because(silence)
}

pub(crate) fn no_edge(trouble: &Trouble) -> Failure {
    Failure::new(ExitCode::Host, "could not start another edge in place of the one that runs")
        .because(trouble.to_string())
}

pub(crate) fn no_authority() -> Failure {
    Failure::new(ExitCode::Host, "the app wants certificates, and this host does not know where to get them")
        .hint("start it with `kiln serve --acme URL`, or name files under `[tls] certificates`")
}

pub(crate) fn not_paused(trouble: &Trouble) -> Failure {
    Failure::new(ExitCode::Host, "the edge was not told")
        .because(trouble.to_string())
        .hint("what was written down is done as soon as the edge answers; `kiln status` shows it")
}

pub(crate) fn no_figures(trouble: &Trouble) -> Failure {
    Failure::new(ExitCode::Host, "the edge did not give its figures").because(trouble.to_string())
}

pub(crate) fn bad_certificate(problem: &str) -> Failure {
    Failure::new(ExitCode::Spec, "a certificate that kiln.toml names cannot be used")
        .because(problem)
        .hint("`[tls] certificates` names files of the host, in PEM: the chain, and the private key of its first certificate")
}

/// Refuses a state directory that images cannot be mounted from, before anything is fetched for it.
pub(crate) fn refuse_memory_disk(store: &Store) -> Result<(), Failure> {
    /// From linux/magic.h.
    const TMPFS: i64 = 0x0102_1994;
    let root = store.root();
    match rustix::fs::statfs(root) {
        Ok(stat) if stat.f_type == TMPFS => {
            let message = format!("the state directory {} is on a tmpfs", root.display());
            Err(Failure::new(ExitCode::Host, message)
                .because("EROFS images cannot be mounted from one")
                .hint("name a directory on a disk with --root"))
        }
        // What cannot be told will show itself.
        _ => Ok(()),
    }
}
