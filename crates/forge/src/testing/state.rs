//! What the git host remembers.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

#[derive(Default)]
pub(super) struct State {
    ids: u64,
    pub(super) repos: HashMap<String, Repo>,
    pub(super) deliveries: Vec<Delivery>,
    pub(super) violations: Vec<String>,
    pub(super) faults: (u16, u32),
}

#[derive(Default)]
pub(super) struct Repo {
    pub(super) id: u64,
    pub(super) pulls: BTreeMap<i64, Pull>,
    pub(super) comments: Vec<Comment>,
    pub(super) checks: Vec<Status>,
    pub(super) deployments: Vec<Status>,
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
    /// Its head branch.
    pub branch: String,
    /// Its head commit.
    pub sha: String,
    /// Whether it is open.
    pub open: bool,
    /// Whether it is a draft.
    pub draft: bool,
    /// Whether its head is in a fork.
    pub from_fork: bool,
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
    /// Markdown.
    pub body: String,
    /// How often it was edited.
    pub edits: u32,
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
    /// The deployment's URL, or the check's summary.
    pub text: String,
}

/// A webhook delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its id.
    pub guid: String,
    /// Its event.
    pub event: String,
    /// The answer's status; 0 for none.
    pub status: u16,
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

impl Pull {
    pub(super) fn json(&self, repo: &str, base_url: &str) -> Value {
        json!({
            "id": self.id,
            "number": self.number,
            "state": if self.open { "open" } else { "closed" },
            "title": self.title,
            "draft": self.draft,
            "user": {"login": "octocat"},
            "labels": self.labels.iter().map(|name| json!({"name": name})).collect::<Vec<_>>(),
            "head": {"ref": self.branch, "sha": self.sha, "repo": {"id": if self.from_fork { 2 } else { 1 }}},
            "base": {"ref": "main", "sha": "", "repo": {"id": 1}},
            "html_url": format!("{base_url}/{repo}/pull/{}", self.number),
        })
    }
}
