//! GitHub, as a GitHub App or with a token. REST API version 2022-11-28.

mod auth;
mod http;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use reqwest::Method;
use serde_json::{Value, json};
use stagely_domain::clock::Clock;

use crate::types::{Check, CheckStatus, CloneAccess, Deployment, PullRequest, Repo};
use crate::{ErrorKind, Forge, ForgeError, MAX_FILE_BYTES, Result};
pub use auth::Auth;
use http::Http;

/// The list is read to its end, but not for ever.
const MAX_PAGES: u32 = 30;
const PER_PAGE: usize = 100;

/// A client of one GitHub.
pub struct GitHub {
    http: Http,
    git_url: String,
}

impl GitHub {
    /// A client of the GitHub at `api_url` (`https://api.github.com`, or an Enterprise's); `git_url` is what clone
    /// URLs start with (`https://github.com`).
    ///
    /// # Errors
    /// When the address or the App's key is malformed.
    pub fn new(api_url: &str, git_url: &str, auth: Auth, clock: Arc<dyn Clock>) -> Result<Self> {
        Ok(Self { http: Http::new(api_url, auth, clock)?, git_url: git_url.trim_end_matches('/').to_owned() })
    }

    /// Every element of a paged list.
    async fn pages(&self, doing: &'static str, repo: &Repo, path: &str, key: Option<&str>) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        for page in 1..=MAX_PAGES {
            let join = if path.contains('?') { '&' } else { '?' };
            let path = format!("{path}{join}per_page={PER_PAGE}&page={page}");
            let mut answer = self.http.get(doing, repo, &path).await?.unwrap_or(Value::Null);
            let list = match key {
                Some(key) => answer.get_mut(key).map(Value::take).unwrap_or_default(),
                None => answer,
            };
            let Value::Array(items) = list else {
                return Err(ForgeError::new(ErrorKind::Protocol, doing, "expected a list"));
            };
            let last = items.len() < PER_PAGE;
            all.extend(items);
            if last {
                break;
            }
        }
        Ok(all)
    }
}

#[async_trait]
impl Forge for GitHub {
    async fn pull_request(&self, repo: &Repo, number: i64) -> Result<Option<PullRequest>> {
        let doing = "read a pull request";
        let answer = self.http.get(doing, repo, &format!("/repos/{repo}/pulls/{number}")).await?;
        answer.map(|answer| wire::pull_request(doing, answer)).transpose()
    }

    async fn list_open_pull_requests(&self, repo: &Repo) -> Result<Vec<PullRequest>> {
        let doing = "list open pull requests";
        let path = format!("/repos/{repo}/pulls?state=open");
        let items = self.pages(doing, repo, &path, None).await?;
        items.into_iter().map(|item| wire::pull_request(doing, item)).collect()
    }

    async fn file_at(&self, repo: &Repo, sha: &str, path: &str) -> Result<Option<Vec<u8>>> {
        let doing = "read a file";
        let path: Vec<String> = path.split('/').map(encode).collect();
        let path = format!("/repos/{repo}/contents/{}?ref={}", path.join("/"), encode(sha));
        let Some(answer) = self.http.get(doing, repo, &path).await? else { return Ok(None) };
        // A directory answers with a list.
        if answer["type"] != "file" {
            return Ok(None);
        }
        if answer["size"].as_u64().is_none_or(|size| size > MAX_FILE_BYTES as u64) {
            return Err(ForgeError::new(ErrorKind::Invalid, doing, format!("larger than {MAX_FILE_BYTES} bytes")));
        }
        let text: String = answer["content"].as_str().unwrap_or_default().split_whitespace().collect();
        let bytes = base64::engine::general_purpose::STANDARD.decode(text);
        bytes.map(Some).map_err(|_| ForgeError::new(ErrorKind::Protocol, doing, "the content is not base64"))
    }

    async fn changed_paths(&self, repo: &Repo, number: i64) -> Result<Vec<String>> {
        let items =
            self.pages("list changed files", repo, &format!("/repos/{repo}/pulls/{number}/files"), None).await?;
        Ok(items.iter().filter_map(|item| item["filename"].as_str().map(str::to_owned)).collect())
    }

    async fn ensure_comment(
        &self,
        repo: &Repo,
        number: i64,
        marker: &str,
        known: Option<&str>,
        body: &str,
    ) -> Result<String> {
        let doing = "post a comment";
        let body = json!({"body": format!("{marker}\n{body}")});
        let comments = format!("/repos/{repo}/issues/{number}/comments");
        let mut known = known.map(str::to_owned);
        if known.is_none() {
            // A comment may have been posted and its id lost.
            let all = self.pages("look for our comment", repo, &comments, None).await?;
            let ours = all.iter().find(|comment| comment["body"].as_str().is_some_and(|body| body.starts_with(marker)));
            known = ours.and_then(|comment| comment["id"].as_u64()).map(|id| id.to_string());
        }
        if let Some(id) = known {
            let path = format!("/repos/{repo}/issues/comments/{}", numeric(doing, &id)?);
            if self.http.send(doing, repo, Method::PATCH, &path, &body).await?.is_some() {
                return Ok(id);
            }
        }
        let created = self.http.send(doing, repo, Method::POST, &comments, &body).await?;
        wire::id(doing, created)
    }

    async fn ensure_check(&self, repo: &Repo, sha: &str, known: Option<&str>, check: &Check) -> Result<String> {
        let doing = "post a check";
        let mut body = json!({
            "name": check.name,
            "external_id": check.external_id,
            "output": {"title": check.title, "summary": check.summary},
        });
        if let Some(url) = &check.details_url {
            body["details_url"] = json!(url);
        }
        match check.status {
            CheckStatus::Queued => body["status"] = json!("queued"),
            CheckStatus::InProgress => body["status"] = json!("in_progress"),
            CheckStatus::Completed(conclusion) => {
                body["status"] = json!("completed");
                body["conclusion"] = json!(conclusion);
            }
        }
        let mut known = known.map(str::to_owned);
        if known.is_none() {
            let path = format!("/repos/{repo}/commits/{}/check-runs?check_name={}", encode(sha), encode(&check.name));
            let all = self.pages("look for our check", repo, &path, Some("check_runs")).await?;
            let ours = all.iter().find(|run| run["external_id"] == check.external_id.as_str());
            known = ours.and_then(|run| run["id"].as_u64()).map(|id| id.to_string());
        }
        if let Some(id) = known {
            let path = format!("/repos/{repo}/check-runs/{}", numeric(doing, &id)?);
            if self.http.send(doing, repo, Method::PATCH, &path, &body).await?.is_some() {
                return Ok(id);
            }
        }
        body["head_sha"] = json!(sha);
        let created = self.http.send(doing, repo, Method::POST, &format!("/repos/{repo}/check-runs"), &body).await?;
        wire::id(doing, created)
    }

    async fn ensure_deployment(
        &self,
        repo: &Repo,
        sha: &str,
        known: Option<&str>,
        deployment: &Deployment,
    ) -> Result<String> {
        let doing = "post a deployment";
        let mut known = known.map(str::to_owned);
        if known.is_none() {
            let environment = encode(&deployment.environment);
            let path = format!("/repos/{repo}/deployments?sha={}&environment={environment}", encode(sha));
            let all = self.pages("look for our deployment", repo, &path, None).await?;
            known = all.first().and_then(|deployment| deployment["id"].as_u64()).map(|id| id.to_string());
        }
        let id = match known {
            Some(id) => id,
            None => {
                let body = json!({
                    "ref": sha,
                    "environment": deployment.environment,
                    "auto_merge": false,
                    // Ours is one of the checks that it would wait for.
                    "required_contexts": [],
                    "transient_environment": true,
                    "production_environment": false,
                });
                let path = format!("/repos/{repo}/deployments");
                wire::id(doing, self.http.send(doing, repo, Method::POST, &path, &body).await?)?
            }
        };
        let mut status = json!({"state": deployment.state.as_str(), "auto_inactive": false});
        if let Some(url) = &deployment.url {
            status["environment_url"] = json!(url);
        }
        if let Some(url) = &deployment.log_url {
            status["log_url"] = json!(url);
        }
        let path = format!("/repos/{repo}/deployments/{}/statuses", numeric(doing, &id)?);
        self.http.send(doing, repo, Method::POST, &path, &status).await?;
        Ok(id)
    }

    async fn clone_access(&self, repo: &Repo) -> Result<CloneAccess> {
        let (token, expires_at) = self.http.clone_token(repo).await?;
        let url = format!("{}/{repo}.git", self.git_url);
        Ok(CloneAccess { url, username: "x-access-token".to_owned(), token, expires_at })
    }
}

/// An id of GitHub's that becomes part of a path.
fn numeric<'i>(doing: &'static str, id: &'i str) -> Result<&'i str> {
    let good = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    if good { Ok(id) } else { Err(ForgeError::new(ErrorKind::Invalid, doing, "the stored id is not a number")) }
}

/// Percent-encoding of everything that is not unreserved (RFC 3986, section 2.3).
fn encode(text: impl AsRef<str>) -> String {
    let mut out = String::new();
    for byte in text.as_ref().bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
