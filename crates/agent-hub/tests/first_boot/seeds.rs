//! What machines ask this host for: their seeds, as a provider's metadata has them, and the agent's program.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

#[derive(Default)]
struct Inside {
    files: HashMap<String, Bytes>,
    asked: Vec<String>,
}

/// A server of files on loopback.
pub struct Seeds {
    address: SocketAddr,
    inside: Arc<Mutex<Inside>>,
}

impl Seeds {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inside = Arc::new(Mutex::new(Inside::default()));
        let router = Router::new().fallback(file).with_state(inside.clone());
        // It ends with the test's runtime.
        TaskTracker::new().spawn(async move { axum::serve(listener, router).await });
        Self { address, inside }
    }

    pub fn put(&self, path: &str, content: &[u8]) {
        self.inside.lock().unwrap().files.insert(format!("/{path}"), Bytes::copy_from_slice(content));
    }

    /// How often it was asked for.
    pub fn asked(&self, path: &str) -> usize {
        let path = format!("/{path}");
        self.inside.lock().unwrap().asked.iter().filter(|asked| **asked == path).count()
    }

    /// As machines reach it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}:{}/{path}", super::HOST, self.address.port())
    }
}

async fn file(State(inside): State<Arc<Mutex<Inside>>>, uri: Uri) -> Result<Bytes, StatusCode> {
    let mut inside = inside.lock().unwrap();
    inside.asked.push(uri.path().to_owned());
    inside.files.get(uri.path()).cloned().ok_or(StatusCode::NOT_FOUND)
}
