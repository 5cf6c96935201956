//! The first look at a document: keys that do not exist, keys that are missing, values of the wrong type.
//!
//! It follows the JSON Schema that editors are given, and reports everything at once.

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeArray, DeInteger, DeTable, DeValue};

use super::document::{Document, Place, Problems};

/// Reports every place where `document` has not the shape `schema` asks for.
pub(super) fn inspect(document: &Document<'_>, schema: &Value, problems: &mut Problems<'_, '_>) {
    let mut shape = Shape { root: schema, problems };
    shape.value(&document.root, schema, &Place::default());
}

struct Shape<'s, 'p, 'd, 't> {
    root: &'s Value,
    problems: &'p mut Problems<'d, 't>,
}

impl<'s> Shape<'s, '_, '_, '_> {
    fn value(&mut self, value: &Spanned<DeValue<'_>>, schema: &'s Value, place: &Place) {
        let choices = self.choices(schema);
        let Some(choice) = choices.iter().find(|choice| takes(choice, value.get_ref())) else {
            let expected: Vec<String> = choices.iter().map(|c| words(c, schema)).collect();
            let message = format!("`{place}` is {}", article(value.get_ref().type_str()));
            self.problems.value(place, message).expected(expected.join(" or "));
            return;
        };
        match value.get_ref() {
            DeValue::Table(table) => self.table(table, choice, place),
            DeValue::Array(array) => self.array(array, choice, place),
            DeValue::Integer(integer) => self.integer(integer, choice, place),
            _ => {}
        }
    }

    /// What a value may be, with references followed.
    fn choices(&self, schema: &'s Value) -> Vec<&'s Value> {
        if let Some(reference) = schema["$ref"].as_str() {
            let target = self.root.pointer(reference.trim_start_matches('#'));
            return target.map(|t| self.choices(t)).unwrap_or_default();
        }
        match schema["anyOf"].as_array() {
            Some(choices) => choices.iter().flat_map(|choice| self.choices(choice)).collect(),
            None => vec![schema],
        }
    }

    fn table(&mut self, table: &DeTable<'_>, schema: &'s Value, place: &Place) {
        let properties = schema["properties"].as_object();
        let mut misspelt = Vec::new();
        for (key, value) in table {
            let (key, inner) = (key.get_ref().as_ref(), place.key(key.get_ref()));
            match properties.and_then(|p| p.get(key)) {
                Some(schema) => self.value(value, schema, &inner),
                None if schema["additionalProperties"].is_object() => {
                    self.value(value, &schema["additionalProperties"], &inner);
                }
                None => misspelt.extend(self.unknown(key, schema, &inner)),
            }
        }
        for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            // One slip of the finger is one problem, not two.
            if !table.contains_key(key) && !misspelt.iter().any(|meant| meant == key) {
                self.missing(key, &schema["properties"][key], place);
            }
        }
    }

    /// Reports a key that does not exist and gives back the one that was probably meant.
    fn unknown(&mut self, key: &str, schema: &Value, place: &Place) -> Option<String> {
        let valid: Vec<&str> =
            schema["properties"].as_object().into_iter().flatten().map(|(k, _)| k.as_str()).collect();
        let found = self.problems.key(place, format!("unknown key `{key}`"));
        found.expected(list(&valid)).nearest(key, valid);
        found.nearest.clone()
    }

    fn missing(&mut self, key: &str, schema: &Value, place: &Place) {
        let owner = match place.to_string() {
            top if top.is_empty() => "the spec".to_owned(),
            table => format!("`{table}`"),
        };
        let example = &schema["examples"][0];
        let found = self.problems.value(place, format!("{owner} has no `{key}`"));
        if !example.is_null() {
            found.expected(format!("a line like `{key} = {example}`"));
        }
    }

    fn array(&mut self, array: &DeArray<'_>, schema: &'s Value, place: &Place) {
        for (index, item) in array.iter().enumerate() {
            self.value(item, &schema["items"], &place.item(index));
        }
    }

    fn integer(&mut self, integer: &DeInteger<'_>, schema: &Value, place: &Place) {
        let most = match schema["format"].as_str() {
            Some("uint16") => i128::from(u16::MAX),
            Some("uint32") => i128::from(u32::MAX),
            _ => return,
        };
        let given = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        if !given.is_some_and(|n| (0..=most).contains(&n)) {
            // 0 is refused elsewhere, in words of its own.
            let least = schema["minimum"].as_u64().unwrap_or_default();
            let expected = format!("{least} to {most}");
            self.problems.value(place, format!("`{place}` is out of range")).expected(expected);
        }
    }
}

fn takes(schema: &Value, value: &DeValue<'_>) -> bool {
    match schema["type"].as_str() {
        Some("string") => value.is_str(),
        Some("integer") => value.is_integer(),
        Some("number") => value.is_integer() || value.is_float(),
        Some("boolean") => value.is_bool(),
        Some("array") => value.is_array(),
        Some("object") => value.is_table(),
        _ => false,
    }
}

/// What the schema asks for, in words, with an example where it gives one.
fn words(choice: &Value, schema: &Value) -> String {
    let kind = match choice["type"].as_str() {
        Some("array") => "a list",
        Some("object") => "a table",
        Some("boolean") => "true or false",
        Some("integer") => "a whole number",
        Some(other) => return with_example(&article(other), choice, schema),
        None => "another type",
    };
    with_example(kind, choice, schema)
}

fn with_example(kind: &str, choice: &Value, schema: &Value) -> String {
    match [&choice["examples"][0], &schema["examples"][0]].into_iter().find(|e| !e.is_null()) {
        Some(example) => format!("{kind} like `{example}`"),
        None => kind.to_owned(),
    }
}

fn article(noun: &str) -> String {
    let vowel = noun.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {noun}", if vowel { "an" } else { "a" })
}

fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|n| format!("`{n}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("one of {} or {last}", others.join(", ")),
        None => "no key".into(),
    }
}
