//! The story that Stagely is for, on this machine: a pull request becomes a live URL, and leaves nothing.

use std::time::Duration;

use anyhow::{bail, ensure};
use reqwest::Method;
use serde_json::json;
use tokio::time::{Instant, sleep};
use xtask::{registry, sample};

use crate::artifacts::Beside;
use crate::control_plane::Mode;
use crate::pull_request::PullRequest;
use crate::stack::Stack;
use crate::{machine, print_result, progress, rows, services};

/// The repository of the story.
pub const REPO: &str = "octo/guestbook";

/// How long a first push may take: three images from nothing, under software emulation.
const COLD: Duration = Duration::from_secs(1800);
const WARM: Duration = Duration::from_secs(600);

/// Tells the story; with `once` to its end, else until Ctrl-C.
pub async fn run(once: bool, mode: Mode) -> anyhow::Result<()> {
    on_a_stack(mode, Beside::Nothing, async |stack| {
        let mut pull = first_push(stack).await?;
        second_push(stack, &mut pull).await?;
        progress(format!("the pull request says:\n{}", indented(&pull.comment())));
        if !once {
            progress(format!("everything runs until Ctrl-C; the git host is {}", stack.host.api_url()));
            // Only Ctrl-C ends this, and it ends the whole story.
            return std::future::pending().await;
        }
        last(stack, &pull).await
    })
    .await
}

/// Does something with a fresh stack and ends the stack whatever comes of it.
pub async fn on_a_stack(
    mode: Mode,
    beside: Beside,
    work: impl AsyncFnOnce(&Stack) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let stack = Stack::start(mode, beside).await?;
    let outcome = unless_interrupted(work(&stack)).await;
    let state = stack.state.clone();
    stack.stop().await;
    // Machines outlive their control plane by design; those of a demonstration end with it.
    machine::clear(&state);
    outcome
}

/// Works until it is done or somebody wants it to end; what is to be cleared away afterwards is cleared in both cases.
pub async fn unless_interrupted<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::select! {
        outcome = work => outcome,
        () = interrupted() => Err(anyhow::anyhow!("interrupted")),
    }
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

/// Sets the project up and opens its first pull request; ends when its page shows rows of the database.
pub async fn first_push(stack: &Stack) -> anyhow::Result<PullRequest<'_>> {
    set_up(stack).await?;
    let opened = Instant::now();
    let pull = PullRequest::open(stack, REPO, "greeting", &sample::with_version("one")).await;
    let preview = pull.live(COLD).await?;
    let taken = opened.elapsed();
    let (status, page) = stack.visit(&preview, "/").await?;
    let from_database = page.contains(sample::FIRST_ITEM) && sample::shows_version(&page, "one");
    ensure!(status == 200 && from_database, "the page is not made of the database's rows: {status} {page}");
    print_result(format!("preview ready: {}", stack.url(&preview)));
    waterfall(&pull, "first push (machine templates are there, no image was ever built)", taken).await?;
    Ok(pull)
}

/// The account, the sample's repository and its project, and the machine templates.
pub async fn set_up(stack: &Stack) -> anyhow::Result<()> {
    let account = json!({"name": "metal", "kind": "qemu"});
    stack.call(Method::POST, "/cloud-accounts", Some(account)).await?;
    let files = sample::files(&crate::workspace())?;
    stack.host.create_repo(REPO, &sample::borrow(&files)).await;
    create_project(stack, REPO).await?;
    stack.warm().await
}

/// Lets Stagely watch a repository, with the one cloud account.
pub async fn create_project(stack: &Stack, repo: &str) -> anyhow::Result<()> {
    let accounts = stack.call(Method::GET, "/cloud-accounts", None).await?;
    let project = json!({"repo": repo, "cloud_account": accounts["items"][0]["id"]});
    stack.call(Method::POST, "/projects", Some(project)).await.map(drop)
}

/// An entry, a second commit: its content is live, and the entry is still there.
pub async fn second_push(stack: &Stack, pull: &mut PullRequest<'_>) -> anyhow::Result<()> {
    let preview = pull.host();
    let sent = stack.submit(&preview, "/api/items", "text=Kept+over+the+push").await?;
    ensure!((200..400).contains(&sent), "an entry was not taken: {sent}");
    let pushed = Instant::now();
    pull.push(&sample::with_version("two")).await;
    pull.live(WARM).await?;
    let taken = pushed.elapsed();
    let (_, page) = stack.visit(&preview, "/").await?;
    ensure!(sample::shows_version(&page, "two"), "the page does not show the second commit: {page}");
    ensure!(page.contains("Kept over the push"), "the data was not kept over the push: {page}");
    print_result("second commit is live, with the same data");
    waterfall(pull, "second push (the machine runs, builds have their cache)", taken).await
}

/// Closes the pull request, which is the last one open; ends when nothing that is looked at is left.
pub async fn last(stack: &Stack, pull: &PullRequest<'_>) -> anyhow::Result<()> {
    let preview = pull.host();
    pull.close().await;
    nothing_left(stack, pull, &preview).await?;
    let violations = stack.host.violations();
    ensure!(violations.is_empty(), "requests outside GitHub's document: {violations:?}");
    print_result(
        "closed: no process, directory or disk of a machine and no tag in the registry is left; the URL answers 410",
    );
    let tables = rows::OPEN.map(|(table, _)| table).join(", ");
    print_result(format!("closed: no open row of any team in {tables} (sweeps and the look at all routes go on)"));
    print_result("closed: every route in Redis is marked as gone and leads to no machine");
    Ok(())
}

/// The newest run's phases.
pub async fn waterfall(pull: &PullRequest<'_>, title: &str, whole: Duration) -> anyhow::Result<()> {
    progress(format!("{title}: {:.1} s from push to URL", whole.as_secs_f64()));
    for phase in pull.run().await?["timeline"].as_array().into_iter().flatten() {
        if let (Some(name), Some(ms)) = (phase["name"].as_str(), phase["ms"].as_u64()) {
            progress(format!("  {name:<10} {:>8.2} s", Duration::from_millis(ms).as_secs_f64()));
        }
    }
    Ok(())
}

/// Waits until no trace of any pull request is left but what each was told, and rows that are over.
async fn nothing_left(stack: &Stack, pull: &PullRequest<'_>, preview: &str) -> anyhow::Result<()> {
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
        left.extend(rows::left(&stack.services).await?);
        if !pull.comment().contains("Preview: Removed") {
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

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  | {line}")).collect::<Vec<_>>().join("\n")
}
