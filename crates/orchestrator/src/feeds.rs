//! What comes up without a row: visits and wake-ups from the edge, pull requests that nobody told us of, and the
//! first wake of everything that must always be due.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use stagely_forge::ErrorKind;
use stagely_reconcile::Failure;
use stagely_store::Scope;
use stagely_store::environments::{Outcome, Power};
use stagely_store::tenants::Page;
use stagely_store::work::kind;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::context::{Context, hosted, stored};
use crate::pulls;

const EDGE: Duration = Duration::from_millis(250);
const SCAN: Duration = Duration::from_secs(300);
/// How long GitHub keeps deliveries (its documentation of webhooks says three days).
const REMEMBERED: TimeDelta = TimeDelta::days(3);
/// After so many tries in all a delivery is left to the scan.
const ATTEMPTS: u32 = 5;

/// Makes due what must always be: the whole copy of the routes, every account's sweep, every live environment.
pub async fn wake_all(context: &Context) -> Result<(), Failure> {
    let doing = "wake what must be due";
    let scope = Scope::system(doing);
    let accounts = context.store.list_cloud_accounts(&scope).await.map_err(stored(doing))?;
    let environments = context.store.list_live_environments(&scope).await.map_err(stored(doing))?;
    let tx = context.store.begin().await.map_err(stored(doing))?;
    tx.wake(kind::ROUTE, Uuid::nil()).await.map_err(stored(doing))?;
    for account in accounts {
        tx.wake(kind::SWEEP, account.id.uuid()).await.map_err(stored(doing))?;
    }
    for env in environments {
        tx.wake(kind::ENVIRONMENT, env.id.uuid()).await.map_err(stored(doing))?;
    }
    tx.commit().await.map_err(stored(doing))
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
            Err(error) => tracing::warn!(%error, "the edge's hints could not be stored yet"),
        }
    }
}

/// Asks the git host for the webhooks that we never took, every five minutes until shutdown: the host does not send
/// them again by itself.
pub async fn redeliver_lost(context: Arc<Context>, shutdown: CancellationToken) {
    loop {
        match redeliver(&context).await {
            Ok(()) => {}
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

/// One more try for each delivery of the last days that got no answer, or that we could not store. One that comes
/// twice changes nothing: deliveries are known by their ids.
pub async fn redeliver(context: &Context) -> stagely_forge::Result<()> {
    for lost in context.forge.list_failed_deliveries(context.clock.now() - REMEMBERED).await? {
        let refused = (400..500).contains(&lost.status);
        if refused || lost.attempts >= ATTEMPTS {
            continue;
        }
        match context.forge.redeliver(lost.id).await {
            Ok(()) => tracing::info!(guid = %lost.guid, event = lost.event, "asked for a lost delivery again"),
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Looks for open pull requests without an environment, every five minutes until shutdown.
pub async fn scan_pull_requests(context: Arc<Context>, shutdown: CancellationToken) {
    loop {
        if let Err(failure) = scan(&context).await {
            tracing::warn!(error = failure.chain(), "open pull requests could not be compared");
        }
        tokio::select! {
            () = tokio::time::sleep(SCAN) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn scan(context: &Context) -> Result<(), Failure> {
    let doing = "scan pull requests";
    let mut after = None;
    loop {
        let page = Page { limit: 100, after };
        let projects = context.store.list_projects(&Scope::system(doing), page).await.map_err(stored(doing))?;
        let Some(last) = projects.last() else { return Ok(()) };
        after = Some(last.id.uuid());
        for project in &projects {
            let Ok(repo) = project.repo.parse() else { continue };
            let open = match context.forge.list_open_pull_requests(&repo).await.map_err(hosted(doing)) {
                Ok(open) => open,
                // One repository that cannot be read must not hide the others.
                Err(failure) => {
                    tracing::warn!(project.id = %project.id, error = failure.chain(), "{} was not scanned", project.id);
                    continue;
                }
            };
            for pull in open {
                let number = pull.number;
                if context.store.find_environment(project.id, number).await.map_err(stored(doing))?.is_some() {
                    continue;
                }
                let seen = pulls::look(context, &repo, pull).await?;
                let tx = context.store.begin().await.map_err(stored(doing))?;
                let verdict = pulls::apply(context, &tx, project, number, seen).await?;
                if verdict.applied {
                    tracing::info!(project.id = %project.id, "pull request {number} was not told of: {}", verdict.reason);
                }
                tx.commit().await.map_err(stored(doing))?;
            }
        }
    }
}
