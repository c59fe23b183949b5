//! Heads: what is refused, what is dropped, what is written. Nothing that frames a message is ever copied.

use std::net::SocketAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Version};

/// Fields of one hop (RFC 9110, section 7.6.1), and framing, which is ours to compute.
const HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::CONTENT_LENGTH,
    HeaderName::from_static("keep-alive"),
];

/// Fields that only the edge may set, since services believe them.
const OURS: [&str; 5] = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "x-real-ip"];

/// The host of a request, lower case and without its port; or what to refuse it with.
pub fn host<B>(request: &Request<B>) -> Result<String, (StatusCode, &'static str)> {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "this method is not forwarded"));
    }
    let bad = |why| Err((StatusCode::BAD_REQUEST, why));
    if request.version() < Version::HTTP_11 && request.headers().contains_key(header::TRANSFER_ENCODING) {
        return bad("HTTP/1.0 has no transfer codings");
    }
    let codings = request.headers().get_all(header::TRANSFER_ENCODING);
    if codings.iter().count() > 1 || codings.iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return bad("the only transfer coding is one `chunked`");
    }
    if request.headers().contains_key(header::TRANSFER_ENCODING)
        && request.headers().contains_key(header::CONTENT_LENGTH)
    {
        return bad("a message has one length");
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(given), None) = (hosts.next(), hosts.next()) else { return bad("a request has exactly one Host") };
    let Ok(given) = given.to_str() else { return bad("the Host is not a name") };
    if request.uri().authority().is_some_and(|authority| !authority.as_str().eq_ignore_ascii_case(given)) {
        return bad("the target and the Host differ");
    }
    let name = match given.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) => return bad("the Host is not a name"),
        None => given,
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let good = !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    if good { Ok(name) } else { bad("the Host is not a name") }
}

/// How the body of a message to the machine is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestFraming {
    None,
    Length(u64),
    Chunked,
}

/// The head as it goes to the machine.
pub fn request_head<B>(
    request: &Request<B>,
    peer: SocketAddr,
    framing: RequestFraming,
    upgrade: Option<&HeaderValue>,
) -> Vec<u8> {
    let target = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let mut head = Vec::with_capacity(1024);
    head.extend_from_slice(request.method().as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(target.as_bytes());
    head.extend_from_slice(b" HTTP/1.1\r\n");
    let named = nominated(request.headers());
    for (name, value) in request.headers() {
        let text = name.as_str();
        // Names with an underscore are read as those with a hyphen by many a service.
        let spoofs = text.contains('_') || text.starts_with("x-stagely-") || OURS.contains(&text);
        if !HOP.contains(name) && !named.contains(name) && !spoofs {
            field(&mut head, text, value.as_bytes());
        }
    }
    let ip = peer.ip().to_string();
    field(&mut head, "x-forwarded-for", ip.as_bytes());
    field(&mut head, "x-real-ip", ip.as_bytes());
    field(&mut head, "x-forwarded-proto", b"http");
    if let Some(host) = request.headers().get(header::HOST) {
        field(&mut head, "x-forwarded-host", host.as_bytes());
    }
    match framing {
        RequestFraming::None => {}
        RequestFraming::Length(length) => field(&mut head, "content-length", length.to_string().as_bytes()),
        RequestFraming::Chunked => field(&mut head, "transfer-encoding", b"chunked"),
    }
    match upgrade {
        Some(protocol) => {
            field(&mut head, "connection", b"upgrade");
            field(&mut head, "upgrade", protocol.as_bytes());
        }
        None => field(&mut head, "connection", b"keep-alive"),
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// The machine's fields as the visitor gets them.
pub fn response_fields(fields: &HeaderMap) -> HeaderMap {
    let named = nominated(fields);
    let mut kept = HeaderMap::with_capacity(fields.len() + 1);
    for (name, value) in fields {
        if !HOP.contains(name) && !named.contains(name) && !name.as_str().starts_with("x-stagely") {
            kept.append(name.clone(), value.clone());
        }
    }
    kept.insert("x-robots-tag", HeaderValue::from_static("noindex"));
    kept
}

/// Fields that `Connection` names: they are of one hop too.
fn nominated(fields: &HeaderMap) -> Vec<HeaderName> {
    let lists = fields.get_all(header::CONNECTION).iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}

fn field(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}
