//! `[service.NAME.hooks]`.

use super::{Place, Problems, image, service::span};
use crate::spec::{HookFile, HooksFile};
use crate::{Hook, Hooks, MOST_HOOKS};

/// Five minutes.
const TIMEOUT: u64 = 300_000;

/// What is run when a release with this service takes over.
pub(super) fn hooks(file: Option<&HooksFile>, place: &Place, problems: &mut Problems<'_, '_>) -> Hooks {
    let Some(file) = file else { return Hooks::default() };
    let mut list = |key: &str, written: &[HookFile]| -> Vec<Hook> {
        let place = place.key(key);
        if written.len() > MOST_HOOKS {
            problems
                .value(&place, format!("{} hooks are more than a service can have", written.len()))
                .expected(format!("{MOST_HOOKS} at most"));
        }
        written.iter().enumerate().map(|(at, file)| hook(file, &place.item(at), problems)).collect()
    };
    Hooks { before: list("before", &file.before), after: list("after", &file.after) }
}

fn hook(file: &HookFile, place: &Place, problems: &mut Problems<'_, '_>) -> Hook {
    image::program(&file.run, &place.key("run"), problems);
    let timeout = span(file.timeout.as_ref(), TIMEOUT, &place.key("timeout"), problems);
    Hook { run: file.run.clone(), timeout }
}
