//! A git host on loopback for the demo and the tests: GitHub's REST API as far as we use it, real git over HTTP,
//! signed webhooks. Every request is checked against GitHub's published OpenAPI document (`github-openapi.json`,
//! cut out by `trim-openapi.py`); one that does not fit is refused and remembered.

mod git;
mod rest;
mod state;
mod validate;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use ring::hmac;
use serde_json::{Value, json};
use stagely_domain::secret::Secret;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use state::{Comment, Delivery, Status};
use state::{Pull, State};
use validate::Document;

/// The token that clients must show, as a bearer and as git's password.
pub const TOKEN: &str = "ghs_local_token_for_tests_only";

/// The host. Cheap to clone.
#[derive(Clone)]
pub struct GitHost(Arc<Inside>);

struct Inside {
    address: SocketAddr,
    directory: tempfile::TempDir,
    document: Document,
    state: Mutex<State>,
    webhook: Option<(String, Secret)>,
    client: reqwest::Client,
}

impl GitHost {
    /// Binds a loopback port and serves until `shutdown`. Webhooks go to `webhook`'s address, signed with its secret.
    ///
    /// # Panics
    /// When the port, the directory or the document is not to be had.
    pub async fn start(port: u16, webhook: Option<(String, Secret)>, shutdown: CancellationToken) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("bind a loopback port");
        let inside = Inside {
            address: listener.local_addr().expect("a bound address"),
            directory: tempfile::tempdir().expect("a temporary directory"),
            document: Document::load(),
            state: Mutex::default(),
            webhook,
            client: reqwest::Client::new(),
        };
        let host = Self(Arc::new(inside));
        let served = host.clone();
        let router = Router::new().fallback(move |request: Request| {
            let host = served.clone();
            async move { host.answer(request).await }
        });
        // The task ends with `shutdown`; tests and the demo outlive nothing of it.
        let tracker = tokio_util::task::TaskTracker::new();
        tracker.spawn(async move {
            let server = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned());
            server.await.expect("serve the git host");
        });
        host
    }

    /// What `GITHUB_API_URL` is to be.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// What clone URLs start with, for clients that reach loopback under another name.
    #[must_use]
    pub fn git_url(&self, host: &str) -> String {
        format!("http://{host}:{}", self.0.address.port())
    }

    /// A repository with one commit on `main`.
    pub async fn create_repo(&self, repo: &str, files: &[(&str, &[u8])]) -> String {
        git::init(self.0.directory.path(), repo).await;
        let id = self.state().next_id();
        self.state().repos.insert(repo.to_owned(), state::Repo { id, ..state::Repo::default() });
        self.commit(repo, "main", None, files, "Begin").await
    }

    /// A commit on top of `branch`, which begins at `from` if it is new. Files are added to those that are there.
    pub async fn commit(
        &self,
        repo: &str,
        branch: &str,
        from: Option<&str>,
        files: &[(&str, &[u8])],
        message: &str,
    ) -> String {
        let sha = git::commit(self.0.directory.path(), repo, branch, from, files, message).await;
        let open: Vec<i64> = {
            let mut state = self.state();
            let pulls = state.repo(repo).pulls.values_mut().filter(|pull| pull.open && pull.branch == branch);
            pulls
                .map(|pull| {
                    pull.sha.clone_from(&sha);
                    pull.number
                })
                .collect()
        };
        for number in open {
            self.deliver_pull_request(repo, number, "synchronize").await;
        }
        sha
    }

    /// Opens a pull request of `branch` against `main`.
    pub async fn open_pull_request(&self, repo: &str, branch: &str, title: &str) -> i64 {
        let sha = git::head(self.0.directory.path(), repo, branch).await;
        let number = {
            let mut state = self.state();
            let id = state.next_id();
            let repo = state.repo(repo);
            let number = i64::try_from(repo.pulls.len()).unwrap_or(0) + 1;
            let pull = Pull {
                number,
                id,
                title: title.to_owned(),
                branch: branch.to_owned(),
                sha,
                open: true,
                ..Pull::default()
            };
            repo.pulls.insert(number, pull);
            number
        };
        self.deliver_pull_request(repo, number, "opened").await;
        number
    }

    /// Closes a pull request.
    pub async fn close_pull_request(&self, repo: &str, number: i64) {
        self.change(repo, number, |pull| pull.open = false);
        self.deliver_pull_request(repo, number, "closed").await;
    }

    /// Closes a pull request, and nobody is told: a lost webhook.
    pub fn close_silently(&self, repo: &str, number: i64) {
        self.change(repo, number, |pull| pull.open = false);
    }

    /// Changes a pull request without telling.
    pub fn change(&self, repo: &str, number: i64, change: impl FnOnce(&mut Pull)) {
        change(self.state().repo(repo).pulls.get_mut(&number).expect("a pull request"));
    }

    /// Tells the webhook about a pull request. Like GitHub, it never tries again by itself.
    pub async fn deliver_pull_request(&self, repo: &str, number: i64, action: &str) {
        let body = {
            let mut state = self.state();
            let repository = json!({"id": state.repo(repo).id, "full_name": repo});
            let pull = state.repo(repo).pulls.get(&number).expect("a pull request").json(repo, &self.api_url());
            json!({"action": action, "number": number, "pull_request": pull, "repository": repository})
        };
        self.deliver("pull_request", &body).await;
    }

    async fn deliver(&self, event: &str, body: &Value) {
        let Some((url, secret)) = &self.0.webhook else { return };
        let body = body.to_string();
        let guid = uuid::Uuid::new_v4().to_string();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
        let signature = hex::encode(hmac::sign(&key, body.as_bytes()));
        let request = self
            .0
            .client
            .post(url)
            .timeout(std::time::Duration::from_secs(10))
            .header("content-type", "application/json")
            .header("x-github-event", event)
            .header("x-github-delivery", &guid)
            .header("x-hub-signature-256", format!("sha256={signature}"))
            .body(body);
        let status = match request.send().await {
            Ok(response) => response.status().as_u16(),
            Err(_) => 0,
        };
        self.state().deliveries.push(Delivery { guid, event: event.to_owned(), status });
    }

    /// What was delivered, and how it was answered (0: not at all).
    #[must_use]
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.state().deliveries.clone()
    }

    /// The comments of a pull request.
    #[must_use]
    pub fn comments(&self, repo: &str, number: i64) -> Vec<Comment> {
        self.state().repo(repo).comments.iter().filter(|comment| comment.number == number).cloned().collect()
    }

    /// Removes a comment, as a person might.
    pub fn delete_comment(&self, repo: &str, id: u64) {
        self.state().repo(repo).comments.retain(|comment| comment.id != id);
    }

    /// The checks of a commit: (external id, status or conclusion).
    #[must_use]
    pub fn checks(&self, repo: &str, sha: &str) -> Vec<Status> {
        self.state().repo(repo).checks.iter().filter(|check| check.sha == sha).cloned().collect()
    }

    /// The deployments, each with its newest state.
    #[must_use]
    pub fn deployments(&self, repo: &str) -> Vec<Status> {
        self.state().repo(repo).deployments.clone()
    }

    /// Requests that GitHub's document does not allow.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// Makes the next requests be answered with this status, `retry-after: 7` with it.
    pub fn fail_next(&self, status: u16, times: u32) {
        self.state().faults = (status, times);
    }

    async fn answer(&self, request: Request) -> Response {
        let path = request.uri().path().to_owned();
        if path.contains(".git/") {
            return git::serve(self.0.directory.path(), request).await;
        }
        rest::answer(self, request).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
