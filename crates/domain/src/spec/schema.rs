//! How `stagely.yaml` may be written where that is more than how it is kept, for its JSON Schema: one thing in place of a
//! list, other names of a size, numbers with and without quotes, nothing where a default counts.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::machine::Size;
use crate::spec::parse::{PLATFORMS, SIZES};
use crate::spec::{Duration, RepoPath};

pub(super) fn texts(_: &mut SchemaGenerator) -> Schema {
    one_or_more(&json!({"type": "string"}))
}

pub(super) fn paths(generator: &mut SchemaGenerator) -> Schema {
    one_or_more(&generator.subschema_for::<RepoPath>().to_value())
}

pub(super) fn platforms(_: &mut SchemaGenerator) -> Schema {
    one_or_more(&platform())
}

pub(super) fn size(_: &mut SchemaGenerator) -> Schema {
    let aliases = Size::ALIASES.into_iter().map(|(name, _)| name);
    let names: Vec<&str> = SIZES.iter().map(|(name, _)| *name).chain(aliases).collect();
    json_schema!({"enum": names})
}

pub(super) fn idle_time(generator: &mut SchemaGenerator) -> Schema {
    let duration = generator.subschema_for::<Duration>();
    json_schema!({"anyOf": [duration, {"const": "never"}]})
}

pub(super) fn variables(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
        "additionalProperties": {"type": ["string", "number", "boolean", "null"]}
    })
}

pub(super) fn version(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"enum": [2, "2"]})
}

pub(super) fn flag(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"enum": [true, false, "true", "false"]})
}

pub(super) fn port(_: &mut SchemaGenerator) -> Schema {
    let quoted = r"^\+?0*([1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5])$";
    json_schema!({"anyOf": [{"type": "integer", "minimum": 1, "maximum": 65535}, {"type": "string", "pattern": quoted}]})
}

/// What holds wherever something is written: a key that need not be there may stand without a value, and any single value
/// is a text.
pub(super) fn as_written(schema: &mut Schema) {
    let is_free = ["pattern", "enum", "const"].into_iter().all(|key| schema.get(key).is_none());
    let texts = [json!("string"), json!(["string", "null"])];
    if let Some(types) = schema.get_mut("type").filter(|types| is_free && texts.contains(types)) {
        also(types, [json!("number"), json!("boolean")]);
    }
    let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    for (name, property) in properties {
        if let Value::Object(property) = property
            && !required.contains(&json!(name))
        {
            allow_nothing(property);
        }
    }
}

fn allow_nothing(property: &mut Map<String, Value>) {
    let nothing = json!({"type": "null"});
    if let Some(reference) = property.remove("$ref") {
        property.insert("anyOf".to_owned(), json!([{"$ref": reference}, nothing]));
        return;
    }
    for (key, nothing) in [("type", json!("null")), ("enum", Value::Null), ("anyOf", nothing)] {
        if let Some(allowed) = property.get_mut(key) {
            also(allowed, [nothing]);
        }
    }
}

fn also(allowed: &mut Value, more: impl IntoIterator<Item = Value>) {
    let mut list = allowed.as_array().cloned().unwrap_or_else(|| vec![allowed.clone()]);
    for value in more {
        if !list.contains(&value) {
            list.push(value);
        }
    }
    *allowed = list.into();
}

/// Keys of a build that are kept in another field, or not at all.
pub(super) fn beside_the_fields_of_a_build(schema: &mut Schema) {
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    properties.insert("platform".to_owned(), platform());
    let cache = json!({"description": "Taken, and not acted on in this version."});
    properties.insert("cache".to_owned(), cache);
}

fn platform() -> Value {
    let names: Vec<&str> = PLATFORMS.iter().map(|(name, _)| *name).collect();
    json!({"enum": names})
}

fn one_or_more(one: &Value) -> Schema {
    json_schema!({"anyOf": [one, {"type": "array", "items": one}]})
}
