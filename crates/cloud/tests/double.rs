//! What the doubles of our own have in common: a world in memory that answers on loopback, and what it costs.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use chrono::SecondsFormat;
use serde_json::Value;
use stagely_domain::clock::{Clock, SystemClock};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What a double serves.
pub trait World: Default + Send + 'static {
    fn answer(&mut self, asked: &Asked<'_>) -> Answer;
}

/// A request.
pub struct Asked<'r> {
    /// Empty where there is none.
    pub token: &'r str,
    pub method: &'r Method,
    pub uri: &'r Uri,
    pub body: &'r [u8],
}

/// What comes back.
pub struct Answer {
    pub status: u16,
    /// Not sent with a 204.
    pub body: Value,
    pub limits: Limits,
}

/// What each answer says of the requests of an hour.
pub struct Limits {
    pub most: u32,
    pub left: u32,
    /// Seconds of the Unix time.
    pub reset_at: i64,
}

/// A world that answers; it ends when dropped.
pub struct Double<W> {
    address: SocketAddr,
    world: Arc<Mutex<W>>,
    _serving: JoinSet<()>,
}

impl<W: World> Double<W> {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let world = Arc::new(Mutex::new(W::default()));
        let app = Router::new().fallback(handle::<W>).with_state(Arc::clone(&world));
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, world, _serving: serving }
    }

    /// `http://127.0.0.1:port`, before the version.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Looks into it, or steers it.
    pub fn world(&self) -> MutexGuard<'_, W> {
        lock(&self.world)
    }
}

fn lock<W>(world: &Mutex<W>) -> MutexGuard<'_, W> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn handle<W: World>(
    State(world): State<Arc<Mutex<W>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let token = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let token = token.strip_prefix("Bearer ").unwrap_or_default();
    let asked = Asked { token, method: &method, uri: &uri, body: &body };
    let Answer { status, body, limits } = lock(&world).answer(&asked);
    let status = StatusCode::from_u16(status).unwrap();
    let limits = [
        ("ratelimit-limit", limits.most.to_string()),
        ("ratelimit-remaining", limits.left.to_string()),
        ("ratelimit-reset", limits.reset_at.to_string()),
    ];
    match status {
        StatusCode::NO_CONTENT => (status, limits).into_response(),
        _ => (status, limits, axum::Json(body)).into_response(),
    }
}

/// All that costs money.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bill {
    pub machines: usize,
    pub snapshots: usize,
    pub addresses: usize,
    pub volumes: usize,
}

pub const NOTHING: Bill = Bill { machines: 0, snapshots: 0, addresses: 0, volumes: 0 };
pub const ONE_ASLEEP: Bill = Bill { snapshots: 1, ..NOTHING };

pub fn now() -> String {
    SystemClock.now().to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Seconds of the Unix time.
pub fn now_secs() -> i64 {
    SystemClock.now().timestamp()
}
