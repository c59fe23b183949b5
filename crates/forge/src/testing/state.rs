//! What the git host remembers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use chrono::{DateTime, Utc};

#[derive(Default)]
pub(super) struct State {
    ids: u64,
    pub(super) repos: BTreeMap<String, Repo>,
    /// The App's installations: owner to id.
    pub(super) installations: BTreeMap<String, u64>,
    pub(super) grants: HashMap<String, Grant>,
    pub(super) deliveries: Vec<Delivery>,
    pub(super) violations: Vec<String>,
    pub(super) faults: VecDeque<Fault>,
    /// How many of the next deliveries get lost.
    pub(super) lost: u32,
}

#[derive(Default)]
pub(super) struct Repo {
    pub(super) id: u64,
    /// No credential reaches it.
    pub(super) hidden: bool,
    pub(super) pulls: BTreeMap<i64, Pull>,
    pub(super) comments: Vec<Comment>,
    pub(super) checks: Vec<Status>,
    pub(super) deployments: Vec<Status>,
}

/// What an installation token is good for.
#[derive(Clone)]
pub(super) struct Grant {
    pub(super) repos: Vec<String>,
    pub(super) writes: bool,
    pub(super) until: DateTime<Utc>,
}

/// What can go wrong with a REST request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This status, with `retry-after: 7`.
    Status(u16),
    /// 403, none remaining, and the limit starts anew in so many seconds.
    RateLimit {
        /// Seconds from now.
        reset_secs: i64,
    },
    /// 403 with nothing but a text about haste.
    SecondaryRateLimit,
    /// 401: the token counts no longer.
    Revoked,
    /// The right answer, so much later.
    Slow(Duration),
    /// 200 and something that is not JSON.
    Garbage,
}

/// A pull request, for tests to change.
#[derive(Debug, Clone, Default)]
pub struct Pull {
    /// Its number.
    pub number: i64,
    /// GitHub's id.
    pub id: u64,
    /// Its title.
    pub title: String,
    /// Its author's login.
    pub author: String,
    /// The repository of its head: a fork, or the one it is in.
    pub head_repo: String,
    /// Its head branch.
    pub branch: String,
    /// Its head commit.
    pub sha: String,
    /// The branch it is to be merged into.
    pub base: String,
    /// That branch's commit when this was opened.
    pub base_sha: String,
    /// Whether it is open.
    pub open: bool,
    /// Whether it was merged.
    pub merged: bool,
    /// Whether it is a draft.
    pub draft: bool,
    /// Its labels.
    pub labels: Vec<String>,
}

/// A comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    /// Its id.
    pub id: u64,
    /// The pull request.
    pub number: i64,
    /// Its author's login.
    pub author: String,
    /// Markdown.
    pub body: String,
    /// How often it was edited.
    pub edits: u32,
    /// Whether the App wrote it.
    pub by_app: bool,
}

/// A check or a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its id.
    pub id: u64,
    /// The commit.
    pub sha: String,
    /// The check's external id, or the deployment's environment.
    pub name: String,
    /// The status, or the conclusion once there is one.
    pub state: String,
    /// The deployment's URL, or the check's title and summary.
    pub text: String,
    /// What the check is called; empty for a deployment.
    pub label: String,
}

/// An attempt to deliver a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The id of the attempt.
    pub id: u64,
    /// The id of the event, the same in every attempt.
    pub guid: String,
    /// Its event.
    pub event: String,
    /// What happened.
    pub action: Option<String>,
    /// The answer's status; 0 for none.
    pub status: u16,
    /// Whether it was asked for, after an earlier attempt.
    pub redelivery: bool,
    /// When.
    pub at: DateTime<Utc>,
    /// What was sent.
    pub body: String,
}

impl State {
    pub(super) fn next_id(&mut self) -> u64 {
        self.ids += 1;
        1000 + self.ids
    }

    pub(super) fn repo(&mut self, name: &str) -> &mut Repo {
        self.repos.get_mut(name).unwrap_or_else(|| panic!("no repository {name}"))
    }
}
