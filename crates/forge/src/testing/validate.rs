//! Requests against GitHub's document.

use jsonschema::Validator;
use serde::Deserialize;
use serde_json::Value;

/// The operations that the document knows.
pub(super) struct Document(Vec<Operation>);

struct Operation {
    method: String,
    path: Vec<String>,
    query: Vec<(String, bool, Validator)>,
    segments: Vec<(String, Validator)>,
    body: Option<Validator>,
}

#[derive(Deserialize)]
struct File {
    operations: Vec<Described>,
}

#[derive(Deserialize)]
struct Described {
    method: String,
    path: String,
    parameters: Vec<Parameter>,
    body: Option<Value>,
}

#[derive(Deserialize)]
struct Parameter {
    name: String,
    #[serde(rename = "in")]
    place: String,
    #[serde(default)]
    required: bool,
    schema: Value,
}

impl Document {
    pub(super) fn load() -> Self {
        let file: File = serde_json::from_str(include_str!("github-openapi.json")).expect("github-openapi.json");
        Self(file.operations.into_iter().map(operation).collect())
    }

    /// What is wrong with a request; `None` when it fits.
    pub(super) fn violation(
        &self,
        method: &str,
        path: &str,
        query: &[(String, String)],
        body: Option<&Value>,
    ) -> Option<String> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let fits = |operation: &&Operation| operation.method == method && operation.captures(&parts).is_some();
        let Some(operation) = self.0.iter().find(fits) else { return Some("no such operation".to_owned()) };
        for (name, value) in operation.captures(&parts).unwrap_or_default() {
            let schema = operation.segments.iter().find(|(known, _)| *known == name);
            if schema.is_some_and(|(_, schema)| !any_reading(schema, &value)) {
                return Some(format!("path parameter {name} = {value}"));
            }
        }
        for (name, required, schema) in &operation.query {
            match query.iter().find(|(known, _)| known == name) {
                Some((_, value)) if !any_reading(schema, value) => {
                    return Some(format!("query parameter {name} = {value}"));
                }
                None if *required => return Some(format!("query parameter {name} is missing")),
                _ => {}
            }
        }
        if let Some((name, _)) = query.iter().find(|(name, _)| !operation.query.iter().any(|(known, ..)| known == name))
        {
            return Some(format!("unknown query parameter {name}"));
        }
        match (&operation.body, body) {
            (Some(schema), Some(body)) => {
                schema.validate(body).err().map(|error| format!("body at {}: {error}", error.instance_path()))
            }
            (None, Some(_)) => Some("a body where none is read".to_owned()),
            _ => None,
        }
    }
}

impl Operation {
    /// The values of the path's parameters, if it is of this shape. The last parameter of `contents` takes the rest.
    fn captures(&self, parts: &[&str]) -> Option<Vec<(String, String)>> {
        let rest = self.path.last().is_some_and(|last| last == "{path}");
        if parts.len() < self.path.len() || (!rest && parts.len() != self.path.len()) {
            return None;
        }
        let mut captured = Vec::new();
        for (index, pattern) in self.path.iter().enumerate() {
            let value =
                if rest && index + 1 == self.path.len() { parts[index..].join("/") } else { parts[index].to_owned() };
            match pattern.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                Some(name) => captured.push((name.to_owned(), value)),
                None if *pattern == value => {}
                None => return None,
            }
        }
        Some(captured)
    }
}

fn operation(described: Described) -> Operation {
    let compile = |schema: &Value| jsonschema::validator_for(schema).expect("a schema of the document");
    let placed =
        |place: &str| described.parameters.iter().filter(move |parameter| parameter.place == place).collect::<Vec<_>>();
    Operation {
        method: described.method.clone(),
        path: described.path.trim_matches('/').split('/').map(str::to_owned).collect(),
        query: placed("query")
            .iter()
            .map(|parameter| (parameter.name.clone(), parameter.required, compile(&parameter.schema)))
            .collect(),
        segments: placed("path").iter().map(|parameter| (parameter.name.clone(), compile(&parameter.schema))).collect(),
        body: described.body.as_ref().map(compile),
    }
}

/// A parameter is text; it fits if one reading of it does.
fn any_reading(schema: &Validator, text: &str) -> bool {
    let number = text.parse::<i64>().ok().map(Value::from);
    schema.is_valid(&Value::from(text)) || number.is_some_and(|number| schema.is_valid(&number))
}
