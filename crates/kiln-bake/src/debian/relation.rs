//! What a package says of others: `Depends`, `Provides`, `Conflicts` and their like.

use std::cmp::Ordering;
use std::fmt;

use super::version;

/// How a version must compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Earlier,
    EarlierOrEqual,
    Equal,
    LaterOrEqual,
    Later,
}

/// A package name with, maybe, what its version must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Relation<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: Option<(Operator, &'a str)>,
}

impl<'a> Relation<'a> {
    /// One atom such as `libc6:any (>= 2.36) [amd64] <!nocheck>`; only the name and the version mean something in
    /// a binary package of one architecture.
    fn parse(atom: &'a str) -> Option<Self> {
        let atom = atom.trim();
        let end = atom.find([' ', '(', '[', '<', '\t', '\n']).unwrap_or(atom.len());
        let name = atom[..end].split(':').next().unwrap_or_default();
        if name.is_empty() {
            return None;
        }
        let version = match atom[end..].split_once('(') {
            None => None,
            Some((_, rest)) => Some(parse_constraint(rest.split_once(')')?.0)?),
        };
        Some(Self { name, version })
    }

    /// Whether a package with this name and `version` is meant.
    pub(crate) fn accepts(&self, version: &str) -> bool {
        let Some((operator, wanted)) = self.version else { return true };
        let order = version::compare(version, wanted);
        match operator {
            Operator::Earlier => order == Ordering::Less,
            Operator::EarlierOrEqual => order != Ordering::Greater,
            Operator::Equal => order == Ordering::Equal,
            Operator::LaterOrEqual => order != Ordering::Less,
            Operator::Later => order == Ordering::Greater,
        }
    }

    /// Whether a package that provides this name, in `version` if it says so, is meant: an unversioned provision
    /// never meets a versioned relation.
    pub(crate) fn accepts_provided(&self, version: Option<&str>) -> bool {
        match version {
            Some(version) => self.accepts(version),
            None => self.version.is_none(),
        }
    }
}

fn parse_constraint(text: &str) -> Option<(Operator, &str)> {
    let text = text.trim();
    let digits = text.find(|c| !matches!(c, '<' | '>' | '='))?;
    let operator = match &text[..digits] {
        "<<" => Operator::Earlier,
        "<=" | "<" => Operator::EarlierOrEqual,
        "=" => Operator::Equal,
        ">=" | ">" => Operator::LaterOrEqual,
        ">>" => Operator::Later,
        _ => return None,
    };
    Some((operator, text[digits..].trim()))
}

impl Relation<'_> {
    /// What the version must be, as it is written.
    pub(crate) fn constraint(&self) -> Option<String> {
        let (operator, version) = self.version?;
        let sign = match operator {
            Operator::Earlier => "<<",
            Operator::EarlierOrEqual => "<=",
            Operator::Equal => "=",
            Operator::LaterOrEqual => ">=",
            Operator::Later => ">>",
        };
        Some(format!("{sign} {version}"))
    }
}

impl fmt::Display for Relation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.constraint() {
            None => f.write_str(self.name),
            Some(constraint) => write!(f, "{} ({constraint})", self.name),
        }
    }
}

/// The groups of a dependency field: all must hold, each by any of its alternatives. What cannot be read is left
/// out of its group, so that the group then fails by name rather than silently holding.
pub(crate) fn groups(field: &str) -> impl Iterator<Item = Vec<Relation<'_>>> {
    let alternatives = |group: &'_ str| -> bool { !group.trim().is_empty() };
    field
        .split(',')
        .filter(move |g| alternatives(g))
        .map(|g| g.split('|').filter_map(Relation::parse).collect())
}

/// The relations of a field without alternatives (`Provides`, `Conflicts`, `Breaks`, `Replaces`).
pub(crate) fn list(field: &str) -> impl Iterator<Item = Relation<'_>> {
    field.split(',').filter_map(Relation::parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_alternatives() {
        let all: Vec<_> = groups("libc6 (>= 2.34), awk:any | mawk (<<1.3)|gawk [amd64],\n x").collect();
        let text: Vec<Vec<String>> =
            all.iter().map(|g| g.iter().map(ToString::to_string).collect()).collect();
        assert_eq!(
            text,
            [
                vec!["libc6 (>= 2.34)".to_string()],
                vec!["awk".into(), "mawk (<< 1.3)".into(), "gawk".into()],
                vec!["x".into()]
            ]
        );
    }

    #[test]
    fn versions_are_compared() {
        let relation = list("a (>= 1.0), b").next().unwrap();
        assert!(relation.accepts("1.0") && relation.accepts("1.1") && !relation.accepts("1.0~rc1"));
        assert!(relation.accepts_provided(Some("2")) && !relation.accepts_provided(None));
    }

    #[test]
    fn what_cannot_be_read_holds_for_nothing() {
        assert_eq!(groups("a (?? 1)").collect::<Vec<_>>(), [vec![]]);
        assert_eq!(groups("").count(), 0);
        assert_eq!(groups("a (>= 1").collect::<Vec<_>>(), [vec![]]);
    }
}
