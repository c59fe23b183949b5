//! The OpenAPI 3.1 document, made from the route table and the types' own descriptions.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::error::Problem;
use crate::operation::{Answer, Operation, Permission};

/// Describes `operations`.
#[must_use]
pub fn document(operations: &[Operation], public_url: &str) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    // What we send has every field; what we take may leave out what has a default.
    let mut sent = settings.clone().for_serialize().into_generator();
    let mut taken = settings.for_deserialize().into_generator();
    let problem = sent.subschema_for::<Problem>();

    let mut paths = Map::new();
    for operation in operations {
        let described = describe(operation, &mut sent, &mut taken, problem.as_value());
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Value::Object(methods) = path {
            methods.insert(operation.method.as_str().to_lowercase(), described);
        }
    }
    let mut schemas = taken.take_definitions(true);
    schemas.extend(sent.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Stagely",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT", "identifier": "MIT" },
        },
        "servers": [{ "url": public_url }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "An API token, `stg_…`." },
                "registry": { "type": "http", "scheme": "basic", "description": "A registry credential." },
                "signature": {
                    "type": "apiKey", "in": "header", "name": "X-Hub-Signature-256",
                    "description": "HMAC-SHA256 over the raw body.",
                },
            },
        },
    })
}

fn describe(operation: &Operation, sent: &mut SchemaGenerator, taken: &mut SchemaGenerator, problem: &Value) -> Value {
    let mut parameters: Vec<Value> = path_names(operation.path)
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    if let Some(query) = operation.query {
        parameters.extend(query_parameters(query(taken).as_value()));
    }
    let (status, success) = match operation.answer {
        Answer::Json(status, schema) => {
            let schema = schema(sent);
            (status, json!({ "description": "Done.", "content": { "application/json": { "schema": schema } } }))
        }
        Answer::Other(status, media_types) => {
            let content: Map<String, Value> = media_types
                .iter()
                .map(|media| ((*media).to_owned(), json!({ "schema": { "type": "string" } })))
                .collect();
            (status, json!({ "description": "Done.", "content": content }))
        }
        Answer::Empty(status) => (status, json!({ "description": "Done." })),
    };
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": parameters,
        "responses": {
            status.to_string(): success,
            "default": {
                "description": "A problem document (RFC 9457).",
                "content": { "application/problem+json": { "schema": problem } },
            },
        },
        "security": security(operation.permission),
    });
    if let (Some(body), Value::Object(fields)) = (operation.body, &mut described) {
        let content = json!({ "application/json": { "schema": body(taken) } });
        fields.insert("requestBody".to_owned(), json!({ "required": true, "content": content }));
    }
    if let (Permission::Role(role), Value::Object(fields)) = (operation.permission, &mut described) {
        fields.insert("x-stagely-role".to_owned(), json!(role));
    }
    described
}

fn security(permission: Permission) -> Value {
    match permission {
        Permission::Public => json!([]),
        Permission::Signature => json!([{ "signature": [] }]),
        Permission::RegistryCredential => json!([{ "registry": [] }]),
        Permission::Role(_) => json!([{ "token": [] }]),
    }
}

/// `a/{id}/b` → `id`.
fn path_names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// One parameter per property of the query's type.
fn query_parameters(schema: &Value) -> Vec<Value> {
    let properties = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    properties
        .into_iter()
        .map(|(name, mut schema)| {
            let description = schema.as_object_mut().and_then(|fields| fields.remove("description"));
            json!({
                "name": name, "in": "query", "required": false, "schema": schema,
                "description": description.unwrap_or_else(|| json!("")),
            })
        })
        .collect()
}
