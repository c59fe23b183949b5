//! Just enough of the Engine API, over a Unix socket: containers that a test sets, images by name.

use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt as _};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Either, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio_util::task::TaskTracker;

/// All at once, or piece by piece.
type Answer = Response<Either<Full<Bytes>, StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>>>;

#[derive(Clone, Default)]
pub struct FakeEngine {
    containers: Arc<Mutex<Vec<Value>>>,
    images: Arc<Mutex<Vec<(String, Value)>>>,
    /// What was asked to be pulled: the query, and the login.
    pub pulls: Arc<Mutex<Vec<String>>>,
    /// The image that the next pull gets; without one it fails.
    pub pulled: Arc<Mutex<Option<(String, String)>>>,
    /// Pulls tell of their progress, and go on for ever.
    pub endless: Arc<AtomicBool>,
    /// What was run in containers: the container first, then the arguments.
    pub execs: Arc<Mutex<Vec<Vec<String>>>>,
    /// The exit code of what is run in containers.
    pub exit_code: Arc<AtomicI32>,
}

impl FakeEngine {
    pub fn start(socket: &Path, tasks: &TaskTracker) -> Self {
        let engine = Self::default();
        let listener = UnixListener::bind(socket).unwrap();
        let (server, children) = (engine.clone(), tasks.clone());
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let engine = server.clone();
                children.spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let engine = engine.clone();
                        async move {
                            let (head, body) = request.into_parts();
                            let body = body.collect().await.unwrap().to_bytes();
                            Ok::<_, Infallible>(engine.answer(&head, &body))
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        engine
    }

    /// A container of `service` with host networking, so that its ports are this machine's.
    pub fn set(&self, service: &str, status: &str, exit_code: i32, health: &str) {
        let mut containers = self.containers.lock().unwrap();
        containers.retain(|container| container["Id"] != service);
        containers.push(json!({
            "Id": service, "Name": format!("/shop-{service}-1"), "RestartCount": 0,
            "State": {"Status": status, "ExitCode": exit_code, "Pid": 0, "Health": {"Status": health}},
            "Config": {"Image": "x", "Labels": {"com.docker.compose.service": service}},
            "HostConfig": {"NetworkMode": "host", "RestartPolicy": {"Name": "no"}},
        }));
    }

    pub fn set_image(&self, name: &str, digest: &str) {
        let image = json!({ "RepoDigests": [digest] });
        self.images.lock().unwrap().push((name.to_owned(), image));
    }

    fn answer(&self, request: &Parts, body: &[u8]) -> Answer {
        let path = request.uri.path();
        let containers = self.containers.lock().unwrap();
        let body = match path {
            "/_ping" => Some(json!("OK")),
            "/containers/json" => Some(json!(*containers)),
            "/images/create" => {
                let login = request.headers.get("x-registry-auth").and_then(|value| value.to_str().ok());
                let asked = format!("{} {}", request.uri.query().unwrap_or_default(), login.unwrap_or_default());
                self.pulls.lock().unwrap().push(asked);
                if self.endless.load(Ordering::Relaxed) {
                    let line = Bytes::from_static(b"{\"status\":\"Downloading\"}\n");
                    let lines = futures::stream::repeat(line).then(async |line| {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        Ok(Frame::data(line))
                    });
                    return Response::new(Either::Right(StreamBody::new(lines.boxed())));
                }
                // As the engine does: the status is good, and the end of the answer tells.
                let told = match self.pulled.lock().unwrap().take() {
                    Some((name, digest)) => {
                        self.set_image(&name, &digest);
                        "{\"status\":\"Pull complete\"}\n"
                    }
                    None => "{\"status\":\"Pulling\"}\n{\"error\":\"manifest unknown\"}\n",
                };
                return Response::new(Either::Left(Full::new(Bytes::from_static(told.as_bytes()))));
            }
            _ if path.ends_with("/exec") => {
                let wish: Value = serde_json::from_slice(body).unwrap();
                let container = path.trim_start_matches("/containers/").trim_end_matches("/exec").to_owned();
                let command: Vec<String> = serde_json::from_value(wish["Cmd"].clone()).unwrap();
                self.execs.lock().unwrap().push([vec![container], command].concat());
                Some(json!({"Id": "1"}))
            }
            "/exec/1/start" => {
                let line = b"\x01\0\0\0\0\0\0\x16token is s3cret-value\n";
                return Response::new(Either::Left(Full::new(Bytes::from_static(line))));
            }
            "/exec/1/json" => {
                Some(json!({"Running": false, "ExitCode": self.exit_code.load(Ordering::Relaxed), "Pid": 0}))
            }
            _ if path.ends_with("/logs") => {
                let line = b"\x01\0\0\0\0\0\0\x18token=s3cret-value, bye\n";
                return Response::new(Either::Left(Full::new(Bytes::from_static(line))));
            }
            _ => {
                let images = self.images.lock().unwrap();
                let image = images.iter().find(|(name, _)| path == format!("/images/{name}/json"));
                let container = containers
                    .iter()
                    .find(|container| path == format!("/containers/{}/json", container["Id"].as_str().unwrap()));
                image.map(|(_, image)| image.clone()).or_else(|| container.cloned())
            }
        };
        let (status, body) = match body {
            Some(body) => (StatusCode::OK, body),
            None => (StatusCode::NOT_FOUND, json!({"message": "no such thing"})),
        };
        let mut response = Response::new(Either::Left(Full::new(Bytes::from(body.to_string()))));
        *response.status_mut() = status;
        response
    }
}
