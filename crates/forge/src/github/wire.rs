//! GitHub's JSON, as far as we read it. Unknown fields are of no concern; missing ones are named.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::types::{Entry, EntryKind, FailedDelivery, PullRequest, PullRequestState};
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
    merged_at: Option<String>,
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
    full_name: String,
}

#[derive(Deserialize)]
struct Label {
    name: String,
}

pub(super) fn pull_request(doing: &'static str, value: Value) -> Result<PullRequest> {
    let pull: Pull = serde_json::from_value(value)
        .map_err(|error| ForgeError::new(ErrorKind::Protocol, doing, error.to_string()))?;
    for (sha, what) in [(&pull.head.sha, "the head is not a commit"), (&pull.base.sha, "the base is not a commit")] {
        if sha.len() != 40 || !sha.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ForgeError::new(ErrorKind::Protocol, doing, what));
        }
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
        base_sha: pull.base.sha,
        head_repo: pull.head.repo.and_then(|repo| repo.full_name.parse().ok()),
        merged: pull.merged_at.is_some(),
        labels: pull.labels.into_iter().map(|label| label.name).collect(),
        url: pull.html_url,
    })
}

/// One attempt to deliver an event.
#[derive(Deserialize)]
pub(super) struct Attempt {
    id: u64,
    guid: Uuid,
    pub(super) delivered_at: DateTime<Utc>,
    status_code: i64,
    event: String,
    action: Option<String>,
}

pub(super) fn attempt(doing: &'static str, value: Value) -> Result<Attempt> {
    serde_json::from_value(value).map_err(|error| ForgeError::new(ErrorKind::Protocol, doing, error.to_string()))
}

/// The events of which no attempt (given newest first) was taken.
pub(super) fn failed(attempts: &[Attempt]) -> Vec<FailedDelivery> {
    let is_taken = |attempt: &Attempt| (200..300).contains(&attempt.status_code);
    let mut failed: Vec<FailedDelivery> = Vec::new();
    let mut seen: HashMap<Uuid, usize> = HashMap::new();
    let taken: HashSet<Uuid> =
        attempts.iter().filter(|attempt| is_taken(attempt)).map(|attempt| attempt.guid).collect();
    for attempt in attempts.iter().filter(|attempt| !taken.contains(&attempt.guid)) {
        if let Some(index) = seen.get(&attempt.guid) {
            failed[*index].attempts += 1;
            continue;
        }
        seen.insert(attempt.guid, failed.len());
        failed.push(FailedDelivery {
            id: attempt.id,
            guid: attempt.guid,
            event: attempt.event.clone(),
            action: attempt.action.clone(),
            delivered_at: attempt.delivered_at,
            status: u16::try_from(attempt.status_code).unwrap_or(0),
            attempts: 1,
        });
    }
    failed
}

/// Whether a comment is one of ours. The marker is no secret: whoever reads it can put it into a comment of their own,
/// and change that after we had written a preview's address into it. An App knows its own comments; with a token,
/// the marker must do.
pub(super) fn is_ours(comment: &Value, marker: &str, app_id: Option<&str>) -> bool {
    let marked = comment["body"].as_str().is_some_and(|body| body.starts_with(marker));
    let by_us = app_id.is_none_or(|app_id| match &comment["performed_via_github_app"] {
        // Not told by every GitHub Enterprise.
        Value::Null => comment["user"]["type"] == "Bot",
        app => app["id"].as_u64().is_some_and(|id| id.to_string() == app_id) || app["client_id"] == app_id,
    });
    marked && by_us
}

/// The id of what was just created.
pub(super) fn id(doing: &'static str, value: Option<Value>) -> Result<String> {
    let value = value
        .ok_or_else(|| ForgeError::new(ErrorKind::NotFound, doing, "the repository or pull request is not there"))?;
    let id = value["id"].as_u64().ok_or_else(|| ForgeError::new(ErrorKind::Protocol, doing, "no id in the answer"))?;
    Ok(id.to_string())
}

/// The directories and regular files directly in a tree, by name. A list that was cut short may lack some.
pub(super) fn entries(tree: &Value) -> HashMap<String, Entry> {
    let entries = tree["tree"].as_array().into_iter().flatten();
    let known = |entry: &Value| {
        // Git's modes: 120000 is a symbolic link, 160000 a submodule.
        let kind = match entry["mode"].as_str()? {
            "040000" => EntryKind::Directory,
            "100644" | "100755" => EntryKind::File,
            _ => return None,
        };
        Some((entry["path"].as_str()?.to_owned(), Entry { kind, id: entry["sha"].as_str()?.to_owned() }))
    };
    entries.filter_map(known).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::entries;
    use crate::types::EntryKind;

    #[test]
    fn links_and_submodules_are_neither_directories_nor_files() {
        let entry = |path: &str, mode: &str| json!({"path": path, "mode": mode, "sha": "1"});
        let modes = [("d", "040000"), ("f", "100644"), ("x", "100755"), ("link", "120000"), ("module", "160000")];
        let tree = json!({"tree": modes.map(|(path, mode)| entry(path, mode))});
        let mut found: Vec<_> = entries(&tree).into_iter().map(|(path, entry)| (path, entry.kind)).collect();
        found.sort_by(|one, other| one.0.cmp(&other.0));
        let expected = [("d", EntryKind::Directory), ("f", EntryKind::File), ("x", EntryKind::File)];
        assert_eq!(found, expected.map(|(path, kind)| (path.to_owned(), kind)));
    }
}
