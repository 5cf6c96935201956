//! A parsed document that remembers where everything in it stands.

use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Found;

/// The way from the top of a document to a value: keys and positions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Place(Vec<Segment>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Key(String),
    Item(usize),
}

impl Place {
    pub(super) fn key(&self, key: &str) -> Self {
        self.with(Segment::Key(key.to_owned()))
    }

    pub(super) fn item(&self, index: usize) -> Self {
        self.with(Segment::Item(index))
    }

    fn with(&self, segment: Segment) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        Self(segments)
    }
}

/// As people write it: `image.web.check[1].http`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if index == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
                Segment::Item(item) => write!(f, "[{item}]")?,
            }
        }
        Ok(())
    }
}

/// A document and its text.
pub(super) struct Document<'t> {
    pub(super) root: Spanned<DeValue<'t>>,
}

impl<'t> Document<'t> {
    /// Parses `text`; what is not TOML is a problem at its place.
    pub(super) fn parse(text: &'t str) -> Result<Self, Vec<Found>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            let span = table.span();
            return Ok(Self { root: Spanned::new(span, DeValue::Table(table.into_inner())) });
        }
        Err(errors.iter().map(|e| Found::new(e.span().unwrap_or(0..0), e.message())).collect())
    }

    /// Where the value at `place` stands, or what comes nearest above it.
    pub(super) fn value(&self, place: &Place) -> Range<usize> {
        self.walk(place).0
    }

    /// Where the key of the value at `place` stands.
    pub(super) fn key(&self, place: &Place) -> Range<usize> {
        self.walk(place).1
    }

    fn walk(&self, place: &Place) -> (Range<usize>, Range<usize>) {
        let mut value = &self.root;
        let mut key = value.span();
        for segment in &place.0 {
            let next = match segment {
                Segment::Key(name) => value.get_ref().as_table().and_then(|t| t.get_key_value(name.as_str())),
                Segment::Item(index) => match value.get_ref().get(*index) {
                    Some(item) => {
                        (value, key) = (item, item.span());
                        continue;
                    }
                    None => None,
                },
            };
            let Some((found, inner)) = next else { break };
            (value, key) = (inner, found.span());
        }
        (value.span(), key)
    }
}

/// What was found wrong so far with a document.
pub(super) struct Problems<'d, 't> {
    document: &'d Document<'t>,
    pub(super) found: Vec<Found>,
}

impl<'d, 't> Problems<'d, 't> {
    pub(super) fn new(document: &'d Document<'t>) -> Self {
        Self { document, found: Vec::new() }
    }

    /// Something is wrong with the value at `place`.
    pub(super) fn value(&mut self, place: &Place, message: impl Into<String>) -> &mut Found {
        self.push(self.document.value(place), message.into())
    }

    /// Where the value at `place` stands.
    pub(super) fn place_of(&self, place: &Place) -> Range<usize> {
        self.document.value(place)
    }

    /// Something is wrong with the key at `place`.
    pub(super) fn key(&mut self, place: &Place, message: impl Into<String>) -> &mut Found {
        self.push(self.document.key(place), message.into())
    }

    fn push(&mut self, span: Range<usize>, message: String) -> &mut Found {
        self.found.push(Found::new(span, message));
        self.found.last_mut().expect("just pushed")
    }
}
