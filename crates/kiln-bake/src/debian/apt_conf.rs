//! The one setting of apt that is honoured: whether expired indexes are refused.

use std::fs;
use std::path::Path;

const KEY: &str = "Acquire::Check-Valid-Until";

/// Whether the host's apt refuses expired indexes. It does unless its configuration says otherwise; the last file
/// to speak decides, as in apt.
pub(crate) fn check_valid_until(host: &Path) -> bool {
    let mut files: Vec<_> = fs::read_dir(host.join("etc/apt/apt.conf.d"))
        .map(|dir| dir.flatten().map(|e| e.path()).collect())
        .unwrap_or_default();
    files.sort();
    files.push(host.join("etc/apt/apt.conf"));
    let said = files
        .iter()
        .filter_map(|f| fs::read_to_string(f).ok())
        .filter_map(|text| value(&text))
        .reduce(|_, later| later);
    !said.is_some_and(|v| is_no(&v))
}

/// Whether a word means no, to apt.
pub(crate) fn is_no(word: &str) -> bool {
    ["no", "false", "without", "off", "disable", "0"].contains(&word.trim().to_ascii_lowercase().as_str())
}

/// The setting's value where it is written out in one line, the only form that is common.
fn value(text: &str) -> Option<String> {
    let of_line = |line: &str| {
        let line = line.trim();
        let start = line.get(..KEY.len())?;
        let rest = line[KEY.len()..].trim_start();
        start
            .eq_ignore_ascii_case(KEY)
            .then(|| rest.trim_end_matches(';').trim().trim_matches('"').to_owned())
    };
    text.lines().rev().find_map(of_line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_found() {
        assert_eq!(value("a;\nAcquire::Check-Valid-Until \"false\";\n").as_deref(), Some("false"));
        assert_eq!(value("acquire::check-valid-until no;").as_deref(), Some("no"));
        assert_eq!(value("// Acquire::Check-Valid-Until \"false\";"), None);
        assert_eq!(value("Acquire::Check-Date \"false\";"), None);
    }
}
