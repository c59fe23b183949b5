//! What git hosts speak about.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stagely_domain::secret::Secret;
use uuid::Uuid;

/// `owner/name`, checked: it becomes part of URLs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Repo(String);

/// Why a text is not a repository's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a repository (expected owner/name)")]
pub struct ParseRepoError(String);

impl FromStr for Repo {
    type Err = ParseRepoError;

    fn from_str(text: &str) -> Result<Self, ParseRepoError> {
        let part = |part: &str| {
            !part.is_empty()
                && part.len() <= 100
                && !part.starts_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        };
        match text.split_once('/') {
            Some((owner, name)) if part(owner) && part(name) => Ok(Self(text.to_owned())),
            _ => Err(ParseRepoError(text.chars().take(200).collect())),
        }
    }
}

impl Repo {
    /// The part before the slash.
    #[must_use]
    pub fn owner(&self) -> &str {
        self.0.split_once('/').map_or("", |(owner, _)| owner)
    }

    /// The part after the slash.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a pull request wants to be merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullRequestState {
    /// It is open.
    Open,
    /// It was closed, merged or not.
    Closed,
}

/// A pull request. All text in it is untrusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRequest {
    /// Its number.
    pub number: i64,
    /// Whether it is open.
    pub state: PullRequestState,
    /// Its title.
    pub title: String,
    /// Whether it is a draft.
    pub draft: bool,
    /// Its author's login.
    pub author: String,
    /// The head branch: any legal git reference name.
    pub branch: String,
    /// The head commit, 40 hexadecimal digits.
    pub sha: String,
    /// The base branch.
    pub base: String,
    /// The base branch's commit when the head was last pushed, 40 hexadecimal digits: what a fork may not change.
    pub base_sha: String,
    /// Whether its head is in another repository, or in one that was deleted.
    pub from_fork: bool,
    /// The repository of its head; absent when that was deleted.
    pub head_repo: Option<Repo>,
    /// Whether it was merged, if it is closed.
    pub merged: bool,
    /// Its labels.
    pub labels: Vec<String>,
    /// Its page.
    pub url: String,
}

/// Whether a check still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// Not begun.
    Queued,
    /// Under way.
    InProgress,
    /// Over.
    Completed(Conclusion),
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// Live.
    Success,
    /// Failed.
    Failure,
    /// Closed or superseded.
    Cancelled,
    /// Waits for a person.
    ActionRequired,
    /// Nothing was to be done.
    Neutral,
}

/// A check run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What the host calls it; the same for every commit.
    pub name: String,
    /// Our id of it, by which it is found again.
    pub external_id: String,
    /// Where it stands.
    pub status: CheckStatus,
    /// One line.
    pub title: String,
    /// Markdown.
    pub summary: String,
    /// Where to read more.
    pub details_url: Option<String>,
}

/// Where a deployment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentState {
    /// Not begun.
    Queued,
    /// Under way.
    InProgress,
    /// Live.
    Success,
    /// Failed.
    Failure,
    /// Gone.
    Inactive,
}

impl DeploymentState {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Inactive => "inactive",
        }
    }
}

/// A deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// The host's environment: `preview/pr-12`.
    pub environment: String,
    /// Where it stands.
    pub state: DeploymentState,
    /// The preview's URL, once it is live.
    pub url: Option<String>,
    /// Where to read more.
    pub log_url: Option<String>,
}

/// What stands at a path of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Git's own name for its content: equal names, equal content.
    pub id: String,
}

/// What an [`Entry`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
}

/// How to clone a repository.
#[derive(Debug, Clone)]
pub struct CloneAccess {
    /// The repository's HTTPS URL, without credentials.
    pub url: String,
    /// The user name that goes with the token.
    pub username: String,
    /// Reads the repository and changes nothing.
    pub token: Secret,
    /// When it ends, where the host says so.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A webhook delivery that did not arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedDelivery {
    /// The host's id of the newest attempt, to ask for another with.
    pub id: u64,
    /// The event's id, the same in every attempt: the one in `X-GitHub-Delivery`.
    pub guid: Uuid,
    /// The event's name.
    pub event: String,
    /// What happened, for events that say.
    pub action: Option<String>,
    /// When the newest attempt was made.
    pub delivered_at: DateTime<Utc>,
    /// The HTTP status that the newest attempt was answered with; 0 for no answer.
    pub status: u16,
    /// Attempts so far.
    pub attempts: u32,
}
