//! GitHub, as a GitHub App or with a token. REST API version 2022-11-28.

mod auth;
mod http;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use chrono::{DateTime, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use stagely_domain::clock::Clock;

use crate::types::{Check, CheckStatus, CloneAccess, Deployment, Entry, EntryKind, FailedDelivery, PullRequest, Repo};
use crate::{ErrorKind, Forge, ForgeError, MAX_FILE_BYTES, Result};
pub use auth::Auth;
use auth::Use;
use http::{As, Http};

/// The list is read to its end, but not for ever.
const MAX_PAGES: u32 = 30;
/// The most files of a pull request that GitHub lists (REST API, "List pull requests files").
const MOST_FILES: usize = 3000;
const PER_PAGE: &str = "per_page=100";

/// For all pages of a list.
const LIST_DEADLINE: Duration = Duration::from_secs(120);

/// What GitHub takes as a comment or a summary is 65,535 characters; the marker needs some of them.
const MAX_TEXT: usize = 65_000;

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

    /// The same with another deadline for each request with its answer; 20 s otherwise.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.http.deadline = deadline;
        self
    }

    /// Fails when the repository cannot be seen: GitHub's 404 is also its word for what a credential does not reach
    /// any more, and says nothing about what is in it.
    async fn check_visible(&self, doing: &'static str, repo: &Repo) -> Result<()> {
        if self.http.get(doing, repo, &format!("/repos/{repo}")).await?.is_some() {
            return Ok(());
        }
        let message = format!("{repo} cannot be seen with these credentials: check that they still reach it");
        Err(ForgeError::new(ErrorKind::Auth, doing, message))
    }

    /// Every element of a paged list.
    async fn pages(&self, doing: &'static str, repo: &Repo, path: &str, key: Option<&str>) -> Result<Vec<Value>> {
        self.pages_while(doing, As::Repo(repo), path, key, |_| true).await
    }

    /// The elements of a paged list, until a page on which `more` holds for none.
    async fn pages_while(
        &self,
        doing: &'static str,
        who: As<'_>,
        path: &str,
        key: Option<&str>,
        more: impl Fn(&Value) -> bool + Send + Sync,
    ) -> Result<Vec<Value>> {
        let (bare, query) = path.split_once('?').unwrap_or((path, ""));
        let mut query = if query.is_empty() { PER_PAGE.to_owned() } else { format!("{query}&{PER_PAGE}") };
        let read = async {
            let mut all = Vec::new();
            for _ in 0..MAX_PAGES {
                let path = format!("{bare}?{query}");
                let Some(mut answer) = self.http.call(doing, who, Method::GET, &path, None).await? else {
                    return Err(ForgeError::new(ErrorKind::NotFound, doing, "there is no such list"));
                };
                let list = match key {
                    Some(key) => answer.value.get_mut(key).map(Value::take).unwrap_or_default(),
                    None => answer.value,
                };
                let Value::Array(items) = list else {
                    return Err(ForgeError::new(ErrorKind::Protocol, doing, "expected a list"));
                };
                let goes_on = items.iter().any(&more);
                all.extend(items);
                match answer.next {
                    Some(next) if goes_on => query = next,
                    _ => break,
                }
            }
            Ok(all)
        };
        let late = |_| ForgeError::new(ErrorKind::Unavailable, doing, "the list was not read in time");
        tokio::time::timeout(LIST_DEADLINE, read).await.map_err(late)?
    }
}

#[async_trait]
impl Forge for GitHub {
    async fn pull_request(&self, repo: &Repo, number: i64) -> Result<Option<PullRequest>> {
        let doing = "read a pull request";
        let Some(answer) = self.http.get(doing, repo, &format!("/repos/{repo}/pulls/{number}")).await? else {
            self.check_visible(doing, repo).await?;
            return Ok(None);
        };
        wire::pull_request(doing, answer).map(Some)
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
            let message = format!("larger than {} KiB, which is the most that is read", MAX_FILE_BYTES / 1024);
            return Err(ForgeError::new(ErrorKind::Invalid, doing, message));
        }
        let text: String = answer["content"].as_str().unwrap_or_default().split_whitespace().collect();
        let bytes = base64::engine::general_purpose::STANDARD.decode(text);
        bytes.map(Some).map_err(|_| ForgeError::new(ErrorKind::Protocol, doing, "the content is not base64"))
    }

    async fn entries_at(&self, repo: &Repo, sha: &str, paths: &[String]) -> Result<Vec<Option<Entry>>> {
        let doing = "read a commit's directories";
        let path = format!("/repos/{repo}/git/commits/{}", encode(sha));
        let commit = self.http.get(doing, repo, &path).await?.unwrap_or_default();
        let root = commit["tree"]["sha"].as_str().map(|id| Entry { kind: EntryKind::Directory, id: id.to_owned() });
        // Directories that were read already, by id.
        let mut known: HashMap<String, HashMap<String, Entry>> = HashMap::new();
        let mut entries = Vec::with_capacity(paths.len());
        for path in paths {
            let mut entry = root.clone();
            for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
                let Some(parent) = entry.take().filter(|entry| entry.kind == EntryKind::Directory) else { break };
                if !known.contains_key(&parent.id) {
                    let path = format!("/repos/{repo}/git/trees/{}", parent.id);
                    let tree = self.http.get(doing, repo, &path).await?.unwrap_or_default();
                    known.insert(parent.id.clone(), wire::entries(&tree));
                }
                entry = known.get(&parent.id).and_then(|entries| entries.get(part)).cloned();
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    async fn changed_paths(&self, repo: &Repo, number: i64) -> Result<Vec<String>> {
        let doing = "list changed files";
        let items = self.pages(doing, repo, &format!("/repos/{repo}/pulls/{number}/files"), None).await?;
        if items.len() >= MOST_FILES {
            let message = format!("the pull request changes {MOST_FILES} files or more: not all are told");
            return Err(ForgeError { kind: ErrorKind::Invalid, doing, message });
        }
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
        let body = json!({"body": format!("{marker}\n{}", shortened(body))});
        let comments = format!("/repos/{repo}/issues/{number}/comments");
        let mut known = known.map(str::to_owned);
        if known.is_none() {
            // A comment may have been posted and its id lost.
            let all = self.pages("look for our comment", repo, &comments, None).await?;
            let ours = all.iter().find(|comment| wire::is_ours(comment, marker, self.http.app_id()));
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
            "output": {"title": check.title, "summary": shortened(&check.summary)},
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
        let mut status = json!({"state": deployment.state.as_str(), "auto_inactive": false});
        if let Some(url) = &deployment.url {
            status["environment_url"] = json!(url);
        }
        if let Some(url) = &deployment.log_url {
            status["log_url"] = json!(url);
        }
        if let Some(id) = known {
            let path = format!("/repos/{repo}/deployments/{}/statuses", numeric(doing, &id)?);
            if self.http.send(doing, repo, Method::POST, &path, &status).await?.is_some() {
                return Ok(id);
            }
        }
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
        let id = wire::id(doing, self.http.send(doing, repo, Method::POST, &path, &body).await?)?;
        let path = format!("{path}/{id}/statuses");
        wire::id(doing, self.http.send(doing, repo, Method::POST, &path, &status).await?)?;
        Ok(id)
    }

    async fn clone_access(&self, repo: &Repo) -> Result<CloneAccess> {
        let (token, expires_at) = self.http.token(repo, Use::Clone).await?;
        let url = format!("{}/{repo}.git", self.git_url);
        Ok(CloneAccess { url, username: "x-access-token".to_owned(), token, expires_at })
    }

    async fn list_failed_deliveries(&self, since: DateTime<Utc>) -> Result<Vec<FailedDelivery>> {
        let doing = "list webhook deliveries";
        // Newest first; those that were taken are read too, since one of them may be a second attempt.
        let recent = |item: &Value| {
            let at = item["delivered_at"].as_str().and_then(|text| text.parse::<DateTime<Utc>>().ok());
            at.is_none_or(|at| at >= since)
        };
        let items = self.pages_while(doing, As::App, "/app/hook/deliveries", None, recent).await?;
        let attempts: Result<Vec<_>> = items.into_iter().map(|item| wire::attempt(doing, item)).collect();
        let mut attempts = attempts?;
        attempts.retain(|attempt| attempt.delivered_at >= since);
        Ok(wire::failed(&attempts))
    }

    async fn redeliver(&self, id: u64) -> Result<()> {
        let doing = "have a webhook delivered again";
        let path = format!("/app/hook/deliveries/{id}/attempts");
        let answer = self.http.call(doing, As::App, Method::POST, &path, None).await?;
        answer.map(|_| ()).ok_or_else(|| ForgeError::new(ErrorKind::NotFound, doing, "GitHub has forgotten it"))
    }
}

/// An id of GitHub's that becomes part of a path.
fn numeric<'i>(doing: &'static str, id: &'i str) -> Result<&'i str> {
    let good = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    if good { Ok(id) } else { Err(ForgeError::new(ErrorKind::Invalid, doing, "the stored id is not a number")) }
}

/// Text that GitHub does not refuse for its length.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
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
