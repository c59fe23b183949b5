//! What comes up without a row: visits and wake-ups from the edge, pull requests that nobody told us of, and the
//! first wake of everything that must always be due.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use stagely_domain::error_chain::chain;
use stagely_domain::id::ProjectId;
use stagely_forge::{ErrorKind, FailedDelivery, PullRequest, Repo};
use stagely_reconcile::{ErrorClass, StepError};
use stagely_store::tenants::{Page, Project};
use stagely_store::work::kind;
use stagely_store::{Outcome, Power, Scope};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::context::{Context, forge_error, store_error};
use crate::pulls::{self, Decision};

const EDGE: Duration = Duration::from_millis(250);
/// How often every account's sweep is made due, whoever forgot to.
const SWEEPS: Duration = Duration::from_secs(3600);
const SCAN: Duration = Duration::from_secs(300);
/// How long GitHub keeps deliveries (its documentation of webhooks says three days).
const REMEMBERED: TimeDelta = TimeDelta::days(3);
/// After so many tries in all a delivery is left to the scan.
const ATTEMPTS: u32 = 5;

/// Makes due what must always be: the whole copy of the routes, every account's sweep, every live environment.
pub async fn wake_all(context: &Context) -> Result<(), StepError> {
    let doing = "wake what must be due";
    let scope = Scope::system(doing);
    wake_each_sweep(context).await.map_err(store_error(doing))?;
    let environments = context.store.list_live_environments(&scope).await.map_err(store_error(doing))?;
    let tx = context.store.begin().await.map_err(store_error(doing))?;
    tx.wake(kind::ROUTE, Uuid::nil()).await.map_err(store_error(doing))?;
    for env in environments {
        tx.wake(kind::ENVIRONMENT, env.id.uuid()).await.map_err(store_error(doing))?;
    }
    tx.commit().await.map_err(store_error(doing))
}

/// Makes every account's sweep due, every hour until shutdown: an account whose sweep nobody woke would never be swept.
pub async fn wake_sweeps(context: Arc<Context>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(SWEEPS) => {}
            () = shutdown.cancelled() => return,
        }
        if let Err(error) = wake_each_sweep(&context).await {
            tracing::warn!(error = %chain(&error), "the accounts' sweeps were not woken");
        }
    }
}

async fn wake_each_sweep(context: &Context) -> stagely_store::Result<()> {
    let accounts = context.store.list_cloud_accounts(&Scope::system("wake sweeps")).await?;
    let tx = context.store.begin().await?;
    for account in accounts {
        tx.wake(kind::SWEEP, account.id.uuid()).await?;
    }
    tx.commit().await
}

/// Turns the edge's hints into rows until shutdown.
pub async fn follow_edge(context: Arc<Context>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(EDGE) => {}
            () = shutdown.cancelled() => return,
        }
        // Redis may be away, and then there are no hints.
        let wakes = context.cache.list_wakes().await.unwrap_or_default();
        let seen = context.cache.list_seen().await.unwrap_or_default();
        if wakes.is_empty() && seen.is_empty() {
            continue;
        }
        let stored = async {
            let tx = context.store.begin().await?;
            for env in &wakes {
                if tx.wish_power(*env, Power::Awake).await? == Outcome::Written {
                    tx.wake(kind::ENVIRONMENT, env.uuid()).await?;
                }
            }
            for (env, at) in &seen {
                tx.touch_environment(*env, *at).await?;
            }
            tx.commit().await
        };
        match stored.await {
            // Forgotten only after the commit; a failure here repeats what changes nothing.
            Ok(()) => {
                let seen: Vec<_> = seen.iter().map(|(env, _)| *env).collect();
                let _ = context.cache.forget_wakes(&wakes).await;
                let _ = context.cache.forget_seen(&seen).await;
            }
            Err(error) => tracing::warn!(error = %chain(&error), "the edge's hints could not be stored yet"),
        }
    }
}

/// Asks the git host for the webhooks that we never took, every five minutes until shutdown: the host does not send
/// them again by itself.
pub async fn redeliver_lost(context: Arc<Context>, shutdown: CancellationToken) {
    loop {
        match context.forge.list_failed_deliveries(context.clock.now() - REMEMBERED).await {
            Ok(lost) => redeliver(&context, lost).await,
            // Only an App may ask; with a token the scan has to do.
            Err(error) if error.kind == ErrorKind::Invalid => return,
            Err(error) => tracing::warn!(%error, "lost deliveries were not asked for"),
        }
        tokio::select! {
            () = tokio::time::sleep(SCAN) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// One more try for each delivery that got no answer, or that we could not store. One that comes twice changes nothing:
/// deliveries are known by their ids.
async fn redeliver(context: &Context, lost: Vec<FailedDelivery>) {
    let refused = |delivery: &FailedDelivery| (400..500).contains(&delivery.status);
    for lost in lost.iter().filter(|delivery| !refused(delivery) && delivery.attempts < ATTEMPTS) {
        match context.forge.redeliver(lost.id).await {
            Ok(()) => tracing::info!(guid = %lost.guid, event = lost.event, "asked for a lost delivery again"),
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(guid = %lost.guid, %error, "a lost delivery was not asked for again");
                if matches!(error.kind, ErrorKind::RateLimited { .. }) {
                    return;
                }
            }
        }
    }
}

/// Looks for open pull requests without an environment, every five minutes until shutdown.
pub async fn scan_pull_requests(context: Arc<Context>, shutdown: CancellationToken) {
    let mut scan = Scan::new(context);
    loop {
        if let Err(error) = scan.run().await {
            tracing::warn!(error = error.chain(), "open pull requests could not be compared");
        }
        tokio::select! {
            () = tokio::time::sleep(SCAN) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// A look at every open pull request, and a memory of those that want no preview: they are asked again only when
/// something about them has changed.
pub struct Scan {
    context: Arc<Context>,
    unwanted: HashMap<(ProjectId, i64), PullRequest>,
}

impl Scan {
    /// One that remembers nothing.
    pub fn new(context: Arc<Context>) -> Self {
        Self { context, unwanted: HashMap::new() }
    }

    /// Makes an environment for every pull request that is to have one. What cannot be read hides nothing else.
    pub async fn run(&mut self) -> Result<(), StepError> {
        let doing = "scan pull requests";
        let before = std::mem::take(&mut self.unwanted);
        let mut after = None;
        loop {
            let page = Page { limit: 100, after };
            let scope = Scope::system(doing);
            let projects = self.context.store.list_projects(&scope, page).await.map_err(store_error(doing))?;
            let Some(last) = projects.last() else { return Ok(()) };
            after = Some(last.id.uuid());
            for project in &projects {
                if let Err(error) = self.look_at_project(project, &before).await {
                    tracing::warn!(project.id = %project.id, error = error.chain(), "{} was not scanned", project.id);
                }
            }
        }
    }

    async fn look_at_project(
        &mut self,
        project: &Project,
        before: &HashMap<(ProjectId, i64), PullRequest>,
    ) -> Result<(), StepError> {
        let doing = "scan a repository";
        let Ok(repo) = project.repo.parse() else { return Ok(()) };
        // A fork's needs approval, whatever its head says.
        let open = self.context.forge.list_open_pull_requests(&repo).await.map_err(forge_error(doing))?;
        for pull in open.into_iter().filter(|pull| !pull.from_fork) {
            let key = (project.id, pull.number);
            if before.get(&key) == Some(&pull) {
                self.unwanted.insert(key, pull);
                continue;
            }
            match self.take_up(project, &repo, pull.clone()).await {
                Ok(true) => {}
                Ok(false) => drop(self.unwanted.insert(key, pull)),
                // The others would be refused too, and count against us.
                Err(error) if matches!(error.class, ErrorClass::RateLimited { .. }) => return Err(error),
                Err(error) => {
                    let error = error.chain();
                    tracing::warn!(project.id = %project.id, error, "pull request {} was not looked at", pull.number);
                }
            }
        }
        Ok(())
    }

    /// Whether the pull request has an environment now.
    async fn take_up(&self, project: &Project, repo: &Repo, pull: PullRequest) -> Result<bool, StepError> {
        let (doing, number, context) = ("take a pull request up", pull.number, &self.context);
        if context.store.find_environment(project.id, number).await.map_err(store_error(doing))?.is_some() {
            return Ok(true);
        }
        let seen = pulls::evaluate(context, repo, pull).await?;
        let tx = context.store.begin().await.map_err(store_error(doing))?;
        let verdict = pulls::apply(context, &tx, project, number, seen).await?;
        tx.commit().await.map_err(store_error(doing))?;
        let is_applied = verdict.decision == Decision::Applied;
        if is_applied {
            tracing::info!(project.id = %project.id, "pull request {number} was not told of: {}", verdict.reason);
        }
        Ok(is_applied)
    }
}
