//! Git hosts: reading pull requests and files, and keeping comments, checks and deployments as they should be.
//! GitHub is the first. Webhook bodies are verified and never believed: what counts is read here.

mod error;
pub mod github;
pub mod markdown;
mod types;
pub mod webhook;

#[cfg(feature = "testing")]
pub mod testing;

pub use error::{ErrorKind, ForgeError};
pub use github::GitHub;
pub use types::{
    Check, CheckStatus, CloneAccess, Conclusion, Deployment, DeploymentState, Entry, EntryKind, FailedDelivery,
    PullRequest, PullRequestState, Repo,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

/// A result of a git host call.
pub type Result<T> = std::result::Result<T, ForgeError>;

/// The largest file that is read.
pub const MAX_FILE_BYTES: usize = 256 * 1024;

/// A git host. Every call has a deadline and may be repeated.
#[async_trait]
pub trait Forge: Send + Sync + 'static {
    /// A pull request as it is now; `None` when there is none in a repository that can be seen.
    async fn pull_request(&self, repo: &Repo, number: i64) -> Result<Option<PullRequest>>;

    /// Every open pull request.
    async fn list_open_pull_requests(&self, repo: &Repo) -> Result<Vec<PullRequest>>;

    /// A file at a commit; `None` when it is not there.
    async fn file_at(&self, repo: &Repo, sha: &str, path: &str) -> Result<Option<Vec<u8>>>;

    /// What stands at paths of a commit, in their order (`.` is the root). `None` where there is neither a directory nor
    /// a regular file: nothing, a symbolic link, a submodule.
    async fn entries_at(&self, repo: &Repo, sha: &str, paths: &[String]) -> Result<Vec<Option<Entry>>>;

    /// The paths that a pull request changes; `Invalid` from 3,000 on, of which the host tells no more.
    async fn changed_paths(&self, repo: &Repo, number: i64) -> Result<Vec<String>>;

    /// Makes the one comment that carries `marker` say `body`. `known` is its id, if it was posted before; one that
    /// was deleted is posted again. Returns its id.
    async fn ensure_comment(
        &self,
        repo: &Repo,
        number: i64,
        marker: &str,
        known: Option<&str>,
        body: &str,
    ) -> Result<String>;

    /// Makes the check of `check.external_id` on a commit show `check`. Returns its id.
    async fn ensure_check(&self, repo: &Repo, sha: &str, known: Option<&str>, check: &Check) -> Result<String>;

    /// Makes the deployment of a commit to `deployment.environment` show its state. Returns its id.
    async fn ensure_deployment(
        &self,
        repo: &Repo,
        sha: &str,
        known: Option<&str>,
        deployment: &Deployment,
    ) -> Result<String>;

    /// A credential that reads this repository over HTTPS and changes nothing; an App's is for this one alone, and for
    /// a short time.
    async fn clone_access(&self, repo: &Repo) -> Result<CloneAccess>;

    /// Webhook deliveries since `since` that were never answered with success, newest first, one for each event
    /// however often it was tried. The host does not try again by itself. Only a GitHub App can ask; with a plain
    /// token this is [`ErrorKind::Invalid`].
    async fn list_failed_deliveries(&self, since: DateTime<Utc>) -> Result<Vec<FailedDelivery>>;

    /// Has a delivery sent once more, under the same `guid`; whether it is taken now shows in the next list. One that
    /// the host has forgotten is [`ErrorKind::NotFound`].
    async fn redeliver(&self, id: u64) -> Result<()>;
}
