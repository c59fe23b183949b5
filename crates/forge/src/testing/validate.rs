//! Requests and answers against GitHub's document.

use std::collections::BTreeMap;

use jsonschema::{Registry, Validator};
use serde::Deserialize;
use serde_json::Value;

/// Where schemas refer to; nothing is fetched from there.
const BASE: &str = "urn:github-openapi";

/// The operations that the document knows.
pub(super) struct Document {
    operations: Vec<Operation>,
    error: Validator,
}

/// One operation.
pub(super) struct Operation {
    method: String,
    path: Vec<String>,
    query: Vec<(String, bool, Validator)>,
    segments: Vec<(String, Validator)>,
    body: Option<Body>,
    answers: BTreeMap<u16, (Validator, Value)>,
}

struct Body {
    schema: Validator,
    fields: Vec<String>,
}

#[derive(Deserialize)]
struct File {
    schemas: Value,
    error: Value,
    operations: Vec<Described>,
}

#[derive(Deserialize)]
struct Described {
    method: String,
    path: String,
    parameters: Vec<Parameter>,
    body: Option<Value>,
    answers: BTreeMap<u16, Answer>,
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

#[derive(Deserialize)]
struct Answer {
    schema: Value,
    example: Value,
}

impl Document {
    pub(super) fn load() -> Self {
        let file: File = serde_json::from_str(include_str!("github-openapi.json")).expect("github-openapi.json");
        let registry = Registry::new().add(BASE, file.schemas).and_then(jsonschema::RegistryBuilder::prepare);
        let registry = registry.expect("the document's schemas");
        let compile = |schema: &Value| {
            let options = jsonschema::options().with_registry(&registry).should_validate_formats(true);
            options.build(schema).expect("a schema of the document")
        };
        let operations = file.operations.into_iter().map(|described| operation(described, &compile)).collect();
        Self { operations, error: compile(&file.error) }
    }

    /// The operation that a request is for.
    pub(super) fn find(&self, method: &str, path: &str) -> Option<&Operation> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        self.operations.iter().find(|operation| operation.method == method && operation.captures(&parts).is_some())
    }

    /// The document's own example of an operation's successful answer, to be changed where facts differ.
    pub(super) fn example(&self, method: &str, template: &str) -> &Value {
        let parts: Vec<&str> = template.trim_matches('/').split('/').collect();
        let operation = self.operations.iter().find(|operation| operation.method == method && operation.path == parts);
        &operation.and_then(|operation| operation.answers.values().next()).expect("an operation with an answer").1
    }

    /// What is wrong with an answer to `operation`; `None` when it fits.
    pub(super) fn unlike(&self, operation: Option<&Operation>, status: u16, body: &Value) -> Option<String> {
        let known = operation.and_then(|operation| operation.answers.get(&status)).map(|(schema, _)| schema);
        let schema = match (known, status) {
            (Some(schema), _) => schema,
            (None, 200..300) => return Some(format!("no answer {status} is described")),
            (None, _) => &self.error,
        };
        schema.validate(body).err().map(|error| format!("answer {status} at {}: {error}", error.instance_path()))
    }
}

impl Operation {
    /// What is wrong with a request; `None` when it fits.
    pub(super) fn violation(&self, path: &str, query: &[(String, String)], body: Option<&Value>) -> Option<String> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        for (name, value) in self.captures(&parts).unwrap_or_default() {
            let schema = self.segments.iter().find(|(known, _)| *known == name);
            if schema.is_some_and(|(_, schema)| !any_reading(schema, &value)) {
                return Some(format!("path parameter {name} = {value}"));
            }
        }
        for (name, required, schema) in &self.query {
            match query.iter().find(|(known, _)| known == name) {
                Some((_, value)) if !any_reading(schema, value) => {
                    return Some(format!("query parameter {name} = {value}"));
                }
                None if *required => return Some(format!("query parameter {name} is missing")),
                _ => {}
            }
        }
        if let Some((name, _)) = query.iter().find(|(name, _)| !self.query.iter().any(|(known, ..)| known == name)) {
            return Some(format!("unknown query parameter {name}"));
        }
        match (&self.body, body) {
            (Some(described), Some(body)) => described.violation(body),
            (Some(described), None) => described.violation(&Value::Object(serde_json::Map::default())),
            (None, Some(_)) => Some("a body where none is read".to_owned()),
            (None, None) => None,
        }
    }

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

impl Body {
    fn violation(&self, body: &Value) -> Option<String> {
        // GitHub passes over a field that it does not know; we mean every field that we send.
        let unknown = body.as_object().and_then(|body| body.keys().find(|key| !self.fields.contains(key)));
        if let Some(unknown) = unknown.filter(|_| !self.fields.is_empty()) {
            return Some(format!("body: unknown field {unknown}"));
        }
        self.schema.validate(body).err().map(|error| format!("body at {}: {error}", error.instance_path()))
    }
}

fn operation(described: Described, compile: &impl Fn(&Value) -> Validator) -> Operation {
    let placed =
        |place: &str| described.parameters.iter().filter(move |parameter| parameter.place == place).collect::<Vec<_>>();
    let fields = |schema: &Value| schema["properties"].as_object().map(|fields| fields.keys().cloned().collect());
    Operation {
        method: described.method.clone(),
        path: described.path.trim_matches('/').split('/').map(str::to_owned).collect(),
        query: placed("query")
            .iter()
            .map(|parameter| (parameter.name.clone(), parameter.required, compile(&parameter.schema)))
            .collect(),
        segments: placed("path").iter().map(|parameter| (parameter.name.clone(), compile(&parameter.schema))).collect(),
        body: described
            .body
            .as_ref()
            .map(|body| Body { schema: compile(body), fields: fields(body).unwrap_or_default() }),
        answers: described
            .answers
            .into_iter()
            .map(|(status, answer)| (status, (compile(&answer.schema), answer.example)))
            .collect(),
    }
}

/// A parameter is text; it fits if one reading of it does.
fn any_reading(schema: &Validator, text: &str) -> bool {
    let number = text.parse::<i64>().ok().map(Value::from);
    schema.is_valid(&Value::from(text)) || number.is_some_and(|number| schema.is_valid(&number))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Document;

    #[test]
    fn githubs_own_examples_fit_githubs_own_schemas() {
        let mut odd = Vec::new();
        for operation in &Document::load().operations {
            for (status, (schema, example)) in operation.answers.iter().filter(|(_, (_, example))| !example.is_null()) {
                odd.extend(schema.iter_errors(example).map(|error| {
                    format!(
                        "{} {} {status} at {}: {error}",
                        operation.method,
                        operation.path.join("/"),
                        error.instance_path()
                    )
                }));
            }
        }
        assert_eq!(odd, Vec::<String>::new());
    }

    #[test]
    fn what_the_document_does_not_allow_is_named() {
        let document = Document::load();
        let comments = "/repos/o/r/issues/1/comments";
        let post = document.find("POST", comments).unwrap();
        assert_eq!(post.violation(comments, &[], Some(&json!({"body": "x"}))), None);
        for (body, wrong) in
            [(json!({}), "body"), (json!({"body": 1}), "/body"), (json!({"body": "x", "text": "y"}), "text")]
        {
            assert!(post.violation(comments, &[], Some(&body)).unwrap().contains(wrong), "{body}");
        }
        let query = [("page".to_owned(), "x".to_owned())];
        assert!(document.find("GET", comments).unwrap().violation(comments, &query, None).unwrap().contains("page"));
        assert!(document.find("DELETE", comments).is_none());
        assert!(document.unlike(Some(post), 201, &json!({"id": 1})).is_some());
        assert!(document.unlike(Some(post), 200, &json!({"id": 1})).is_some());
        assert_eq!(document.unlike(Some(post), 404, &json!({"message": "Not Found"})), None);
    }
}
