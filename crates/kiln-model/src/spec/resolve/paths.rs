//! Paths in specs: of the project, and inside images.

use super::{Place, Problems};

/// An absolute path inside an image, brought into the one form it is known by. Reported and given back as it is if
/// it is none.
pub(super) fn absolute(path: &str, place: &Place, problems: &mut Problems<'_, '_>) -> String {
    let wrong = match path.strip_prefix('/') {
        None => Some("is not an absolute path"),
        Some(_) if path.contains('\0') => Some("has a NUL byte"),
        Some(rest) if rest.split('/').any(|part| part == "..") => Some("leads upwards with `..`"),
        Some(_) => None,
    };
    if let Some(wrong) = wrong {
        problems
            .value(place, format!("`{}` {wrong}", path.escape_debug()))
            .expected("an absolute path without `..`");
        return path.to_owned();
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    format!("/{}", parts.join("/"))
}

/// The directory that `path` is, or is in, if what is there comes from the kernel in every instance.
pub(super) fn of_the_kernel(path: &str) -> Option<&'static str> {
    let rest =
        |top: &&&str| path.strip_prefix(**top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    ["/proc", "/sys", "/dev"].iter().find(rest).copied()
}

/// A path of the project: relative to `kiln.toml`, and not leading out of its directory.
pub(super) fn of_project(path: &str, place: &Place, problems: &mut Problems<'_, '_>) -> String {
    let wrong = if path.is_empty() {
        Some("is empty")
    } else if path.starts_with('/') {
        Some("is not relative to the directory of the spec")
    } else if path.contains('\0') {
        Some("has a NUL byte")
    } else if leads_out(path) {
        Some("leaves the directory of the spec")
    } else {
        None
    };
    if let Some(wrong) = wrong {
        problems
            .value(place, format!("`{}` {wrong}", path.escape_debug()))
            .expected("a path inside the directory that holds the spec");
    }
    path.to_owned()
}

fn leads_out(path: &str) -> bool {
    let mut depth = 0_i64;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return true;
        }
    }
    false
}
