//! The port for agents: TLS with a certificate of the internal authority, and two paths on it.

use std::convert::Infallible;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use stagely_proto::agent_wire::{CONNECT_PATH, ENROL_PATH, SUBPROTOCOL};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ca::Issued;
use crate::enrol::{MAX_REQUEST_BYTES, Refusal};
use crate::hub::Hub;
use crate::session;
use crate::socket::Socket;

/// For TLS and for the head of a request.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// For one answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Connections that have not said what they want yet.
const UNDECIDED: usize = 512;

type Answer = Response<Full<Bytes>>;

/// The certificate that the port shows; replaced while it serves.
#[derive(Debug, Default)]
pub struct ServerCertificate(RwLock<Option<Arc<CertifiedKey>>>);

impl ServerCertificate {
    /// Shows another certificate from the next handshake on.
    ///
    /// # Errors
    /// When certificate and key do not belong together.
    pub fn show(&self, issued: &Issued) -> anyhow::Result<()> {
        let chain = vec![CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(issued.key_pem.reveal().as_bytes())?;
        let certified = CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(certified));
        Ok(())
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The bound port.
pub struct Listener {
    tcp: TcpListener,
    tls: TlsAcceptor,
    hub: Arc<Hub>,
    tracker: TaskTracker,
}

impl Listener {
    /// Makes a server of a bound port.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(
        tcp: TcpListener,
        certificate: Arc<ServerCertificate>,
        hub: Arc<Hub>,
        tracker: TaskTracker,
    ) -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(certificate);
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tcp, tls: TlsAcceptor::from(Arc::new(tls)), hub, tracker })
    }

    /// Accepts until `closing`; the connections themselves live until `shutdown`.
    pub async fn run(self, closing: CancellationToken, shutdown: CancellationToken) {
        let undecided = Arc::new(Semaphore::new(UNDECIDED));
        loop {
            // Waits while too many are undecided: the others stay in the kernel's queue.
            let Ok(slot) = Arc::clone(&undecided).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = self.tcp.accept() => accepted,
                () = closing.cancelled() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept agents");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (tls, hub) = (self.tls.clone(), Arc::clone(&self.hub));
            let (tracker, shutdown) = (self.tracker.clone(), shutdown.clone());
            self.tracker.spawn(async move {
                let _slot = slot;
                serve(stream, &tls, hub, tracker, shutdown).await;
            });
        }
    }
}

/// One connection, until its one request is answered or handed over to a session.
async fn serve(stream: TcpStream, tls: &TlsAcceptor, hub: Arc<Hub>, tracker: TaskTracker, shutdown: CancellationToken) {
    // Not fatal: only latency suffers.
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(stream)).await else { return };
    let service = service_fn(move |request| {
        let (hub, tracker, shutdown) = (Arc::clone(&hub), tracker.clone(), shutdown.clone());
        async move { Ok::<_, Infallible>(route(request, hub, &tracker, shutdown).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Ok(Err(error)) = timeout(HANDSHAKE + ANSWER, connection).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn route(
    request: Request<Incoming>,
    hub: Arc<Hub>,
    tracker: &TaskTracker,
    shutdown: CancellationToken,
) -> Answer {
    // Agents are not browsers: a page that somebody looks at must not reach this port (ASVS 4.4.2).
    if request.headers().contains_key(ORIGIN) {
        return refusal(StatusCode::FORBIDDEN, "origin_refused", "browsers have no business here");
    }
    match (request.method(), request.uri().path()) {
        (&Method::POST, ENROL_PATH) => enrol(request, &hub).await,
        (&Method::GET, CONNECT_PATH) => connect(request, hub, tracker, shutdown),
        _ => refusal(StatusCode::NOT_FOUND, "not_found", "there is nothing here"),
    }
}

async fn enrol(request: Request<Incoming>, hub: &Hub) -> Answer {
    let body = timeout(HANDSHAKE, Limited::new(request.into_body(), MAX_REQUEST_BYTES).collect()).await;
    let Ok(Ok(body)) = body else {
        return refusal(StatusCode::BAD_REQUEST, "malformed", "the request is too long or too slow");
    };
    match timeout(ANSWER, hub.enrol(&body.to_bytes())).await {
        Ok(Ok(answer)) => json(StatusCode::OK, &answer),
        Ok(Err(Refusal { status, code, message })) => refusal(status, code, message),
        Err(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "enrolment took too long: try again"),
    }
}

fn connect(
    mut request: Request<Incoming>,
    hub: Arc<Hub>,
    tracker: &TaskTracker,
    shutdown: CancellationToken,
) -> Answer {
    let headers = request.headers();
    let Some(accept) = websocket_key(headers).map(|key| derive_accept_key(key.as_bytes())) else {
        return refusal(StatusCode::BAD_REQUEST, "not_a_websocket", "ask for a WebSocket, version 13");
    };
    if !has_token(headers, &SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        return refusal(StatusCode::BAD_REQUEST, "wrong_subprotocol", &format!("the subprotocol is {SUBPROTOCOL}"));
    }
    let Some(token) = bearer(headers) else {
        return refusal(StatusCode::UNAUTHORIZED, "no_credential", "a credential is needed");
    };
    let credential = hub.signer.verify(token, hub.clock.now());
    let upgrade = hyper::upgrade::on(&mut request);
    tracker.spawn(async move {
        if let Ok(Ok(upgraded)) = timeout(HANDSHAKE, upgrade).await {
            session::serve(hub, Socket::accept(upgraded).await, credential, shutdown).await;
        }
    });
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    answer
}

fn websocket_key(headers: &HeaderMap) -> Option<&str> {
    let version = headers.get(SEC_WEBSOCKET_VERSION)?.to_str().ok()?;
    let asked = has_token(headers, &CONNECTION, "upgrade") && has_token(headers, &UPGRADE, "websocket");
    (asked && version == "13").then_some(())?;
    headers.get(SEC_WEBSOCKET_KEY)?.to_str().ok()
}

fn has_token(headers: &HeaderMap, name: &http::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name);
    values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Answer {
    json(status, &serde_json::json!({"code": code, "message": message}))
}

fn json(status: StatusCode, body: &impl serde::Serialize) -> Answer {
    let bytes = serde_json::to_vec(body).unwrap_or_default();
    let mut answer = Response::new(Full::new(Bytes::from(bytes)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // One request for each connection: its slot is for the next who knocks.
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}
