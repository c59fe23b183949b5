//! A git host on loopback for the demo and the tests: GitHub's REST API as far as we use it, real git over HTTP,
//! signed webhooks. Every request, and every answer of its own, is checked against GitHub's published OpenAPI document
//! (`github-openapi.json`, cut out by `trim-openapi.py`); what does not fit is refused and remembered
//! ([`GitHost::violations`]).

mod access;
mod answers;
mod deliveries;
mod git;
mod pulls;
mod resources;
mod rest;
mod state;
mod validate;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use stagely_domain::clock::{Clock, SystemClock};
use stagely_domain::secret::Secret;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use answers::Answers;
use state::State;
pub use state::{Comment, Delivery, Fault, Pull, Status};
use validate::Document;

/// The token that clients must show, as a bearer and as git's password. It may do everything, for ever.
pub const TOKEN: &str = "ghs_local_token_for_tests_only";

/// Another, which reads and no more.
pub const CLONE_TOKEN: &str = "ghs_local_token_that_only_reads";

/// The id of the App that is installed for every owner.
pub const APP_ID: &str = "4711";

/// The App's key, in PEM. It was made for this double and opens nothing else.
pub const APP_KEY: &str = include_str!("app-key.pem");

const APP_PUBLIC_KEY: &str = include_str!("app-key.pub.pem");

/// The host. Cheap to clone.
#[derive(Clone)]
pub struct GitHost(Arc<Inside>);

struct Inside {
    address: SocketAddr,
    url: String,
    directory: tempfile::TempDir,
    document: Document,
    state: Mutex<State>,
    webhook: Option<(String, Secret)>,
    client: reqwest::Client,
    clock: Arc<dyn Clock>,
    tracker: TaskTracker,
}

impl GitHost {
    /// Binds a loopback port (0: any) and serves until `shutdown`. Webhooks go to `webhook`'s address, signed with its
    /// secret. The process has installed a rustls provider.
    ///
    /// # Panics
    /// When the port, the directory or the document is not to be had.
    pub async fn start(port: u16, webhook: Option<(String, Secret)>, shutdown: CancellationToken) -> Self {
        Self::start_at(port, webhook, Arc::new(SystemClock), shutdown).await
    }

    /// The same, with another clock: by it tokens end and deliveries are dated.
    ///
    /// # Panics
    /// As [`GitHost::start`].
    pub async fn start_at(
        port: u16,
        webhook: Option<(String, Secret)>,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("bind a loopback port");
        let address = listener.local_addr().expect("a bound address");
        let inside = Inside {
            address,
            url: format!("http://{address}"),
            directory: tempfile::tempdir().expect("a temporary directory"),
            document: Document::load(),
            state: Mutex::default(),
            webhook,
            client: reqwest::Client::new(),
            clock,
            tracker: TaskTracker::new(),
        };
        let host = Self(Arc::new(inside));
        let served = host.clone();
        let router = Router::new().fallback(move |request: Request| {
            let host = served.clone();
            async move { host.answer(request).await }
        });
        // The task ends with `shutdown`; tests and the demo outlive nothing of it.
        host.0.tracker.spawn(async move {
            let server = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned());
            server.await.expect("serve the git host");
        });
        host
    }

    /// What `GITHUB_API_URL` is to be.
    #[must_use]
    pub fn api_url(&self) -> String {
        self.0.url.clone()
    }

    /// What clone URLs start with, for clients that reach loopback under another name.
    #[must_use]
    pub fn git_url(&self, host: &str) -> String {
        format!("http://{host}:{}", self.0.address.port())
    }

    /// The comments of a pull request.
    #[must_use]
    pub fn comments(&self, repo: &str, number: i64) -> Vec<Comment> {
        self.state().repo(repo).comments.iter().filter(|comment| comment.number == number).cloned().collect()
    }

    /// Says something on a pull request, as a person. Nobody is told.
    pub fn add_comment(&self, repo: &str, number: i64, author: &str, body: &str) -> u64 {
        let mut state = self.state();
        let id = state.next_id();
        let (author, body) = (author.to_owned(), body.to_owned());
        state.repo(repo).comments.push(Comment { id, number, author, body, edits: 0, by_app: false });
        id
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

    /// Removes a deployment.
    pub fn delete_deployment(&self, repo: &str, id: u64) {
        self.state().repo(repo).deployments.retain(|deployment| deployment.id != id);
    }

    /// Requests that GitHub's document does not allow, and answers of ours that are not as it says.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// Makes the next REST requests be answered with this status, `retry-after: 7` with it.
    pub fn fail_next(&self, status: u16, times: u32) {
        self.disturb_next(Fault::Status(status), times);
    }

    /// Makes the next REST requests go wrong in this way, after those that were already told to.
    pub fn disturb_next(&self, fault: Fault, times: u32) {
        self.state().faults.extend((0..times).map(|_| fault));
    }

    /// Takes a repository out of the reach of every credential, or back into it: for who asks, it is not there.
    pub fn hide_repo(&self, repo: &str, hidden: bool) {
        self.state().repo(repo).hidden = hidden;
    }

    /// How many installation tokens there are that have been issued and not revoked.
    #[must_use]
    pub fn issued_tokens(&self) -> usize {
        self.state().grants.len()
    }

    /// Makes every installation token worthless, as a change of the App's permissions may.
    pub fn revoke_tokens(&self) {
        self.state().grants.clear();
    }

    async fn answer(&self, request: Request) -> Response {
        if request.uri().path().contains(".git/") {
            return git::serve(self, request).await;
        }
        rest::answer(self, request).await
    }

    fn answers(&self) -> Answers<'_> {
        Answers { document: &self.0.document, url: &self.0.url }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
