//! How `stagely.yaml` may be written where that is more than how it is kept, for its JSON Schema: one thing in place of a
//! list, other names of a size, numbers as values of variables.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

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
