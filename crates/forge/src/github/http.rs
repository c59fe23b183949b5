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

const DEADLINE: Duration = Duration::from_secs(20);
const MAX_ANSWER: usize = 8 * 1024 * 1024;

pub(super) struct Http {
    client: Client,
    base: String,
    signer: Signer,
    clock: Arc<dyn Clock>,
}

impl Http {
    pub(super) fn new(base: &str, auth: Auth, clock: Arc<dyn Clock>) -> Result<Self> {
        let client = Client::builder()
            .user_agent("stagely")
            .timeout(DEADLINE)
            .connect_timeout(Duration::from_secs(5))
            // A token must not follow a redirect to another host.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| ForgeError::new(ErrorKind::Invalid, "set up the client", error.to_string()))?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), signer: Signer::new(auth)?, clock })
    }

    /// A read; `None` for 404.
    pub(super) async fn get(&self, doing: &'static str, repo: &Repo, path: &str) -> Result<Option<Value>> {
        self.call(doing, repo, Method::GET, path, None).await
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
        self.call(doing, repo, method, path, Some(body)).await
    }

    /// A token that reads one repository.
    pub(super) async fn clone_token(&self, repo: &Repo) -> Result<Token> {
        self.token(repo, Use::Clone).await
    }

    async fn call(
        &self,
        doing: &'static str,
        repo: &Repo,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Option<Value>> {
        let (token, _) = self.token(repo, Use::Api).await?;
        self.request(doing, &token, method, path, body).await
    }

    async fn request(
        &self,
        doing: &'static str,
        token: &Secret,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Option<Value>> {
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.base))
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
        let waits = retry_after(&response, self.clock.now());
        let bytes = bounded(doing, response).await?;
        if status.is_success() {
            if bytes.is_empty() {
                return Ok(Some(Value::Null));
            }
            let value = serde_json::from_slice(&bytes);
            return value.map(Some).map_err(|_| ForgeError::new(ErrorKind::Protocol, doing, "the answer is not JSON"));
        }
        Err(ForgeError::new(kind(status, waits), doing, said(status, &bytes)))
    }

    async fn token(&self, repo: &Repo, purpose: Use) -> Result<Token> {
        let now = self.clock.now();
        if let Some(token) = self.signer.cached(repo, purpose, now).await {
            return Ok(token);
        }
        let doing = "get a token for a repository";
        let app = self.signer.app_token(now)?;
        let path = format!("/repos/{repo}/installation");
        let missing = || ForgeError::new(ErrorKind::Auth, doing, format!("the App is not installed on {repo}"));
        let installation = self.request(doing, &app, Method::GET, &path, None).await?.ok_or_else(missing)?;
        let id = installation["id"].as_u64().ok_or_else(missing)?;
        let name = repo.to_string().split('/').nth(1).unwrap_or_default().to_owned();
        let mut body = json!({"repositories": [name]});
        if purpose == Use::Clone {
            body["permissions"] = json!({"contents": "read"});
        }
        let path = format!("/app/installations/{id}/access_tokens");
        let answer = self.request(doing, &app, Method::POST, &path, Some(&body)).await?.ok_or_else(missing)?;
        let token = answer["token"].as_str().ok_or_else(|| ForgeError::new(ErrorKind::Protocol, doing, "no token"))?;
        let until = answer["expires_at"].as_str().and_then(|text| text.parse::<DateTime<Utc>>().ok());
        let token = (Secret::new(token), until);
        self.signer.remember(repo, purpose, &token).await;
        Ok(token)
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

fn kind(status: StatusCode, waits: Option<Duration>) -> ErrorKind {
    match status.as_u16() {
        403 | 429 if waits.is_some() => {
            ErrorKind::RateLimited { retry_after: waits.unwrap_or(Duration::from_secs(60)) }
        }
        429 => ErrorKind::RateLimited { retry_after: Duration::from_secs(60) },
        401 | 403 => ErrorKind::Auth,
        500..=599 => ErrorKind::Unavailable,
        _ => ErrorKind::Invalid,
    }
}

fn said(status: StatusCode, bytes: &[u8]) -> String {
    let message = serde_json::from_slice::<Value>(bytes).ok();
    let message = message.as_ref().and_then(|value| value["message"].as_str()).unwrap_or("no reason given");
    format!("{status}: {}", message.chars().take(200).collect::<String>())
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
