//! The edge's own answers. Every one says so with `x-stagely: edge`, none is cached, and text from outside is escaped.

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use stagely_domain::route::{Entry, Notice, State};

use crate::upstream::Body;

/// What a page says.
struct Page<'p> {
    status: StatusCode,
    title: &'p str,
    text: &'p str,
    notice: Option<&'p Notice>,
    /// Reload by itself.
    waits: bool,
}

/// A refusal before any route was looked at.
pub fn refused(headers: &HeaderMap, status: StatusCode, text: &str) -> Response<Body> {
    page(headers, &Page { status, title: "Not a request that can be forwarded", text, notice: None, waits: false })
}

/// Nobody knows the host.
pub fn unknown(headers: &HeaderMap) -> Response<Body> {
    let text = "There is no preview at this address. It may have been removed with its pull request.";
    page(headers, &Page { status: StatusCode::NOT_FOUND, title: "No such preview", text, notice: None, waits: false })
}

/// Which hosts there are is not known yet.
pub fn starting(headers: &HeaderMap) -> Response<Body> {
    let (status, title) = (StatusCode::SERVICE_UNAVAILABLE, "This preview is being looked for");
    let text = "Stagely has just started and does not know all previews yet.";
    page(headers, &Page { status, title, text, notice: None, waits: true })
}

/// The host is known and does not lead anywhere now.
pub fn standing(headers: &HeaderMap, entry: &Entry) -> Response<Body> {
    let (status, title, waits) = match entry.state {
        State::Waiting | State::Ready => (StatusCode::SERVICE_UNAVAILABLE, "This preview is being prepared", true),
        State::Asleep => (StatusCode::SERVICE_UNAVAILABLE, "This preview is waking up", true),
        State::Failed => (StatusCode::BAD_GATEWAY, "This preview failed", false),
        State::Gone => (StatusCode::GONE, "This preview was removed", false),
    };
    page(headers, &Page { status, title, text: &entry.notice.text, notice: Some(&entry.notice), waits })
}

/// The machine or the service in it did not answer as it should.
pub fn unreachable(headers: &HeaderMap, entry: &Entry, why: &str) -> Response<Body> {
    let title = "Nothing answers behind this preview";
    page(headers, &Page { status: StatusCode::BAD_GATEWAY, title, text: why, notice: Some(&entry.notice), waits: true })
}

fn page(headers: &HeaderMap, page: &Page<'_>) -> Response<Body> {
    let wants = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (kind, body) = if wants.contains("application/json") && !wants.contains("text/html") {
        let detail = serde_json::json!({"title": page.title, "status": page.status.as_u16(), "detail": page.text});
        ("application/problem+json", detail.to_string())
    } else {
        ("text/html; charset=utf-8", html(page))
    };
    let mut response = Response::new(Body::full(Bytes::from(body)));
    *response.status_mut() = page.status;
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert("x-stagely", HeaderValue::from_static("edge"));
    fields.insert("x-robots-tag", HeaderValue::from_static("noindex"));
    fields.insert("content-security-policy", HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'"));
    if page.waits {
        fields.insert(RETRY_AFTER, HeaderValue::from_static("2"));
    }
    response
}

fn html(page: &Page<'_>) -> String {
    let refresh = if page.waits { r#"<meta http-equiv="refresh" content="2">"# } else { "" };
    let mut about = String::new();
    if let Some(notice) = page.notice {
        if !notice.title.is_empty() {
            about.push_str(&format!("<p class=\"about\">{}</p>", escape(&notice.title)));
        }
        // Only web addresses become links: the text is a stranger's.
        if notice.url.starts_with("https://") || notice.url.starts_with("http://") {
            about.push_str(&format!("<p><a rel=\"noreferrer\" href=\"{}\">Pull request</a></p>", escape(&notice.url)));
        }
    }
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">{refresh}<meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><style>:root{{color-scheme:light dark;font:16px/1.5 system-ui,\
         sans-serif}}main{{max-width:36rem;margin:18vh auto;padding:0 1.5rem}}h1{{font-size:1.5rem}}.about{{opacity:.7}}\
         </style></head><body><main><h1>{title}</h1><p>{text}</p>{about}</main></body></html>",
        title = escape(page.title),
        text = escape(page.text),
    )
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() && c != '\n' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
