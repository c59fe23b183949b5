//! A reverse proxy on loopback that does harm: it stands before any double and spoils chosen requests, each in one way.
//! It knows nothing of the provider behind it.
#![allow(dead_code, reason = "each provider's tests use some of the faults")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What happens to a request instead of only being passed on.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The connection is reset before anything is passed on: no effect.
    ResetBefore,
    /// It is passed on and takes effect; then the connection is reset.
    LoseAnswer,
    /// It takes effect; the answer ends half-way through its body.
    Truncate,
    /// It takes effect; the answer keeps its status and has a body that nobody understands.
    Garble,
    /// It is passed on only after that long.
    Delay(Duration),
    /// It takes effect at once; the answer comes only after that long.
    AnswerLate(Duration),
    /// It is not passed on; this comes instead.
    Answer { status: u16, headers: Vec<(&'static str, String)>, body: String },
}

impl Fault {
    /// A 429 in the way of a provider that says when to come again, with this header.
    pub fn too_many(header: &'static str, value: impl ToString) -> Self {
        Self::Answer { status: 429, headers: vec![(header, value.to_string())], body: String::new() }
    }

    /// An answer of a gateway in between: HTML, whatever was asked for.
    pub fn html(status: u16) -> Self {
        let headers = vec![("content-type", "text/html".to_owned())];
        Self::Answer { status, headers, body: "<html><body><h1>Sorry</h1></body></html>".to_owned() }
    }
}

/// A request that came by.
#[derive(Debug, Clone)]
pub struct Seen {
    /// 1 for the first since the faults were last set.
    pub nth: usize,
    pub method: Method,
    /// Path and query.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

type When = Box<dyn Fn(&Seen) -> bool + Send + Sync>;

#[derive(Default)]
struct Shared {
    seen: Vec<Seen>,
    rules: Vec<(When, Fault)>,
    harmed: usize,
}

/// The proxy; it ends when dropped.
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    serving: JoinSet<()>,
}

impl FaultProxy {
    /// Stands before `upstream`, `http://host:port` without a path, and passes everything on.
    pub async fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let passing = Arc::new(Passing {
            upstream: upstream.trim_end_matches('/').to_owned(),
            client: reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .timeout(Duration::from_secs(600))
                .build()
                .unwrap(),
            shared: Arc::clone(&shared),
        });
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(Arc::clone(&passing), stream));
            }
        });
        Self { address, shared, serving }
    }

    /// Where it listens, `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on: the `nth` request (1 is the next) suffers this, and all others pass.
    pub fn harm_nth(&self, nth: usize, fault: Fault) {
        self.harm_when(move |seen| seen.nth == nth, fault);
    }

    /// From now on: every request of which this is true suffers this, and all others pass.
    pub fn harm_when(&self, when: impl Fn(&Seen) -> bool + Send + Sync + 'static, fault: Fault) {
        *self.shared() = Shared { rules: vec![(Box::new(when), fault)], ..Shared::default() };
    }

    /// The same beside what was set before; the first that fits counts.
    pub fn also_harm_when(&self, when: impl Fn(&Seen) -> bool + Send + Sync + 'static, fault: Fault) {
        self.shared().rules.push((Box::new(when), fault));
    }

    /// Passes everything on again, and tells how many requests were harmed.
    pub fn calm(&self) -> usize {
        std::mem::take(&mut *self.shared()).harmed
    }

    /// What came by since the faults were last set.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared().seen.clone()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a connection needs.
struct Passing {
    upstream: String,
    client: reqwest::Client,
    shared: Arc<Mutex<Shared>>,
}

type Body = BoxBody<Bytes, std::io::Error>;

async fn serve(passing: Arc<Passing>, stream: TcpStream) {
    // Whenever the connection is dropped with an answer owing, the client sees a reset.
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    let service = service_fn(move |request| {
        let passing = Arc::clone(&passing);
        async move { passing.handle(request).await }
    });
    // An error is a fault that was asked for, or a client that went away.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

impl Passing {
    async fn handle(&self, request: Request<Incoming>) -> std::io::Result<Response<Body>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        let (seen, fault) = self.look(&parts, body);
        let reset = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        match fault {
            None => self.pass(seen).await,
            Some(Fault::ResetBefore) => Err(reset()),
            Some(Fault::Delay(delay)) => {
                tokio::time::sleep(delay).await;
                self.pass(seen).await
            }
            Some(Fault::Answer { status, headers, body }) => Ok(answer(status, &headers, body)),
            Some(Fault::LoseAnswer) => {
                self.pass(seen).await?;
                Err(reset())
            }
            Some(Fault::AnswerLate(delay)) => {
                let passed = self.pass(seen).await?;
                tokio::time::sleep(delay).await;
                Ok(passed)
            }
            Some(Fault::Garble) => {
                let (mut parts, _) = self.pass(seen).await?.into_parts();
                parts.headers.remove(header::CONTENT_LENGTH);
                Ok(Response::from_parts(parts, whole(Bytes::from_static(b"<html>{\"half\": "))))
            }
            Some(Fault::Truncate) => {
                let (mut parts, body) = self.pass(seen).await?.into_parts();
                let bytes = body.collect().await?.to_bytes();
                parts.headers.insert(header::CONTENT_LENGTH, bytes.len().max(2).into());
                let half = Frame::data(bytes.slice(..bytes.len() / 2));
                let halves = stream::iter([Ok(half), Err(reset())]);
                Ok(Response::from_parts(parts, BodyExt::boxed(StreamBody::new(halves))))
            }
        }
    }

    /// Notes the request and finds what is to happen to it.
    fn look(&self, parts: &http::request::Parts, body: Bytes) -> (Seen, Option<Fault>) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = Seen {
            nth: shared.seen.len() + 1,
            method: parts.method.clone(),
            path: parts.uri.path_and_query().map_or_else(String::new, ToString::to_string),
            headers: parts.headers.clone(),
            body,
        };
        let fault = shared.rules.iter().find(|(when, _)| when(&seen)).map(|(_, fault)| fault.clone());
        shared.harmed += usize::from(fault.is_some());
        shared.seen.push(seen.clone());
        (seen, fault)
    }

    async fn pass(&self, seen: Seen) -> std::io::Result<Response<Body>> {
        let request = self.client.request(seen.method, format!("{}{}", self.upstream, seen.path));
        let passed = request.headers(seen.headers).body(seen.body).send().await.map_err(std::io::Error::other)?;
        let (status, mut headers) = (passed.status(), passed.headers().clone());
        let bytes = passed.bytes().await.map_err(std::io::Error::other)?;
        // The body is whole here: how it came is said anew.
        headers.remove(header::TRANSFER_ENCODING);
        let mut response = Response::new(whole(bytes));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

fn answer(status: u16, headers: &[(&'static str, String)], body: String) -> Response<Body> {
    let mut response = Response::new(whole(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    response
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed()
}

/// A port of loopback at which connections are neither made nor refused, as behind a firewall that drops them.
pub struct DeafPort {
    address: SocketAddr,
    _listener: socket2::Socket,
    _waiting: Vec<TcpStream>,
}

impl DeafPort {
    pub async fn start() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Where somebody listened before.
    pub async fn instead_of(proxy: FaultProxy) -> Self {
        let FaultProxy { address, mut serving, .. } = proxy;
        serving.shutdown().await;
        Self::at(address).await
    }

    async fn at(address: SocketAddr) -> Self {
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.set_reuse_address(true).unwrap();
        listener.bind(&address.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        // Nobody accepts: once the queue is full, whoever comes waits.
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(address)).await {
            waiting.push(stream);
            assert!(waiting.len() < 100, "the queue never fills");
        }
        Self { address, _listener: listener, _waiting: waiting }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
