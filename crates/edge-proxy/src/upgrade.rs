//! Protocol switches (WebSocket, RFC 6455): after the 101 bytes are passed on both ways as they are.

use bytes::Bytes;
use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::headers;
use crate::upstream::Body;

/// The protocol that a request asks to switch to.
pub fn wanted(fields: &HeaderMap) -> Option<HeaderValue> {
    let asks = fields.get_all(CONNECTION).iter().any(|value| {
        value.to_str().is_ok_and(|list| list.split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade")))
    });
    // HTTP/2 over clear text is a hop's own affair.
    let protocol = fields.get(UPGRADE).filter(|protocol| !protocol.as_bytes().eq_ignore_ascii_case(b"h2c"));
    protocol.filter(|_| asks).cloned()
}

/// The 101 as the visitor gets it.
pub fn switched(fields: &HeaderMap, protocol: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers::response_fields(fields);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, protocol);
    response
}

/// Passes bytes on until one side ends, or shutdown.
pub async fn relay(
    visitor: OnUpgrade,
    reader: ReadHalf<TlsStream<TcpStream>>,
    writer: WriteHalf<TlsStream<TcpStream>>,
    first: Bytes,
    shutdown: CancellationToken,
) {
    let Ok(visitor) = visitor.await else { return };
    let mut visitor = TokioIo::new(visitor);
    let mut machine = reader.unsplit(writer);
    // What came behind the machine's head belongs to the new protocol.
    if visitor.write_all(&first).await.is_err() {
        return;
    }
    tokio::select! {
        // How a conversation of theirs ends is theirs.
        _ = tokio::io::copy_bidirectional(&mut visitor, &mut machine) => {}
        () = shutdown.cancelled() => {}
    }
}
