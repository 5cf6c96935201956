//! Debian's machine-readable copyright files (DEP-5), as far as names of licences go.
//!
//! ```text
//!   Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
//!
//!   Files: *                        a paragraph about files: the licence they are under, by short name
//!   Copyright: 2020 Somebody
//!   License: GPL-2+ or Expat
//!
//!   License: Expat                  a paragraph that gives a licence's text: not one about files
//!    Permission is …
//! ```
//! What is not written in this form is named as such: nothing is guessed from prose.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::spdx;
use crate::debian::index::fields;

/// The most that is read of a copyright file; the longest of the archive have a tenth of it.
pub(crate) const LARGEST: u64 = 16 << 20;
/// A licence's name is a few words; what is longer is prose where a name belongs.
const LONGEST_NAME: usize = 200;

/// What a package says of its licences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Licences {
    /// All that its files are under, each once; in SPDX's names where they have one.
    Declared(BTreeSet<String>),
    /// A copyright file that only people can read.
    Prose,
    /// No copyright file.
    Unknown,
}

/// The licences that the copyright file `text` names.
pub(crate) fn licences(text: &str) -> Licences {
    let mut paragraphs = paragraphs(text);
    let header = paragraphs.next().unwrap_or_default();
    if !field(header, "Format").is_some_and(is_machine_readable) {
        return Licences::Prose;
    }
    let of_files = paragraphs.filter(|p| field(p, "Files").is_some());
    let names = of_files.chain([header]).filter_map(|p| field(p, "License")).flat_map(alternatives);
    let names: BTreeSet<String> = names.collect();
    if names.is_empty() { Licences::Prose } else { Licences::Declared(names) }
}

fn is_machine_readable(format: &str) -> bool {
    let format = format.to_ascii_lowercase();
    format.contains("copyright-format") || format.contains("dep5") || format.contains("dep-5")
}

fn paragraphs(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n\n").map(|paragraph| paragraph.trim_start_matches('\n')).filter(|p| !p.is_empty())
}

fn field<'a>(paragraph: &'a str, name: &str) -> Option<&'a str> {
    fields(paragraph).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// `GPL-2+ and BSD-3-clause, and (MIT or ISC)`: what applies together is a licence each; a choice stays together.
fn alternatives(license: &str) -> Vec<String> {
    let first_line = license.lines().next().unwrap_or_default().trim();
    if first_line.is_empty() || first_line.len() > LONGEST_NAME {
        return Vec::new();
    }
    let is_choice = first_line.split_ascii_whitespace().any(|w| w.eq_ignore_ascii_case("or"));
    if is_choice {
        return vec![translated(first_line)];
    }
    let separated = first_line.replace(',', " ");
    let words = separated.split_ascii_whitespace().collect::<Vec<_>>();
    let parts = words.split(|w| w.eq_ignore_ascii_case("and")).filter(|part| !part.is_empty());
    parts.map(|part| translated(&part.join(" "))).collect()
}

/// Each word that is a licence Debian has another name for than SPDX, in SPDX's; `and`, `or` and `with` in capitals.
fn translated(expression: &str) -> String {
    let word = |w: &str| {
        let bare = w.trim_matches(|c| matches!(c, '(' | ')' | ','));
        let known = match bare.to_ascii_lowercase().as_str() {
            "and" => Some("AND"),
            "or" => Some("OR"),
            "with" => Some("WITH"),
            _ => spdx::id(bare),
        };
        known.map_or_else(|| w.to_owned(), |known| w.replace(bare, known))
    };
    expression.split_ascii_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n";

    fn declared(text: &str) -> Vec<String> {
        match licences(&format!("{HEAD}{text}")) {
            Licences::Declared(names) => names.into_iter().collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn licences_of_files_count_and_texts_of_licences_do_not() {
        let text = "\nFiles: *\nCopyright: x\nLicense: Expat\n\nFiles: a\n b\nLicense: GPL-2+\n The text\n .\n goes on\n\
            \nLicense: Apache-2.0\n Only its text.\n";
        assert_eq!(declared(text), ["GPL-2.0-or-later", "MIT"]);
    }

    #[test]
    fn what_applies_together_is_told_apart_and_a_choice_is_kept() {
        assert_eq!(
            declared("\nFiles: *\nLicense: BSD-3-clause and public-domain\n"),
            ["BSD-3-Clause", "public-domain"]
        );
        assert_eq!(declared("\nFiles: *\nLicense: GPL-2+ or Expat\n"), ["GPL-2.0-or-later OR MIT"]);
        assert_eq!(declared("\nFiles: *\nLicense: (GPL-3+ or ISC)\n"), ["(GPL-3.0-or-later OR ISC)"]);
        let exception = declared("\nFiles: *\nLicense: GPL-2+ with OpenSSL exception\n");
        assert_eq!(exception, ["GPL-2.0-or-later WITH OpenSSL exception"]);
        assert_eq!(declared("License: ISC\n"), ["ISC"], "one for all of it, in the header");
    }

    #[test]
    fn prose_is_not_guessed_from() {
        assert_eq!(licences("This package was debianized by X.\n\nLicense: GPL-2\n"), Licences::Prose);
        assert_eq!(licences(""), Licences::Prose);
        assert_eq!(licences(HEAD), Licences::Prose);
        let prose = format!("{HEAD}\nFiles: *\nLicense: {}\n", "you may do ".repeat(50));
        assert_eq!(licences(&prose), Licences::Prose);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in "([ -~\n]|License: |Files: |\n\n){0,80}") {
            licences(&format!("{HEAD}{text}"));
        }
    }
}
