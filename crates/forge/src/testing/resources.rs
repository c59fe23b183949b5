//! What the REST API reads and writes.

use base64::Engine;
use serde_json::{Value, json};

use super::access::{self, Caller};
use super::rest::{Answer, Asked, page, refused, with};
use super::state::{Comment, Status};
use super::{GitHost, git};

/// The answer to a request that the document and the caller's rights allow.
pub(super) async fn answer(host: &GitHost, asked: &Asked<'_>) -> Answer {
    let (owner, name, rest) = match (asked.method, asked.segments) {
        ("POST", ["app", "installations", id, "access_tokens"]) => return access::issue(host, id, asked.body),
        ("GET", ["app", "hook", "deliveries"]) => return deliveries(host, asked),
        ("POST", ["app", "hook", "deliveries", id, "attempts"]) => return redeliver(host, id),
        (_, ["repos", owner, name, rest @ ..]) => (owner, name, rest),
        _ => return missing(),
    };
    let repo = format!("{owner}/{name}");
    let Some(id) = host.state().repos.get(&repo).filter(|repo| !repo.hidden).map(|repo| repo.id) else {
        return missing();
    };
    match (asked.method, rest) {
        ("GET", []) => Answer::new(200, host.answers().full_repository(&repo, id)),
        ("GET", ["contents", path @ ..]) => {
            contents(host, &repo, asked.value("ref").unwrap_or("main"), &path.join("/")).await
        }
        ("GET", ["git", "commits", sha]) => match git::tree_of(host.0.directory.path(), &repo, sha).await {
            Some(tree) => Answer::new(200, host.answers().git_commit(sha, &tree)),
            None => missing(),
        },
        ("GET", ["git", "trees", sha]) => match git::tree(host.0.directory.path(), &repo, sha).await {
            Some(entries) => Answer::new(200, host.answers().git_tree(sha, &entries)),
            None => missing(),
        },
        ("GET", ["pulls", number, "files"]) => files(host, &repo, number, asked).await,
        ("GET", ["installation"]) => match host.state().installations.get(*owner) {
            Some(id) => Answer::new(200, host.answers().installation(*id, owner)),
            None => missing(),
        },
        ("GET", ["pulls"]) => pulls(host, &repo, asked),
        ("GET", ["pulls", number]) => match number.parse().ok().and_then(|number| host.pull_json(&repo, number, false))
        {
            Some(pull) => Answer::new(200, pull),
            None => missing(),
        },
        (_, ["issues", rest @ ..]) => comments(host, &repo, rest, asked),
        (_, ["deployments", rest @ ..]) => deployments(host, &repo, rest, asked),
        _ => checks(host, &repo, rest, asked),
    }
}

fn pulls(host: &GitHost, repo: &str, asked: &Asked<'_>) -> Answer {
    let wanted = asked.value("state").unwrap_or("open");
    let numbers: Vec<i64> = {
        let mut state = host.state();
        let fits = |open: bool| wanted == "all" || (wanted == "open") == open;
        // Newest first, as GitHub does.
        state.repo(repo).pulls.values().rev().filter(|pull| fits(pull.open)).map(|pull| pull.number).collect()
    };
    page(asked, numbers.into_iter().filter_map(|number| host.pull_json(repo, number, true)).collect())
}

async fn files(host: &GitHost, repo: &str, number: &str, asked: &Asked<'_>) -> Answer {
    let ends = {
        let mut state = host.state();
        let pull = number.parse().ok().and_then(|number: i64| state.repo(repo).pulls.get(&number));
        pull.map(|pull| (pull.base_sha.clone(), pull.sha.clone()))
    };
    let Some((base, head)) = ends else { return missing() };
    let files = git::changed(host.0.directory.path(), repo, &base, &head).await;
    page(asked, files.iter().map(|path| host.answers().file(path)).collect())
}

async fn contents(host: &GitHost, repo: &str, reference: &str, path: &str) -> Answer {
    match git::blob(host.0.directory.path(), repo, reference, path).await {
        Some(bytes) => {
            let content = base64::engine::general_purpose::STANDARD.encode(&bytes);
            Answer::new(200, host.answers().content(path, bytes.len(), &content))
        }
        None => missing(),
    }
}

fn comments(host: &GitHost, repo: &str, rest: &[&str], asked: &Asked<'_>) -> Answer {
    let answers = host.answers();
    let mut state = host.state();
    let id = state.next_id();
    let repo = state.repo(repo);
    match (asked.method, rest) {
        ("PATCH", ["comments", wanted]) => {
            let Some(comment) = repo.comments.iter_mut().find(|comment| comment.id.to_string() == **wanted) else {
                return missing();
            };
            comment.body = asked.text("body");
            comment.edits += 1;
            Answer::new(200, answers.comment(comment))
        }
        (_, [number, "comments"]) => {
            let Some(number) = number.parse().ok().filter(|number| repo.pulls.contains_key(number)) else {
                return missing();
            };
            if asked.method == "GET" {
                let of = repo.comments.iter().filter(|comment| comment.number == number);
                return page(asked, of.map(|comment| answers.comment(comment)).collect());
            }
            let by_app = matches!(asked.caller, Caller::Installation(_));
            let author = if by_app { "stagely[bot]" } else { "stagely" }.to_owned();
            let comment = Comment { id, number, author, body: asked.text("body"), edits: 0, by_app };
            let answer = answers.comment(&comment);
            repo.comments.push(comment);
            Answer::new(201, answer)
        }
        _ => missing(),
    }
}

fn checks(host: &GitHost, repo: &str, rest: &[&str], asked: &Asked<'_>) -> Answer {
    let answers = host.answers();
    let mut state = host.state();
    let id = state.next_id();
    let repo = state.repo(repo);
    match (asked.method, rest) {
        ("GET", ["commits", sha, "check-runs"]) => {
            let named = |check: &&Status| asked.value("check_name").is_none_or(|name| name == check.label);
            let of = repo.checks.iter().filter(|check| check.sha == **sha).filter(named);
            let mut answer = page(asked, of.map(|check| answers.check(check)).collect());
            let total = answer.body.as_array().map_or(0, Vec::len);
            answer.body = json!({"total_count": total, "check_runs": answer.body});
            answer
        }
        ("POST", ["check-runs"]) => {
            let mut check = Status {
                id,
                sha: asked.text("head_sha"),
                name: String::new(),
                state: String::new(),
                text: String::new(),
                label: String::new(),
            };
            write_check(&mut check, asked);
            let answer = answers.check(&check);
            repo.checks.push(check);
            Answer::new(201, answer)
        }
        ("PATCH", ["check-runs", wanted]) => {
            match repo.checks.iter_mut().find(|check| check.id.to_string() == **wanted) {
                Some(check) => {
                    write_check(check, asked);
                    Answer::new(200, answers.check(check))
                }
                None => missing(),
            }
        }
        _ => missing(),
    }
}

fn write_check(check: &mut Status, asked: &Asked<'_>) {
    let output = |key: &str| asked.body["output"][key].as_str().unwrap_or_default();
    check.state = asked.body["conclusion"].as_str().or(asked.body["status"].as_str()).unwrap_or_default().to_owned();
    check.text = format!("{}\n{}", output("title"), output("summary"));
    check.name = asked.text("external_id");
    check.label = asked.text("name");
}

fn deployments(host: &GitHost, repo: &str, rest: &[&str], asked: &Asked<'_>) -> Answer {
    let answers = host.answers();
    let mut state = host.state();
    let id = state.next_id();
    let repo = state.repo(repo);
    match (asked.method, rest) {
        ("GET", []) => {
            let (sha, environment) = (asked.value("sha"), asked.value("environment"));
            let of = repo.deployments.iter().rev().filter(|deployment| {
                sha.is_none_or(|sha| sha == deployment.sha) && environment.is_none_or(|name| name == deployment.name)
            });
            page(asked, of.map(|deployment| answers.deployment(deployment)).collect())
        }
        ("POST", []) => {
            let (sha, name) = (asked.text("ref"), asked.text("environment"));
            let deployment = Status { id, sha, name, state: String::new(), text: String::new(), label: String::new() };
            let answer = answers.deployment(&deployment);
            repo.deployments.push(deployment);
            Answer::new(201, answer)
        }
        ("POST", [wanted, "statuses"]) => {
            match repo.deployments.iter_mut().find(|deployment| deployment.id.to_string() == **wanted) {
                Some(deployment) => {
                    (deployment.state, deployment.text) = (asked.text("state"), asked.text("environment_url"));
                    Answer::new(201, answers.deployment_status(id, deployment))
                }
                None => missing(),
            }
        }
        _ => missing(),
    }
}

/// Newest first, by a cursor: the id below which the page begins.
fn deliveries(host: &GitHost, asked: &Asked<'_>) -> Answer {
    let size = asked.value("per_page").and_then(|text| text.parse().ok()).unwrap_or(30).clamp(1, 100);
    let below = asked.value("cursor").and_then(|text| text.strip_prefix("v1_")?.parse().ok()).unwrap_or(u64::MAX);
    let state = host.state();
    let fits =
        |status: u16| asked.value("status").is_none_or(|wanted| (wanted == "success") == (200..300).contains(&status));
    let of = state.deliveries.iter().filter(|delivery| delivery.id < below && fits(delivery.status));
    let mut items: Vec<_> = of.collect();
    items.sort_by_key(|delivery| std::cmp::Reverse(delivery.id));
    let has_more = items.len() > size;
    items.truncate(size);
    let next = items.last().filter(|_| has_more).map(|last| with(asked, "cursor", &format!("v1_{}", last.id)));
    let items: Vec<Value> = items.into_iter().map(|delivery| host.answers().delivery(delivery)).collect();
    Answer { status: 200, body: Value::Array(items), next }
}

fn redeliver(host: &GitHost, id: &str) -> Answer {
    let id = id.parse().unwrap_or(0);
    if !host.state().deliveries.iter().any(|delivery| delivery.id == id) {
        return missing();
    }
    // GitHub answers first and delivers then.
    let later = host.clone();
    host.0.tracker.spawn(async move { later.redeliver(id).await });
    Answer::new(202, json!({}))
}

fn missing() -> Answer {
    refused(404, "Not Found")
}
