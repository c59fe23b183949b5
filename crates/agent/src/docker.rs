//! The Docker Engine API over its Unix socket: what the agent needs to see, pulls, and commands in containers. Other
//! changes are made through `docker compose`, so that the user's file means what it means anywhere else.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use stagely_domain::secret::Secret;
use tokio::net::UnixStream;
use tokio_util::task::TaskTracker;

mod container;
mod exec;
mod logs;

pub use container::{Container, Health, Image, State};
pub use exec::Exec;
pub use logs::follow;

const DEADLINE: Duration = Duration::from_secs(30);
const LONGEST_LINE: usize = 64 * 1024;
const LARGEST_ANSWER: usize = 16 * 1024 * 1024;

/// Why the engine did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens on the socket.
    #[error("connect to Docker at {socket}")]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("talk to Docker")]
    Http(#[from] hyper::Error),
    /// The engine said no.
    #[error("Docker answered {status} to {path}: {message}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// What was asked.
        path: String,
        /// The engine's words.
        message: String,
    },
    /// The answer is not what the API promises.
    #[error("understand Docker's answer to {path}: {message}")]
    Answer {
        /// What was asked.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// No answer in time.
    #[error("Docker did not answer {path} within {} s", DEADLINE.as_secs())]
    TimedOut {
        /// What was asked.
        path: String,
    },
}

/// The engine. Each request has a connection of its own: they are local and few.
#[derive(Clone)]
pub struct Engine {
    socket: PathBuf,
    tasks: TaskTracker,
}

impl Engine {
    /// The engine at `socket`. Nothing is sent yet.
    #[must_use]
    pub fn new(socket: &Path, tasks: TaskTracker) -> Self {
        Self { socket: socket.to_owned(), tasks }
    }

    /// Whether the engine answers.
    ///
    /// # Errors
    /// If it does not.
    pub async fn ping(&self) -> Result<(), Error> {
        self.bytes(Method::GET, "/_ping").await.map(drop)
    }

    /// Waits until the engine answers, for at most `deadline`.
    ///
    /// # Errors
    /// The last one, if it never does.
    pub async fn wait_ready(&self, deadline: Duration) -> Result<(), Error> {
        let give_up = tokio::time::Instant::now() + deadline;
        loop {
            match self.ping().await {
                Ok(()) => return Ok(()),
                Err(error) if tokio::time::Instant::now() >= give_up => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(250)).await,
            }
        }
    }

    /// The containers of a compose project, all states, one-off ones left out.
    ///
    /// # Errors
    /// The engine's. A container that goes away meanwhile is left out.
    pub async fn list_containers(&self, project: &str) -> Result<Vec<Container>, Error> {
        let filter = serde_json::json!({
            "label": [format!("com.docker.compose.project={project}"), "com.docker.compose.oneoff=False"]
        });
        self.containers(&format!("/containers/json?all=1&filters={}", encoded(&filter.to_string()))).await
    }

    /// Every container that exists, all states.
    ///
    /// # Errors
    /// The engine's.
    pub async fn list_all_containers(&self) -> Result<Vec<Container>, Error> {
        self.containers("/containers/json?all=1").await
    }

    async fn containers(&self, path: &str) -> Result<Vec<Container>, Error> {
        #[derive(serde::Deserialize)]
        struct Listed {
            #[serde(rename = "Id")]
            id: String,
        }
        let listed: Vec<Listed> = self.json(path).await?;
        let mut containers = Vec::with_capacity(listed.len());
        for Listed { id } in listed {
            match self.json(&format!("/containers/{id}/json")).await {
                Ok(container) => containers.push(container),
                Err(Error::Refused { status: StatusCode::NOT_FOUND, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        containers.sort_by(|a: &Container, b: &Container| a.name.cmp(&b.name));
        Ok(containers)
    }

    /// An image by reference, if it is on this machine.
    ///
    /// # Errors
    /// The engine's.
    pub async fn find_image(&self, reference: &str) -> Result<Option<Image>, Error> {
        match self.json(&format!("/images/{reference}/json")).await {
            Ok(image) => Ok(Some(image)),
            Err(Error::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Pulls `repository@digest` with `login`, the value of `X-Registry-Auth`.
    ///
    /// # Errors
    /// The engine's; it tells some only in the midst of its answer.
    pub async fn pull(&self, repository: &str, digest: &str, login: &Secret, deadline: Duration) -> Result<(), Error> {
        let path = format!("/images/create?fromImage={}&tag={}", encoded(repository), encoded(digest));
        let ask = async {
            let mut body = self.send(Method::POST, &path, None, Some(login)).await?;
            let mut told = ErrorLine::default();
            while let Some(frame) = body.frame().await {
                if let Some(piece) = frame?.data_ref() {
                    told.push(piece);
                }
            }
            match told.finish() {
                Some(message) => Err(Error::Answer { path: path.clone(), message }),
                None => Ok(()),
            }
        };
        tokio::time::timeout(deadline, ask).await.unwrap_or_else(|_| Err(Error::TimedOut { path: path.clone() }))
    }

    /// Stops a container with a grace period and removes it; one that is gone is no error.
    ///
    /// # Errors
    /// The engine's.
    pub async fn drop_container(&self, id: &str, grace: Duration) -> Result<(), Error> {
        let stop = format!("/containers/{id}/stop?t={}", grace.as_secs());
        let remove = format!("/containers/{id}?force=1");
        for (method, path) in [(Method::POST, stop), (Method::DELETE, remove)] {
            match self.bytes(method, &path).await {
                Ok(_) => {}
                Err(Error::Refused { status: StatusCode::NOT_FOUND | StatusCode::NOT_MODIFIED, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The last `lines` of what a container printed.
    ///
    /// # Errors
    /// The engine's.
    pub async fn log_tail(&self, id: &str, lines: usize) -> Result<String, Error> {
        let path = format!("/containers/{id}/logs?stdout=1&stderr=1&tail={lines}");
        Ok(logs::text_of(&self.bytes(Method::GET, &path).await?))
    }

    async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        understood(path, &self.bytes(Method::GET, path).await?)
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, wish: &serde_json::Value) -> Result<T, Error> {
        understood(path, &self.whole(Method::POST, path, Some(wish)).await?)
    }

    async fn bytes(&self, method: Method, path: &str) -> Result<Bytes, Error> {
        self.whole(method, path, None).await
    }

    async fn whole(&self, method: Method, path: &str, wish: Option<&serde_json::Value>) -> Result<Bytes, Error> {
        let ask = async {
            let body = self.send(method, path, wish, None).await?;
            Limited::new(body, LARGEST_ANSWER)
                .collect()
                .await
                .map(http_body_util::Collected::to_bytes)
                .map_err(|error| Error::Answer { path: path.to_owned(), message: error.to_string() })
        };
        tokio::time::timeout(DEADLINE, ask).await.unwrap_or_else(|_| Err(Error::TimedOut { path: path.to_owned() }))
    }

    /// Sends a request; the answer's body is read by the caller. 304 is an error like 404: nothing was done.
    async fn open(&self, method: Method, path: &str) -> Result<Incoming, Error> {
        self.send(method, path, None, None).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        wish: Option<&serde_json::Value>,
        login: Option<&Secret>,
    ) -> Result<Incoming, Error> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| Error::Connect { socket: self.socket.clone(), source })?;
        let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await?;
        self.tasks.spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(http::header::HOST, "docker");
        if let Some(login) = login {
            request = request.header("x-registry-auth", login.reveal());
        }
        if wish.is_some() {
            request = request.header(http::header::CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::<Bytes>::from(wish.map(ToString::to_string).unwrap_or_default()))
            .map_err(|error| Error::Answer { path: path.to_owned(), message: error.to_string() })?;
        let answer = client.send_request(request).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.into_body());
        }
        let bytes = Limited::new(answer.into_body(), 64 * 1024)
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        let message = serde_json::from_slice::<serde_json::Value>(&bytes)
            .ok()
            .and_then(|json| json["message"].as_str().map(str::to_owned))
            .unwrap_or_default();
        Err(Error::Refused { status, path: path.split('?').next().unwrap_or_default().to_owned(), message })
    }
}

fn understood<T: DeserializeOwned>(path: &str, answer: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(answer).map_err(|error| Error::Answer { path: path.to_owned(), message: error.to_string() })
}

/// Looks through a pull's progress, JSON line by line, for the error that it may end with.
#[derive(Default)]
struct ErrorLine {
    open: Vec<u8>,
    found: Option<String>,
}

impl ErrorLine {
    fn push(&mut self, piece: &[u8]) {
        for byte in piece {
            if *byte == b'\n' {
                self.close();
            } else if self.open.len() < LONGEST_LINE {
                self.open.push(*byte);
            }
        }
    }

    fn finish(mut self) -> Option<String> {
        self.close();
        self.found
    }

    fn close(&mut self) {
        let line: serde_json::Value = serde_json::from_slice(&self.open).unwrap_or_default();
        self.open.clear();
        if let Some(error) = line["error"].as_str() {
            self.found.get_or_insert_with(|| error.to_owned());
        }
    }
}

/// Percent-encoding for a query value.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
