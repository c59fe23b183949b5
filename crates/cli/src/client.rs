//! Calls to the server, and what to say when one fails: what happened, why, and what to do.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde_json::Value;

use crate::config::Access;

/// The longest that a call may take, following logs apart.
const DEADLINE: Duration = Duration::from_secs(30);
/// The same where the server asks a provider before it answers.
const SLOW: Duration = Duration::from_secs(60);

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It is done.
    Done = 0,
    /// What was asked about is wrong or not there.
    Wrong = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// The server refuses the token.
    Refused = 3,
    /// The server cannot be reached or is at fault.
    Unavailable = 4,
}

/// Why a command did not work.
#[derive(Debug)]
pub enum ClientError {
    /// Address or token are missing or malformed.
    Setup(String),
    /// What was asked for is not there, or cannot be done.
    NotThere(String),
    /// The token is not good enough.
    Refused(String),
    /// No answer, or a fault of the server.
    Unavailable(String),
    /// Our own output is closed.
    Output(std::io::Error),
}

impl ClientError {
    /// How the process ends after it.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Setup(_) => Exit::Usage,
            Self::NotThere(_) => Exit::Wrong,
            Self::Refused(_) => Exit::Refused,
            Self::Unavailable(_) => Exit::Unavailable,
            Self::Output(_) => Exit::Done,
        }
    }
}

impl std::fmt::Display for ClientError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Setup(text) | Self::NotThere(text) | Self::Refused(text) | Self::Unavailable(text) => {
                f.write_str(text)
            }
            Self::Output(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<std::io::Error> for ClientError {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error)
    }
}

/// A server.
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    token: header::HeaderValue,
}

/// One event of a followed log.
pub(crate) enum LogEvent {
    /// More text.
    Text(String),
    /// There is no more.
    End,
}

impl Client {
    pub(crate) fn new(access: &Access) -> Result<Self, ClientError> {
        // An error only says that a provider is installed already, and ring is the only one linked in.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut token = header::HeaderValue::try_from(format!("Bearer {}", access.token.reveal()))
            .map_err(|_| ClientError::Setup("the token has characters that no token has; copy it again".to_owned()))?;
        token.set_sensitive(true);
        let http = reqwest::Client::builder()
            .user_agent(concat!("stagely/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .build()
            .map_err(|error| ClientError::Setup(format!("set up HTTP: {error}")))?;
        Ok(Self { http, url: access.url.clone(), token })
    }

    /// A document.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.document(self.request(Method::GET, path).timeout(DEADLINE)).await
    }

    /// A command.
    pub(crate) async fn post(&self, path: &str) -> Result<Value, ClientError> {
        self.document(self.request(Method::POST, path).timeout(DEADLINE)).await
    }

    /// Something new.
    pub(crate) async fn post_json(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.document(self.request(Method::POST, path).json(body).timeout(SLOW)).await
    }

    /// A change.
    pub(crate) async fn patch_json(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.document(self.request(Method::PATCH, path).json(body).timeout(SLOW)).await
    }

    /// A removal.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.send(self.request(Method::DELETE, path).timeout(DEADLINE)).await.map(drop)
    }

    /// A removal that the server has only begun.
    pub(crate) async fn begin_delete(&self, path: &str) -> Result<Value, ClientError> {
        self.document(self.request(Method::DELETE, path).timeout(DEADLINE)).await
    }

    /// A text.
    pub(crate) async fn text(&self, path: &str) -> Result<String, ClientError> {
        let response = self.send(self.request(Method::GET, path).timeout(DEADLINE)).await?;
        response.text().await.map_err(|error| self.unreachable(&error))
    }

    /// Follows a log, giving each event to `each`, over as many connections as it takes.
    pub(crate) async fn follow(
        &self,
        path: &str,
        mut each: impl FnMut(LogEvent) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        let mut last: Option<String> = None;
        loop {
            let mut request = self.request(Method::GET, path).header(header::ACCEPT, "text/event-stream");
            if let Some(last) = &last {
                request = request.header("last-event-id", last);
            }
            let mut bytes = self.send(request).await?.bytes_stream().map_err(std::io::Error::other);
            let mut buffer = Vec::new();
            while let Some(Ok(chunk)) = bytes.next().await {
                buffer.extend_from_slice(&chunk);
                while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
                    let block: Vec<u8> = buffer.drain(..end + 2).collect();
                    let (event, id) = event(&String::from_utf8_lossy(&block));
                    last = id.or(last);
                    match event {
                        Some(LogEvent::End) => return each(LogEvent::End),
                        Some(event) => each(event)?,
                        None => {}
                    }
                }
            }
            // The connection broke before the end: go on from the last event.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}/api/v1{path}", self.url))
            .header(header::AUTHORIZATION, self.token.clone())
    }

    async fn document(&self, request: RequestBuilder) -> Result<Value, ClientError> {
        let response = self.send(request).await?;
        response.json().await.map_err(|_| {
            ClientError::Unavailable(format!(
                "{} answered with something that is not JSON: is this Stagely's address?",
                self.url
            ))
        })
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let problem: Value = response.json().await.unwrap_or_default();
        let detail = problem.get("detail").and_then(Value::as_str);
        let detail = detail.map_or_else(|| format!("{} answered {status}", self.url), printable);
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                ClientError::Refused(format!("the server refuses the token: {detail}"))
            }
            status if status.is_server_error() => {
                let id = problem.get("instance").and_then(Value::as_str).map(printable).unwrap_or_default();
                ClientError::Unavailable(format!("the server could not do it: {detail} ({status} {id})"))
            }
            _ => ClientError::NotThere(detail),
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        let why = if error.is_timeout() {
            "no answer in time"
        } else if error.is_connect() {
            "nothing answers there"
        } else if error.is_builder() {
            return ClientError::Setup(format!("`{}` is not an address: write it as https://host[:port]", self.url));
        } else {
            "the connection broke"
        };
        ClientError::Unavailable(format!("cannot reach {}: {why}; check --url and the network", self.url))
    }
}

/// The event and the id in one block of an event stream.
fn event(block: &str) -> (Option<LogEvent>, Option<String>) {
    let field = |name: &str| {
        block.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim_start().to_owned()))
    };
    let event = match field("event").as_deref() {
        Some("end") => Some(LogEvent::End),
        Some("log") => field("data")
            .and_then(|data| serde_json::from_str::<Value>(&data).ok())
            .and_then(|data| Some(LogEvent::Text(data.get("text")?.as_str()?.to_owned()))),
        _ => None,
    };
    (event, field("id"))
}

/// Text from elsewhere without what could drive a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}
