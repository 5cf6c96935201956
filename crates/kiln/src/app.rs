//! The app that is meant: the directory with its `kiln.toml`, or its name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kiln_model::{AppName, ExitCode, Failure, Spec};

use crate::args::Named;

/// The name of the file that makes a directory an app.
const SPEC: &str = "kiln.toml";

/// The directory of the app, absolute: `from`, or the nearest one above it that has a spec.
pub(crate) fn directory(from: &Path) -> Result<PathBuf, Failure> {
    let start = fs::canonicalize(from).map_err(|e| {
        Failure::new(ExitCode::Usage, format!("there is no directory `{}`", from.display()))
            .because(e.to_string())
    })?;
    match start.ancestors().find(|directory| directory.join(SPEC).is_file()) {
        Some(directory) => Ok(directory.to_owned()),
        None => {
            let failure = Failure::new(
                ExitCode::Usage,
                format!("there is no {SPEC} in `{}` or above it", start.display()),
            );
            Err(failure
                .hint("name the app's directory, or write a spec there: `kiln schema` says what goes in"))
        }
    }
}

/// The app's directory, after a look at its spec: what is wrong with that is told without troubling a host.
pub(crate) fn checked_directory(from: &Path) -> Result<PathBuf, Failure> {
    let directory = directory(from)?;
    let path = directory.join(SPEC);
    let text = fs::read_to_string(&path).map_err(|e| unreadable(&path, &e))?;
    Spec::parse(&shown(&path), &text)?;
    Ok(directory)
}

/// The name of the app that is meant, if that can be told from here: the host knows the only one it has.
pub(crate) fn name(named: &Named) -> Option<AppName> {
    named.app.clone().or_else(|| {
        let directory = directory(Path::new(".")).ok()?;
        kiln_model::spec::app_name(&fs::read_to_string(directory.join(SPEC)).ok()?)
    })
}

/// A path as the reader would type it: from here, if it is below.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(ExitCode::Spec, format!("could not read `{}`", path.display())).because(error.to_string())
}
