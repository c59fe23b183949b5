//! A pull request at the local git host, as its author and its visitors see it.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use xtask::sample::{self, Files};

use crate::progress;
use crate::stack::Stack;

/// How long removing may take: a grace period, hooks, and the machine.
const REMOVAL: Duration = Duration::from_secs(120);

/// One pull request.
pub struct PullRequest<'s> {
    stack: &'s Stack,
    repo: String,
    branch: String,
    number: i64,
    head: String,
}

impl<'s> PullRequest<'s> {
    /// Commits `files` to a new branch off `main` and opens it.
    pub async fn open(stack: &'s Stack, repo: &str, branch: &str, files: &Files) -> Self {
        let head = stack.host.commit(repo, branch, Some("main"), &sample::borrow(files), "A first commit").await;
        let number = stack.host.open_pull_request(repo, branch, &format!("The branch {branch}")).await;
        Self { stack, repo: repo.to_owned(), branch: branch.to_owned(), number, head }
    }

    /// A further commit.
    pub async fn push(&mut self, files: &Files) {
        self.head = self.stack.host.commit(&self.repo, &self.branch, None, &sample::borrow(files), "One more").await;
    }

    /// Closes it without merging.
    pub async fn close(&self) {
        self.stack.host.close_pull_request(&self.repo, self.number).await;
    }

    /// Gives it these labels and no others.
    pub async fn label(&self, labels: &[&str]) {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        self.stack.host.change(&self.repo, self.number, |pull| pull.labels = labels);
        self.stack.host.deliver_pull_request(&self.repo, self.number, "labeled").await;
    }

    /// Waits until its newest delivery was ignored for a reason that names `why`.
    pub async fn ignored(&self, why: &str, limit: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + limit;
        loop {
            let deliveries = self.stack.call(Method::GET, "/deliveries", None).await?;
            let ours = deliveries["items"].as_array().into_iter().flatten();
            let newest = ours.into_iter().find(|delivery| delivery["pr"] == json!(self.number));
            let newest = newest.cloned().unwrap_or_default();
            if newest["decision"] == "ignored" && newest["reason"].as_str().is_some_and(|reason| reason.contains(why)) {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("the delivery of #{} was not ignored for {why}: {newest}", self.number);
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Our comment as it stands; empty before there is one.
    pub fn comment(&self) -> String {
        self.stack.host.comments(&self.repo, self.number).first().map(|one| one.body.clone()).unwrap_or_default()
    }

    /// The preview's root host; empty before it is known.
    pub fn host(&self) -> String {
        let body = self.comment();
        let url = body.lines().find_map(|line| line.strip_prefix("**")?.strip_suffix("**")).unwrap_or_default();
        url.trim_start_matches("http://").split(':').next().unwrap_or_default().to_owned()
    }

    /// Waits until the comment tells the outcome of the head commit, says each step of it, and returns it.
    pub async fn outcome(&self, limit: Duration) -> anyhow::Result<String> {
        let mut last = String::new();
        let head: String = self.head.chars().take(12).collect();
        self.wait("an outcome", limit, |body| {
            if let Some(line) = body.lines().find(|line| line.starts_with("### ")).filter(|line| **line != last) {
                progress(format!("  comment: {}", line.trim_start_matches('#').trim()));
                last = line.to_owned();
            }
            let told = body.contains("Preview: Live") || body.contains("Preview: Failed");
            told && body.contains(&head)
        })
        .await
    }

    /// Waits until the head commit is live; the preview's root host.
    pub async fn live(&self, limit: Duration) -> anyhow::Result<String> {
        let body = self.outcome(limit).await?;
        if !body.contains("Preview: Live") {
            bail!("the preview failed:\n{body}");
        }
        Ok(self.host())
    }

    /// Waits until the head commit has failed; the comment.
    pub async fn failed(&self, limit: Duration) -> anyhow::Result<String> {
        let body = self.outcome(limit).await?;
        if !body.contains("Preview: Failed") {
            bail!("the preview did not fail:\n{body}");
        }
        Ok(body)
    }

    /// Waits until the comment says `what`.
    pub async fn says(&self, what: &str, limit: Duration) -> anyhow::Result<String> {
        self.wait(what, limit, |body| body.contains(what)).await
    }

    /// Closes it, and waits until the comment says that the preview is gone and none of its machines is left.
    pub async fn close_and_see_it_go(&self) -> anyhow::Result<()> {
        self.close().await;
        self.says("Preview: Removed", REMOVAL).await?;
        self.no_machine(REMOVAL).await
    }

    /// Puts it to sleep, and waits until it is.
    pub async fn sleep(&self) -> anyhow::Result<()> {
        let environment = self.environment().await?.unwrap_or_default();
        let id = environment["id"].as_str().context("there is no environment")?;
        self.stack.call(Method::POST, &format!("/environments/{id}/sleep"), None).await?;
        self.says("Preview: Asleep", REMOVAL).await.map(drop)
    }

    /// Waits until the environment has no machine.
    pub async fn no_machine(&self, limit: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + limit;
        loop {
            let machine = match self.environment().await? {
                Some(environment) => environment["machine"].clone(),
                None => Value::Null,
            };
            if machine.is_null() || machine["state"] == json!("gone") {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("#{} still has a machine after {} s: {machine}", self.number, limit.as_secs());
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// The newest run with its timeline; null before there is one.
    pub async fn run(&self) -> anyhow::Result<Value> {
        let Some(environment) = self.environment().await? else { return Ok(Value::Null) };
        let Some(run) = environment["latest_run"]["id"].as_str() else { return Ok(Value::Null) };
        self.stack.call(Method::GET, &format!("/runs/{run}"), None).await
    }

    /// Whether an image is being built for the newest run.
    pub async fn building(&self) -> anyhow::Result<bool> {
        let run = self.run().await?;
        Ok(run["builds"].as_array().into_iter().flatten().any(|build| build["state"] == json!("building")))
    }

    /// The environment as the API tells it.
    pub async fn environment(&self) -> anyhow::Result<Option<Value>> {
        let list = self.stack.call(Method::GET, &format!("/environments?gone=true&pr={}", self.number), None).await?;
        // Another repository's pull request may have the same number.
        let ours = list["items"].as_array().into_iter().flatten().find(|one| one["repo"] == json!(self.repo));
        let Some(id) = ours.and_then(|one| one["id"].as_str()) else { return Ok(None) };
        self.stack.call(Method::GET, &format!("/environments/{id}"), None).await.map(Some)
    }

    async fn wait(&self, what: &str, limit: Duration, mut seen: impl FnMut(&str) -> bool) -> anyhow::Result<String> {
        let until = Instant::now() + limit;
        loop {
            let body = self.comment();
            if seen(&body) {
                return Ok(body);
            }
            if Instant::now() > until {
                bail!("no {what} after {} s; the comment of #{} says:\n{body}", limit.as_secs(), self.number);
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}
