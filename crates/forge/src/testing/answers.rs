//! GitHub's JSON: the document's own examples, with our facts laid over them.

use serde_json::{Value, json};

use super::APP_ID;
use super::git::Entry;
use super::state::{Comment, Delivery, Pull, Status};
use super::validate::Document;

const ISSUE_COMMENTS: &str = "/repos/{owner}/{repo}/issues/{issue_number}/comments";

/// Makes answers.
pub(super) struct Answers<'h> {
    pub(super) document: &'h Document,
    pub(super) url: &'h str,
}

impl Answers<'_> {
    /// A pull request as it is read (`is_listed`: as it is listed, which says less).
    pub(super) fn pull(&self, repo: (&str, u64), head_id: u64, pull: &Pull, is_listed: bool) -> Value {
        let example = match is_listed {
            true => &self.document.example("GET", "/repos/{owner}/{repo}/pulls")[0],
            false => self.document.example("GET", "/repos/{owner}/{repo}/pulls/{pull_number}"),
        };
        let label = |name: &String| laid_over(&example["labels"][0], json!({"name": name}));
        let end = |name: &str, reference: &str, sha: &str, id: u64| {
            let owner = name.split('/').next().unwrap_or_default();
            let repo = self.repository(name, id);
            json!({"label": format!("{owner}:{reference}"), "ref": reference, "sha": sha, "repo": repo})
        };
        let at = |is_so: bool| if is_so { json!("2026-01-01T00:00:00Z") } else { Value::Null };
        let mut facts = json!({
            "id": pull.id,
            "number": pull.number,
            "state": if pull.open { "open" } else { "closed" },
            "title": pull.title,
            "draft": pull.draft,
            "user": {"login": pull.author},
            "labels": pull.labels.iter().map(label).collect::<Vec<_>>(),
            "head": end(&pull.head_repo, &pull.branch, &pull.sha, head_id),
            "base": end(repo.0, &pull.base, &pull.base_sha, repo.1),
            "html_url": format!("{}/{}/pull/{}", self.url, repo.0, pull.number),
            "closed_at": at(!pull.open),
            "merged_at": at(pull.merged),
        });
        if !is_listed {
            facts["merged"] = json!(pull.merged);
        }
        laid_over(example, facts)
    }

    /// A repository as it is read by itself.
    pub(super) fn full_repository(&self, full_name: &str, id: u64) -> Value {
        laid_over(self.document.example("GET", "/repos/{owner}/{repo}"), self.repository(full_name, id))
    }

    /// A repository as it stands in other answers.
    pub(super) fn repository(&self, full_name: &str, id: u64) -> Value {
        let example = &self.document.example("GET", "/repos/{owner}/{repo}/pulls/{pull_number}")["base"]["repo"];
        let (owner, name) = full_name.split_once('/').unwrap_or((full_name, ""));
        laid_over(example, json!({"id": id, "name": name, "full_name": full_name, "owner": {"login": owner}}))
    }

    pub(super) fn file(&self, path: &str) -> Value {
        let example = &self.document.example("GET", "/repos/{owner}/{repo}/pulls/{pull_number}/files")[0];
        laid_over(example, json!({"filename": path}))
    }

    pub(super) fn content(&self, path: &str, size: usize, base64: &str) -> Value {
        let name = path.rsplit('/').next().unwrap_or(path);
        let facts = json!({"name": name, "path": path, "size": size, "encoding": "base64", "content": base64});
        laid_over(self.document.example("GET", "/repos/{owner}/{repo}/contents/{path}"), facts)
    }

    pub(super) fn git_commit(&self, sha: &str, tree: &str) -> Value {
        let facts = json!({"sha": sha, "tree": {"sha": tree}});
        laid_over(self.document.example("GET", "/repos/{owner}/{repo}/git/commits/{commit_sha}"), facts)
    }

    pub(super) fn git_tree(&self, sha: &str, entries: &[Entry]) -> Value {
        let entry =
            |entry: &Entry| json!({"path": entry.name, "mode": entry.mode, "type": entry.kind, "sha": entry.sha});
        let entries: Vec<Value> = entries.iter().map(entry).collect();
        let facts = json!({"sha": sha, "tree": entries, "truncated": false});
        laid_over(self.document.example("GET", "/repos/{owner}/{repo}/git/trees/{tree_sha}"), facts)
    }

    pub(super) fn comment(&self, comment: &Comment) -> Value {
        let by = if comment.by_app { "Bot" } else { "User" };
        let app = &self.document.example("POST", "/repos/{owner}/{repo}/check-runs")["app"];
        let app = if comment.by_app {
            laid_over(app, json!({"id": APP_ID.parse::<u64>().unwrap_or(0)}))
        } else {
            Value::Null
        };
        let facts = json!({
            "id": comment.id,
            "body": comment.body,
            "user": {"login": comment.author, "type": by},
            "performed_via_github_app": app,
        });
        laid_over(self.document.example("POST", ISSUE_COMMENTS), facts)
    }

    pub(super) fn check(&self, check: &Status) -> Value {
        let is_over = !matches!(check.state.as_str(), "queued" | "in_progress");
        let (title, summary) = check.text.split_once('\n').unwrap_or((&check.text, ""));
        let facts = json!({
            "id": check.id,
            "head_sha": check.sha,
            "external_id": check.name,
            "name": check.label,
            "status": if is_over { "completed" } else { check.state.as_str() },
            "conclusion": if is_over { json!(check.state) } else { Value::Null },
            "completed_at": if is_over { json!("2026-01-01T00:00:00Z") } else { Value::Null },
            "output": {"title": title, "summary": summary},
        });
        laid_over(self.document.example("POST", "/repos/{owner}/{repo}/check-runs"), facts)
    }

    pub(super) fn deployment(&self, deployment: &Status) -> Value {
        let facts = json!({
            "id": deployment.id,
            "sha": deployment.sha,
            "ref": deployment.sha,
            "environment": deployment.name,
            "original_environment": deployment.name,
        });
        laid_over(self.document.example("POST", "/repos/{owner}/{repo}/deployments"), facts)
    }

    pub(super) fn deployment_status(&self, id: u64, deployment: &Status) -> Value {
        let template = "/repos/{owner}/{repo}/deployments/{deployment_id}/statuses";
        let mut facts = json!({"id": id, "state": deployment.state, "environment": deployment.name});
        if !deployment.text.is_empty() {
            facts["environment_url"] = json!(deployment.text);
        }
        laid_over(self.document.example("POST", template), facts)
    }

    pub(super) fn installation(&self, id: u64, owner: &str) -> Value {
        let facts = json!({"id": id, "account": {"login": owner}, "app_id": APP_ID.parse::<u64>().unwrap_or(0)});
        laid_over(self.document.example("GET", "/repos/{owner}/{repo}/installation"), facts)
    }

    pub(super) fn access_token(&self, token: &str, until: &str, permissions: &Value) -> Value {
        let template = "/app/installations/{installation_id}/access_tokens";
        let mut answer =
            laid_over(self.document.example("POST", template), json!({"token": token, "expires_at": until}));
        answer["permissions"] = permissions.clone();
        answer
    }

    pub(super) fn delivery(&self, delivery: &Delivery) -> Value {
        let status = match delivery.status {
            0 => "failed to connect to host".to_owned(),
            200..300 => "OK".to_owned(),
            status => format!("Invalid HTTP Response: {status}"),
        };
        let facts = json!({
            "id": delivery.id,
            "guid": delivery.guid,
            "delivered_at": delivery.at,
            "redelivery": delivery.redelivery,
            "status": status,
            "status_code": delivery.status,
            "event": delivery.event,
            "action": delivery.action,
        });
        laid_over(&self.document.example("GET", "/app/hook/deliveries")[0], facts)
    }
}

/// `example` with `facts` in the place of what they name. Lists are replaced whole.
fn laid_over(example: &Value, facts: Value) -> Value {
    match (example, facts) {
        (Value::Object(example), Value::Object(facts)) => {
            let mut out = example.clone();
            for (key, fact) in facts {
                let old = out.get(&key).cloned().unwrap_or(Value::Null);
                out.insert(key, laid_over(&old, fact));
            }
            Value::Object(out)
        }
        (_, fact) => fact,
    }
}
