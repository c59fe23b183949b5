//! GitHub's REST API, as far as we use it: who asks, told faults, the document's word on the request, the answer, and
//! the document's word on that.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::GitHost;
use super::access::{self, Caller};
use super::resources;
use super::state::Fault;

/// What is answered.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
    /// The query of the next page.
    pub(super) next: Option<String>,
}

impl Answer {
    pub(super) fn new(status: u16, body: Value) -> Self {
        Self { status, body, next: None }
    }
}

/// A request that has passed.
pub(super) struct Asked<'r> {
    pub(super) caller: &'r Caller,
    pub(super) method: &'r str,
    pub(super) segments: &'r [&'r str],
    pub(super) query: &'r [(String, String)],
    pub(super) body: &'r Value,
}

impl Asked<'_> {
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    pub(super) fn text(&self, key: &str) -> String {
        self.body[key].as_str().unwrap_or_default().to_owned()
    }
}

/// An error as GitHub words it.
pub(super) fn refused(status: u16, message: &str) -> Answer {
    Answer::new(status, json!({"message": message, "documentation_url": "https://docs.github.com/rest"}))
}

pub(super) async fn answer(host: &GitHost, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
    let (method, path) = (parts.method.as_str(), parts.uri.path());
    let fault = host.state().faults.pop_front();
    if let Some(response) = faulty(host, fault).await {
        return response;
    }
    let Some(caller) = access::caller(host, &parts.headers) else {
        return respond(host, path, refused(401, "Bad credentials"));
    };
    let operation = host.0.document.find(method, path);
    let query = pairs(parts.uri.query().unwrap_or_default());
    let body: Option<Value> =
        if bytes.is_empty() { None } else { Some(serde_json::from_slice(&bytes).unwrap_or(Value::Null)) };
    let violation = match operation {
        None => Some("no such operation".to_owned()),
        Some(operation) => odd_header(&parts.headers).or_else(|| operation.violation(path, &query, body.as_ref())),
    };
    if let Some(violation) = violation {
        host.state().violations.push(format!("{method} {path}: {violation}"));
        let status = if operation.is_none() { 404 } else { 422 };
        return respond(host, path, refused(status, &format!("GitHub's document does not allow this: {violation}")));
    }
    let segments: Vec<String> = path.trim_matches('/').split('/').map(decoded).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let body = body.unwrap_or(Value::Null);
    let asked = Asked { caller: &caller, method, segments: &segments, query: &query, body: &body };
    let answer = match access::refusal(&caller, method, &segments) {
        Some(refusal) => refusal,
        None => resources::answer(host, &asked).await,
    };
    if let Some(unlike) = host.0.document.unlike(operation, answer.status, &answer.body) {
        host.state().violations.push(format!("{method} {path}: our own {unlike}"));
        return respond(host, path, refused(500, &unlike));
    }
    respond(host, path, answer)
}

/// The answer to a request that was told to fail.
async fn faulty(host: &GitHost, fault: Option<Fault>) -> Option<Response> {
    let refuse = |status: u16, message: &str| respond(host, "", refused(status, message)).into_response();
    let mut response = match fault? {
        Fault::Slow(by) => {
            tokio::time::sleep(by).await;
            return None;
        }
        Fault::Status(status) => refuse(status, "told to fail"),
        Fault::RateLimit { .. } => refuse(403, "API rate limit exceeded for installation ID 77."),
        Fault::SecondaryRateLimit => {
            refuse(403, "You have exceeded a secondary rate limit. Please wait a few minutes.")
        }
        Fault::Revoked => refuse(401, "Bad credentials"),
        Fault::Garbage => (StatusCode::OK, "<html>not JSON").into_response(),
    };
    let headers = response.headers_mut();
    match fault {
        Some(Fault::Status(_)) => {
            headers.insert("retry-after", 7.into());
        }
        Some(Fault::RateLimit { reset_secs }) => {
            headers.insert("x-ratelimit-remaining", 0.into());
            headers.insert("x-ratelimit-reset", (host.0.clock.now().timestamp() + reset_secs).into());
        }
        _ => {}
    }
    Some(response)
}

/// Headers without which GitHub answers otherwise, or not at all.
fn odd_header(headers: &HeaderMap) -> Option<String> {
    let wanted =
        [("accept", "application/vnd.github+json"), ("x-github-api-version", "2022-11-28"), ("user-agent", "stagely")];
    let odd = wanted.iter().find(|(name, value)| headers.get(*name).is_none_or(|given| given != value));
    odd.map(|(name, value)| format!("the header {name} is not {value}"))
}

/// The part of `items` that was asked for by page, with the way to the next.
pub(super) fn page(asked: &Asked<'_>, items: Vec<Value>) -> Answer {
    let number = |key, default: usize| asked.value(key).and_then(|text| text.parse().ok()).unwrap_or(default);
    // GitHub gives a hundred at most, whatever is asked for.
    let (size, page) = (number("per_page", 30).clamp(1, 100), number("page", 1).max(1));
    let has_more = items.len() > size * page;
    let items: Vec<Value> = items.into_iter().skip(size * (page - 1)).take(size).collect();
    let next = has_more.then(|| with(asked, "page", &(page + 1).to_string()));
    Answer { status: 200, body: Value::Array(items), next }
}

/// The query that was asked, with another value for `key`.
pub(super) fn with(asked: &Asked<'_>, key: &str, value: &str) -> String {
    let kept =
        asked.query.iter().filter(|(name, _)| name != key).map(|(name, value)| format!("{name}={}", encoded(value)));
    kept.chain([format!("{key}={value}")]).collect::<Vec<_>>().join("&")
}

fn respond(host: &GitHost, path: &str, answer: Answer) -> Response {
    let code = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = Response::builder().status(code).header("content-type", "application/json; charset=utf-8");
    if let Some(next) = answer.next {
        response = response.header("link", format!("<{}{path}?{next}>; rel=\"next\"", host.api_url()));
    }
    response.body(Body::from(answer.body.to_string())).expect("a response")
}

fn pairs(query: &str) -> Vec<(String, String)> {
    let split = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    split.map(|(key, value)| (decoded(key), decoded(value))).collect()
}

fn encoded(text: &str) -> String {
    let byte =
        |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(byte).collect()
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
