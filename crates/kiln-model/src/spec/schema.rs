//! The JSON Schema of `kiln.toml`, made from [`SpecFile`].

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::SpecFile;

/// The JSON Schema (draft 2020-12) of `kiln.toml`, for editors and for the first look at every document.
pub fn schema() -> &'static Value {
    // Making it takes longer than reading a spec.
    static MADE: LazyLock<Value> = LazyLock::new(made);
    &MADE
}

fn made() -> Value {
    let generated = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<SpecFile>();
    let mut schema = generated.to_value();
    without_null(&mut schema);
    schema
}

/// TOML has no null: a key that may be absent is absent. What the generator says of null only misleads.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|t| t != "null");
                if let [only] = types.as_slice() {
                    object["type"] = only.clone();
                }
            }
            if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
                choices.retain(|choice| choice["type"] != "null");
            }
            if object.get("default") == Some(&Value::Null) {
                object.remove("default");
            }
            object.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}
