//! An index of packages (`Packages`): tens of thousands of stanzas, read in place.

use memchr::memchr;

/// What an index says of one package. Everything borrows from the index's text; relations stay unparsed until the
/// resolver asks for them, because it asks for few.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stanza<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: &'a str,
    pub(crate) architecture: &'a str,
    pub(crate) essential: bool,
    pub(crate) priority: Priority,
    pub(crate) pre_depends: &'a str,
    pub(crate) depends: &'a str,
    pub(crate) recommends: &'a str,
    pub(crate) provides: &'a str,
    pub(crate) conflicts: &'a str,
    pub(crate) breaks: &'a str,
    pub(crate) path: &'a str,
    pub(crate) size: u64,
    pub(crate) sha256: &'a str,
    /// Which of the sources lists it.
    pub(crate) source: usize,
}

/// How much the distribution wants a package installed; the first is wanted most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Priority {
    Required,
    Important,
    Standard,
    #[default]
    Optional,
    Extra,
}

/// An index that is not one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stanza of package `{package}` lacks its `{field}`")]
pub struct BadIndex {
    package: String,
    field: &'static str,
}

/// The stanzas of an index, in order.
pub(crate) fn stanzas(text: &str, source: usize) -> impl Iterator<Item = Result<Stanza<'_>, BadIndex>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches('\n');
        if rest.is_empty() {
            return None;
        }
        let mut stanza = Stanza { source, ..Stanza::default() };
        while let Some(field) = next_field(&mut rest) {
            stanza.take(field);
        }
        Some(stanza.checked())
    })
}

/// The fields of one stanza, in order.
pub(crate) fn fields(stanza: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = stanza;
    std::iter::from_fn(move || next_field(&mut rest))
}

/// The next field and its value with continuation lines; nothing at the end of a stanza.
fn next_field<'a>(rest: &mut &'a str) -> Option<(&'a str, &'a str)> {
    let bytes = rest.as_bytes();
    if matches!(bytes.first(), None | Some(b'\n')) {
        return None;
    }
    let mut end = 0;
    loop {
        end += memchr(b'\n', &bytes[end..]).map_or(bytes.len() - end, |n| n + 1);
        if !matches!(bytes.get(end), Some(b' ' | b'\t')) {
            break;
        }
    }
    let (field, after) = rest.split_at(end);
    *rest = after;
    Some(field.split_once(':').map_or((field, ""), |(name, value)| (name, value.trim())))
}

impl<'a> Stanza<'a> {
    fn take(&mut self, (name, value): (&'a str, &'a str)) {
        match name {
            "Package" => self.name = value,
            "Version" => self.version = value,
            "Architecture" => self.architecture = value,
            "Essential" => self.essential = value == "yes",
            "Priority" => self.priority = Priority::from(value),
            "Pre-Depends" => self.pre_depends = value,
            "Depends" => self.depends = value,
            "Recommends" => self.recommends = value,
            "Provides" => self.provides = value,
            "Conflicts" => self.conflicts = value,
            "Breaks" => self.breaks = value,
            "Filename" => self.path = value.strip_prefix("./").unwrap_or(value),
            "Size" => self.size = value.parse().unwrap_or(0),
            "SHA256" => self.sha256 = value,
            _ => {}
        }
    }

    fn checked(self) -> Result<Self, BadIndex> {
        let needed = [
            ("Package", self.name),
            ("Version", self.version),
            ("Architecture", self.architecture),
            ("Filename", self.path),
            ("SHA256", self.sha256),
        ];
        let lacking = needed.iter().find(|(_, value)| value.is_empty()).map(|(field, _)| *field);
        match lacking.or((self.size == 0).then_some("Size")) {
            Some(field) => Err(BadIndex { package: self.name.into(), field }),
            None => Ok(self),
        }
    }
}

impl From<&str> for Priority {
    fn from(text: &str) -> Self {
        match text {
            "required" => Self::Required,
            "important" => Self::Important,
            "standard" => Self::Standard,
            "extra" => Self::Extra,
            _ => Self::Optional,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Package: a\nVersion: 1\nArchitecture: all\nEssential: yes\nDepends: b,\n c\nFilename: ./a.deb\n\
        Size: 3\nSHA256: 00\n\nPackage: b\nVersion: 2\nArchitecture: amd64\nDescription: x\n .\n Size: 9\n\
        Filename: b.deb\nSize: 4\nSHA256: 11";

    #[test]
    fn stanzas_are_read() {
        let all: Vec<_> = stanzas(TEXT, 7).map(Result::unwrap).collect();
        assert_eq!(all.len(), 2);
        assert!(all[0].essential && !all[1].essential);
        assert_eq!((all[0].depends, all[0].path, all[0].source), ("b,\n c", "a.deb", 7));
        assert_eq!((all[1].name, all[1].size, all[1].sha256), ("b", 4, "11"));
    }

    #[test]
    fn a_stanza_without_its_hash_is_an_error() {
        let text = TEXT.replace("SHA256: 00\n", "");
        let first = stanzas(&text, 0).next().unwrap();
        assert_eq!(first.unwrap_err().to_string(), "the stanza of package `a` lacks its `SHA256`");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in "[a-zA-Z: \n\t.]{0,400}") {
            let _ = stanzas(&text, 0).count();
        }
    }
}
