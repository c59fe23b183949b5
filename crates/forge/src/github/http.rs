//! Requests to GitHub: credentials, deadlines, rate limits, bounded answers.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use stagely_domain::clock::Clock;
use stagely_domain::secret::Secret;

use crate::github::auth::{Auth, Signer, Token, Use};
use crate::types::Repo;
use crate::{ErrorKind, ForgeError, Result};

/// For one request with its answer.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);
const MAX_ANSWER: usize = 8 * 1024 * 1024;

/// What GitHub asks for after a refusal for haste that does not say how long to wait.
const PAUSE: Duration = Duration::from_secs(60);

pub(super) struct Http {
    client: Client,
    base: String,
    signer: Signer,
    clock: Arc<dyn Clock>,
    pub(super) deadline: Duration,
}

/// As whom to ask.
#[derive(Clone, Copy)]
pub(super) enum As<'r> {
    /// With a credential for this repository.
    Repo(&'r Repo),
    /// As the App itself.
    App,
}

/// An answer with success.
pub(super) struct Answer {
    /// The body; null for none.
    pub(super) value: Value,
    /// The query of the next page, where there is one.
    pub(super) next: Option<String>,
}

/// A refusal, with its status where there was an answer.
struct Refusal {
    status: Option<StatusCode>,
    error: ForgeError,
}

impl From<ForgeError> for Refusal {
    fn from(error: ForgeError) -> Self {
        Self { status: None, error }
    }
}

impl Http {
    pub(super) fn new(base: &str, auth: Auth, clock: Arc<dyn Clock>) -> Result<Self> {
        let client = Client::builder()
            .user_agent("stagely")
            .connect_timeout(Duration::from_secs(5))
            // A token must not follow a redirect to another host.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| ForgeError::new(ErrorKind::Invalid, "set up the client", error.to_string()))?;
        let base = base.trim_end_matches('/').to_owned();
        Ok(Self { client, base, signer: Signer::new(auth)?, clock, deadline: DEADLINE })
    }

    /// The id that the App goes by, if we are one.
    pub(super) fn app_id(&self) -> Option<&str> {
        self.signer.app_id()
    }

    /// A read; `None` for 404.
    pub(super) async fn get(&self, doing: &'static str, repo: &Repo, path: &str) -> Result<Option<Value>> {
        let answer = self.call(doing, As::Repo(repo), Method::GET, path, None).await?;
        Ok(answer.map(|answer| answer.value))
    }

    /// A write; `None` for 404.
    pub(super) async fn send(
        &self,
        doing: &'static str,
        repo: &Repo,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<Option<Value>> {
        let answer = self.call(doing, As::Repo(repo), method, path, Some(body)).await?;
        Ok(answer.map(|answer| answer.value))
    }

    /// Any request; `None` for 404.
    pub(super) async fn call(
        &self,
        doing: &'static str,
        who: As<'_>,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Option<Answer>> {
        let repo = match who {
            As::Repo(repo) => repo,
            As::App => {
                let app = self.signer.app_token(self.clock.now())?;
                return self.request(doing, &app, method, path, body).await.map_err(|refusal| refusal.error);
            }
        };
        let (token, until) = self.token(repo, Use::Api).await?;
        match self.request(doing, &token, method.clone(), path, body).await {
            // A cached token can have been revoked, by a changed permission for one. Nothing was done: once more.
            Err(Refusal { status: Some(StatusCode::UNAUTHORIZED), .. }) if until.is_some() => {
                self.signer.forget(repo, Use::Api).await;
                let (token, _) = self.token(repo, Use::Api).await?;
                self.request(doing, &token, method, path, body).await.map_err(|refusal| refusal.error)
            }
            outcome => outcome.map_err(|refusal| refusal.error),
        }
    }

    async fn request(
        &self,
        doing: &'static str,
        token: &Secret,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> std::result::Result<Option<Answer>, Refusal> {
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.base))
            .timeout(self.deadline)
            .bearer_auth(token.reveal())
            .header("accept", "application/vnd.github+json")
            .header("x-github-api-version", "2022-11-28");
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| ForgeError::transport(doing, &error))?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let (waits, next) = (retry_after(&response, self.clock.now()), next_page(&response));
        let bytes = bounded(doing, response).await?;
        if !status.is_success() {
            let message = said(&bytes);
            let kind = kind(status, waits, &message);
            let error = ForgeError::new(kind, doing, format!("{status}: {message}"));
            return Err(Refusal { status: Some(status), error });
        }
        if bytes.is_empty() {
            return Ok(Some(Answer { value: Value::Null, next }));
        }
        let value = serde_json::from_slice(&bytes);
        let value = value.map_err(|_| ForgeError::new(ErrorKind::Protocol, doing, "the answer is not JSON"))?;
        Ok(Some(Answer { value, next }))
    }

    /// A token for one repository, from the cache or from GitHub.
    pub(super) async fn token(&self, repo: &Repo, purpose: Use) -> Result<Token> {
        let now = self.clock.now();
        if let Some(token) = self.signer.cached(repo, purpose, now).await {
            return Ok(token);
        }
        let doing = "get a token for a repository";
        let missing = || ForgeError::new(ErrorKind::Auth, doing, format!("the App is not installed on {repo}"));
        let path = format!("/repos/{repo}/installation");
        let installation = self.call_as_app(doing, Method::GET, &path, None).await?.ok_or_else(missing)?;
        let id = installation["id"].as_u64().ok_or_else(missing)?;
        let mut body = json!({"repositories": [repo.name()]});
        if purpose == Use::Clone {
            body["permissions"] = json!({"contents": "read"});
        }
        let path = format!("/app/installations/{id}/access_tokens");
        let answer = self.call_as_app(doing, Method::POST, &path, Some(&body)).await?.ok_or_else(missing)?;
        let malformed = |what| ForgeError::new(ErrorKind::Protocol, doing, what);
        let token = answer["token"].as_str().ok_or_else(|| malformed("no token in the answer"))?;
        let until = answer["expires_at"].as_str().and_then(|text| text.parse::<DateTime<Utc>>().ok());
        let token = (Secret::new(token), Some(until.ok_or_else(|| malformed("the token's end is not in the answer"))?));
        self.signer.remember(repo, purpose, &token, now).await;
        Ok(token)
    }

    async fn call_as_app(
        &self,
        doing: &'static str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Option<Value>> {
        // Boxed, since `call` gets its tokens here.
        let answer = Box::pin(self.call(doing, As::App, method, path, body)).await?;
        Ok(answer.map(|answer| answer.value))
    }
}

/// How long to wait, if the answer is about a rate limit (primary: remaining 0 and reset; secondary: retry-after).
fn retry_after(response: &Response, now: DateTime<Utc>) -> Option<Duration> {
    let number = |name: &str| response.headers().get(name)?.to_str().ok()?.parse::<i64>().ok();
    let secs = match number("retry-after") {
        Some(secs) => secs,
        None if number("x-ratelimit-remaining") == Some(0) => number("x-ratelimit-reset")? - now.timestamp(),
        None => return None,
    };
    Some(Duration::from_secs(u64::try_from(secs.clamp(1, 3600)).unwrap_or(60)))
}

/// The query of `<https://…?page=2>; rel="next"`. Only the query: the address before it may be a proxy's.
fn next_page(response: &Response) -> Option<String> {
    let links = response.headers().get("link")?.to_str().ok()?;
    let next = links.split(',').find(|link| link.contains("rel=\"next\""))?;
    let url = next.split_once('<')?.1.split_once('>')?.0;
    Some(url.split_once('?')?.1.to_owned())
}

fn kind(status: StatusCode, waits: Option<Duration>, message: &str) -> ErrorKind {
    // Only the text tells a secondary limit from a missing right when there is no `retry-after`.
    let hasty = message.to_ascii_lowercase().contains("rate limit");
    match (status.as_u16(), waits) {
        (403 | 429, Some(retry_after)) => ErrorKind::RateLimited { retry_after },
        (429, None) => ErrorKind::RateLimited { retry_after: PAUSE },
        (403, None) if hasty => ErrorKind::RateLimited { retry_after: PAUSE },
        (401 | 403, _) => ErrorKind::Auth,
        (408 | 500..=599, _) => ErrorKind::Unavailable,
        // A redirect (a renamed repository) is not followed; the message says where from.
        _ => ErrorKind::Invalid,
    }
}

fn said(bytes: &[u8]) -> String {
    let message = serde_json::from_slice::<Value>(bytes).ok();
    let message = message.as_ref().and_then(|value| value["message"].as_str()).unwrap_or("no reason given");
    message.chars().take(200).collect()
}

async fn bounded(doing: &'static str, mut response: Response) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| ForgeError::transport(doing, &error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_ANSWER {
            return Err(ForgeError::new(ErrorKind::Protocol, doing, "the answer is too large"));
        }
    }
    Ok(bytes)
}
