//! The story that Stagely is for, on this machine: a pull request becomes a live URL, and leaves nothing.

use std::time::Duration;

use anyhow::{bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use stagely_forge::testing::GitHost;
use tokio::time::{Instant, sleep};
use xtask::{registry, sample};

use crate::stack::Stack;
use crate::{machine, say, services};

const REPO: &str = "octo/guestbook";

/// Tells the story; with `once` to its end, else until Ctrl-C.
pub async fn run(once: bool) -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let outcome = tokio::select! {
        outcome = story(&stack, once) => outcome,
        () = interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    let state = stack.state.clone();
    stack.stop().await;
    // Machines outlive their control plane by design; those of a demonstration end with it.
    machine::clear(&state);
    outcome
}

/// SIGINT, or SIGTERM as CI sends it.
async fn interrupted() {
    let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// The stack with an open pull request, until Ctrl-C.
pub async fn up() -> anyhow::Result<()> {
    run(false).await
}

async fn story(stack: &Stack, once: bool) -> anyhow::Result<()> {
    let host = &stack.host;
    let account = stack.call(Method::POST, "/cloud-accounts", Some(json!({"name": "metal", "kind": "qemu"}))).await?;
    let project = json!({"repo": REPO, "cloud_account": account["id"]});
    stack.call(Method::POST, "/projects", Some(project)).await?;
    stack.warm().await?;

    let files = sample::files(&crate::workspace())?;
    host.create_repo(REPO, &sample::borrow(&files)).await;
    host.commit(REPO, "greeting", Some("main"), &sample::borrow(&sample::with_version("one")), "Greet").await;
    let opened = Instant::now();
    let number = host.open_pull_request(REPO, "greeting", "Greet visitors").await;
    let url = live(host, number, "one", stack, Duration::from_secs(1800)).await?;
    let cold = opened.elapsed();
    let preview = url.trim_start_matches("http://").split(':').next().unwrap_or_default().to_owned();
    let (status, page) = stack.visit(&preview, "/").await?;
    ensure!(
        status == 200 && page.contains(sample::FIRST_ITEM),
        "the page is not made of the database's rows: {status} {page}"
    );
    say(format!("preview ready: {url}"));
    waterfall(stack, "first push (nothing cached)", cold).await?;

    let sent = stack.submit(&preview, "/api/items", "text=Kept+over+the+push").await?;
    ensure!((200..400).contains(&sent), "an entry was not taken: {sent}");
    let pushed = Instant::now();
    host.commit(REPO, "greeting", None, &sample::borrow(&sample::with_version("two")), "Say two").await;
    live(host, number, "two", stack, Duration::from_secs(600)).await?;
    let warm = pushed.elapsed();
    let (_, page) = stack.visit(&preview, "/").await?;
    ensure!(page.contains("Kept over the push"), "the data was not kept over the push: {page}");
    say("second commit is live, with the same data");
    waterfall(stack, "second push (template and build cache)", warm).await?;
    say(format!("the pull request says:\n{}", indented(&host.comments(REPO, number)[0].body)));

    if !once {
        say("everything runs until Ctrl-C; the git host is ".to_owned() + &host.api_url());
        // Only Ctrl-C ends this, and it ends the whole story.
        return std::future::pending().await;
    }
    host.close_pull_request(REPO, number).await;
    nothing_left(stack, &preview, number).await?;
    ensure!(host.violations().is_empty(), "requests outside GitHub's document: {:?}", host.violations());
    say("closed: no machine, no disk, no route, no image and no open row is left");
    Ok(())
}

/// Waits until the pull request's comment says that the preview is live and it shows `version`.
async fn live(host: &GitHost, number: i64, version: &str, stack: &Stack, limit: Duration) -> anyhow::Result<String> {
    let until = Instant::now() + limit;
    let mut last = String::new();
    loop {
        let comments = host.comments(REPO, number);
        let body = comments.first().map(|comment| comment.body.clone()).unwrap_or_default();
        if let Some(line) = body.lines().find(|line| line.starts_with("### ")).filter(|line| *line != last) {
            say(format!("  comment: {}", line.trim_start_matches('#').trim()));
            last = line.to_owned();
        }
        if body.contains("Preview: Failed") {
            bail!("the preview failed:\n{body}");
        }
        let url = body.lines().find_map(|line| line.strip_prefix("**")?.strip_suffix("**"));
        if let (true, Some(url)) = (body.contains("Preview: Live"), url) {
            let preview = url.trim_start_matches("http://").split(':').next().unwrap_or_default();
            if stack.visit(preview, "/").await.is_ok_and(|(_, page)| sample::shows_version(&page, version)) {
                return Ok(url.to_owned());
            }
        }
        if Instant::now() > until {
            bail!("not live after {} s; the comment says:\n{body}", limit.as_secs());
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The newest run's phases.
async fn waterfall(stack: &Stack, title: &str, whole: Duration) -> anyhow::Result<()> {
    say(format!("{title}: {:.1} s from push to URL", whole.as_secs_f64()));
    let environments = stack.call(Method::GET, "/environments", None).await?;
    let Some(id) = environments["items"][0]["id"].as_str() else { return Ok(()) };
    let runs = stack.call(Method::GET, &format!("/environments/{id}/runs"), None).await?;
    let Some(run) = runs["items"][0]["id"].as_str() else { return Ok(()) };
    let run = stack.call(Method::GET, &format!("/runs/{run}"), None).await?;
    for phase in run["timeline"].as_array().into_iter().flatten() {
        if let (Some(name), Some(ms)) = (phase["phase"].as_str().or(phase["name"].as_str()), phase["ms"].as_u64()) {
            say(format!("  {name:<10} {:>8.1} s", Duration::from_millis(ms).as_secs_f64()));
        }
    }
    Ok(())
}

/// Waits until no trace of the pull request is left but what it was told.
async fn nothing_left(stack: &Stack, preview: &str, number: i64) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_secs(300);
    loop {
        let mut left = machine::left(&stack.state);
        if services::occupied(&stack.state.join("qemu/trash")) {
            left.push("qemu/trash".to_owned());
        }
        let (status, _) = stack.visit(preview, "/").await?;
        if status != 410 {
            left.push(format!("the URL answers {status}"));
        }
        for (repository, tags) in registry::repositories_and_tags(&stack.images)? {
            left.push(format!("images {repository}: {tags:?}"));
        }
        let counts = stack.call(Method::GET, "/status", None).await?;
        left.extend(open_rows(&counts));
        let body = stack.host.comments(REPO, number).first().map(|comment| comment.body.clone()).unwrap_or_default();
        if !body.contains("Preview: Removed") {
            left.push("the comment does not say that it was removed".to_owned());
        }
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("five minutes after the pull request was closed there is left:\n  {}", left.join("\n  "));
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Machines and builds that are not over, and deliveries that nobody has looked at.
fn open_rows(counts: &Value) -> Vec<String> {
    let mut open = Vec::new();
    for kind in ["machines", "builds"] {
        let Some(states) = counts[kind].as_object() else { return vec!["no status".to_owned()] };
        let counted = states.iter().filter(|(_, count)| count.as_u64() != Some(0));
        open.extend(counted.map(|(state, count)| format!("{count} {kind} {state}")));
    }
    open
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  | {line}")).collect::<Vec<_>>().join("\n")
}
