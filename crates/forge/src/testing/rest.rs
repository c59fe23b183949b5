//! GitHub's REST API, as far as we use it.

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use serde_json::{Value, json};

use super::state::{Comment, State, Status};
use super::{GitHost, TOKEN, git};

pub(super) async fn answer(host: &GitHost, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
    let body: Option<Value> = if bytes.is_empty() { None } else { serde_json::from_slice(&bytes).ok() };
    let (method, path) = (parts.method.as_str().to_owned(), parts.uri.path().to_owned());
    let bearer = parts.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let app_call = path.starts_with("/app/") || path.ends_with("/installation");
    if bearer != format!("Bearer {TOKEN}") && !(app_call && bearer.starts_with("Bearer eyJ")) {
        return status(401, json!({"message": "Bad credentials"}));
    }
    {
        let mut state = host.state();
        let (fault, times) = state.faults;
        if times > 0 {
            state.faults = (fault, times - 1);
            let code = StatusCode::from_u16(fault).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return (code, [("retry-after", "7")], json!({"message": "told to fail"}).to_string()).into_response();
        }
    }
    let query = pairs(parts.uri.query().unwrap_or_default());
    if let Some(violation) = host.0.document.violation(&method, &path, &query, body.as_ref()) {
        host.state().violations.push(format!("{method} {path}: {violation}"));
        return status(422, json!({"message": format!("GitHub's document does not allow this: {violation}")}));
    }
    let segments: Vec<String> = path.trim_matches('/').split('/').map(decoded).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let body = body.unwrap_or(Value::Null);
    match (method.as_str(), segments.as_slice()) {
        ("POST", ["app", "installations", _, "access_tokens"]) => {
            status(201, json!({"token": TOKEN, "expires_at": "2099-01-01T00:00:00Z"}))
        }
        ("GET", ["repos", owner, name, "contents", path @ ..]) => {
            let reference = value(&query, "ref").unwrap_or("main");
            contents(host, &format!("{owner}/{name}"), reference, &path.join("/")).await
        }
        ("GET", ["repos", owner, name, "pulls", number, "files"]) => {
            let repo = format!("{owner}/{name}");
            let sha = host.state().repo(&repo).pulls.get(&number.parse().unwrap_or(0)).map(|pull| pull.sha.clone());
            let Some(sha) = sha else { return status(404, json!({"message": "Not Found"})) };
            let files = git::changed(host.0.directory.path(), &repo, "main", &sha).await;
            page(&query, files.into_iter().map(|path| json!({"filename": path})).collect())
        }
        (method, ["repos", owner, name, rest @ ..]) => {
            let repo = format!("{owner}/{name}");
            let mut state = host.state();
            if !state.repos.contains_key(&repo) {
                return status(404, json!({"message": "Not Found"}));
            }
            repository(&mut state, method, &repo, rest, &query, &body, &host.api_url())
        }
        _ => status(404, json!({"message": "Not Found"})),
    }
}

fn repository(
    state: &mut State,
    method: &str,
    name: &str,
    rest: &[&str],
    query: &[(String, String)],
    body: &Value,
    base_url: &str,
) -> Response {
    let id = state.next_id();
    let repo = state.repo(name);
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    match (method, rest) {
        ("GET", ["installation"]) => status(200, json!({"id": 77})),
        ("GET", ["pulls"]) => {
            let open = repo.pulls.values().filter(|pull| pull.open);
            page(query, open.map(|pull| pull.json(name, base_url)).collect())
        }
        ("GET", ["pulls", number]) => match number.parse().ok().and_then(|number: i64| repo.pulls.get(&number)) {
            Some(pull) => status(200, pull.json(name, base_url)),
            None => status(404, json!({"message": "Not Found"})),
        },
        ("GET", ["issues", number, "comments"]) => {
            let of = repo.comments.iter().filter(|comment| Ok(comment.number) == number.parse());
            page(query, of.map(|comment| json!({"id": comment.id, "body": comment.body})).collect())
        }
        ("POST", ["issues", number, "comments"]) => {
            let number = number.parse().unwrap_or(0);
            repo.comments.push(Comment { id, number, body: text("body"), edits: 0 });
            status(201, json!({"id": id}))
        }
        ("PATCH", ["issues", "comments", wanted]) => {
            match repo.comments.iter_mut().find(|comment| comment.id.to_string() == **wanted) {
                Some(comment) => {
                    comment.body = text("body");
                    comment.edits += 1;
                    status(200, json!({"id": comment.id}))
                }
                None => status(404, json!({"message": "Not Found"})),
            }
        }
        ("GET", ["commits", sha, "check-runs"]) => {
            let of = repo.checks.iter().filter(|check| check.sha == **sha);
            let runs: Vec<Value> = of.map(|check| json!({"id": check.id, "external_id": check.name})).collect();
            status(200, json!({"total_count": runs.len(), "check_runs": runs}))
        }
        ("POST", ["check-runs"]) => {
            let (sha, name) = (text("head_sha"), text("external_id"));
            repo.checks.push(Status { id, sha, name, state: check_state(body), text: check_text(body) });
            status(201, json!({"id": id}))
        }
        ("PATCH", ["check-runs", wanted]) => {
            match repo.checks.iter_mut().find(|check| check.id.to_string() == **wanted) {
                Some(check) => {
                    (check.state, check.text) = (check_state(body), check_text(body));
                    status(200, json!({"id": check.id}))
                }
                None => status(404, json!({"message": "Not Found"})),
            }
        }
        ("GET", ["deployments"]) => {
            let (sha, environment) = (value(query, "sha"), value(query, "environment"));
            let of = repo.deployments.iter().filter(|deployment| {
                sha.is_none_or(|sha| sha == deployment.sha) && environment.is_none_or(|name| name == deployment.name)
            });
            page(query, of.map(|deployment| json!({"id": deployment.id})).collect())
        }
        ("POST", ["deployments"]) => {
            let (sha, name) = (text("ref"), text("environment"));
            repo.deployments.push(Status { id, sha, name, state: String::new(), text: String::new() });
            status(201, json!({"id": id}))
        }
        ("POST", ["deployments", wanted, "statuses"]) => {
            match repo.deployments.iter_mut().find(|deployment| deployment.id.to_string() == **wanted) {
                Some(deployment) => {
                    (deployment.state, deployment.text) = (text("state"), text("environment_url"));
                    status(201, json!({"id": id}))
                }
                None => status(404, json!({"message": "Not Found"})),
            }
        }
        _ => status(404, json!({"message": "Not Found"})),
    }
}

async fn contents(host: &GitHost, repo: &str, reference: &str, path: &str) -> Response {
    match git::blob(host.0.directory.path(), repo, reference, path).await {
        Some(bytes) => {
            let content = base64::engine::general_purpose::STANDARD.encode(&bytes);
            status(200, json!({"type": "file", "size": bytes.len(), "encoding": "base64", "content": content}))
        }
        None => status(404, json!({"message": "Not Found"})),
    }
}

fn check_state(body: &Value) -> String {
    body["conclusion"].as_str().or(body["status"].as_str()).unwrap_or_default().to_owned()
}

fn check_text(body: &Value) -> String {
    format!(
        "{}\n{}",
        body["output"]["title"].as_str().unwrap_or_default(),
        body["output"]["summary"].as_str().unwrap_or_default()
    )
}

fn page(query: &[(String, String)], items: Vec<Value>) -> Response {
    let number = |key, default: usize| value(query, key).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (size, page) = (number("per_page", 30), number("page", 1));
    let items: Vec<Value> = items.into_iter().skip(size * (page - 1)).take(size).collect();
    status(200, Value::Array(items))
}

fn status(code: u16, body: Value) -> Response {
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (code, [("content-type", "application/json")], Body::from(body.to_string())).into_response()
}

fn value<'q>(query: &'q [(String, String)], key: &str) -> Option<&'q str> {
    query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

fn pairs(query: &str) -> Vec<(String, String)> {
    let split = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    split.map(|(key, value)| (decoded(key), decoded(value))).collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = (first == b'%').then(|| tail.get(..2)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
