//! GitHub's JSON, as far as we read it. Unknown fields are of no concern; missing ones are named.

use serde::Deserialize;
use serde_json::Value;

use crate::types::{PullRequest, PullRequestState};
use crate::{ErrorKind, ForgeError, Result};

#[derive(Deserialize)]
struct Pull {
    number: i64,
    state: String,
    title: String,
    #[serde(default)]
    draft: bool,
    user: Option<User>,
    head: Reference,
    base: Reference,
    #[serde(default)]
    labels: Vec<Label>,
    html_url: String,
}

#[derive(Deserialize)]
struct User {
    login: String,
}

#[derive(Deserialize)]
struct Reference {
    #[serde(rename = "ref")]
    name: String,
    sha: String,
    /// Absent when the fork was deleted.
    repo: Option<Repository>,
}

#[derive(Deserialize)]
struct Repository {
    id: u64,
}

#[derive(Deserialize)]
struct Label {
    name: String,
}

pub(super) fn pull_request(doing: &'static str, value: Value) -> Result<PullRequest> {
    let pull: Pull = serde_json::from_value(value)
        .map_err(|error| ForgeError::new(ErrorKind::Protocol, doing, error.to_string()))?;
    if pull.head.sha.len() != 40 || !pull.head.sha.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(ForgeError::new(ErrorKind::Protocol, doing, "the head is not a commit"));
    }
    let head = pull.head.repo.as_ref().map(|repo| repo.id);
    Ok(PullRequest {
        number: pull.number,
        state: if pull.state == "open" { PullRequestState::Open } else { PullRequestState::Closed },
        title: pull.title,
        draft: pull.draft,
        author: pull.user.map_or_else(|| "ghost".to_owned(), |user| user.login),
        branch: pull.head.name,
        sha: pull.head.sha,
        from_fork: head.is_none() || head != pull.base.repo.as_ref().map(|repo| repo.id),
        base: pull.base.name,
        labels: pull.labels.into_iter().map(|label| label.name).collect(),
        url: pull.html_url,
    })
}

/// The id of what was just created.
pub(super) fn id(doing: &'static str, value: Option<Value>) -> Result<String> {
    let value = value
        .ok_or_else(|| ForgeError::new(ErrorKind::NotFound, doing, "the repository or pull request is not there"))?;
    let id = value["id"].as_u64().ok_or_else(|| ForgeError::new(ErrorKind::Protocol, doing, "no id in the answer"))?;
    Ok(id.to_string())
}
