//! What a replica does beside serving: take changes down to its connections, renew leases, tell of logs.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use stagely_domain::error_chain::chain;
use stagely_store::agents::AgentChange;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::connections::{Command, Goodbye};
use crate::hub::Hub;

/// The net under notifications.
const POLL: Duration = Duration::from_secs(1);
/// How often leases are renewed at most.
const TOUCH: Duration = Duration::from_secs(10);
/// How often readers of logs are woken at most.
const LOG_NOTICE: Duration = Duration::from_millis(100);
/// Wishes fetched at once.
const FETCHES: usize = 8;
/// Leases renewed by one statement.
const TOUCH_BATCH: usize = 5000;

/// Turns notifications of other replicas into looks.
pub async fn listen(hub: Arc<Hub>, shutdown: CancellationToken) {
    let mut notices = hub.store.listen(&["agent_desired"], shutdown);
    while notices.recv().await.is_some() {
        hub.changed.notify_one();
    }
}

/// Looks for newer wishes, newer connections and ends, at once when told and every second anyway.
pub async fn push_changes(hub: Arc<Hub>, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        tokio::select! {
            () = hub.changed.notified() => {}
            () = sleep(POLL) => {}
            () = shutdown.cancelled() => return,
        }
        let started = Instant::now();
        push_once(&hub).await;
        // A storm of notifications must not turn into a storm of looks: rest as long as a look takes.
        sleep_until(started + started.elapsed() * 2).await;
    }
}

async fn push_once(hub: &Arc<Hub>) {
    let held = hub.connections.watches();
    if held.is_empty() {
        return;
    }
    match hub.store.list_agent_changes(&held).await {
        Ok(changes) => {
            futures::stream::iter(changes).for_each_concurrent(FETCHES, |change| pass_on(hub, change)).await;
        }
        Err(error) => tracing::warn!(error = %chain(&error), "cannot look for changes of agents"),
    }
}

async fn pass_on(hub: &Arc<Hub>, change: AgentChange) {
    let Some(connection) = hub.connections.find(change.machine) else { return };
    if !change.wanted {
        connection.tell(Command::Close(Goodbye::Unwanted));
    } else if change.conn_epoch > connection.conn_epoch {
        connection.tell(Command::Close(Goodbye::Replaced));
    } else {
        match hub.load_wish(change.machine).await {
            Ok(Some(wish)) => {
                let generation = wish.generation;
                if connection.tell(Command::Wish(Box::new(wish))) {
                    connection.told(generation);
                }
            }
            Ok(None) => {}
            Err(error) => {
                let machine = change.machine;
                tracing::error!(machine.id = %machine, error = %chain(&error), "the wish of {machine} cannot be sent");
            }
        }
    }
}

/// Renews the leases of machines that were heard of.
pub async fn renew_leases(hub: Arc<Hub>, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        tokio::select! {
            () = sleep(TOUCH) => {}
            () = shutdown.cancelled() => return,
        }
        for batch in hub.connections.take_heard().chunks(TOUCH_BATCH) {
            if let Err(error) = hub.store.touch_agents(batch).await {
                tracing::warn!(error = %chain(&error), agents = batch.len(), "leases were not renewed");
            }
        }
    }
}

/// Tells readers that logs have grown; many appends are one notice.
pub async fn notify_log_readers(hub: Arc<Hub>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = hub.logged.notified() => {}
            () = shutdown.cancelled() => return,
        }
        if let Err(error) = hub.store.notify_logs().await {
            tracing::debug!(error = %chain(&error), "readers of logs were not woken");
        }
        // Cut short by shutdown; the readers poll anyway.
        let _ = timeout(LOG_NOTICE, shutdown.cancelled()).await;
    }
}

/// Ends every connection, spread over the configured time so that the agents do not come back all at once.
pub async fn drain(hub: &Arc<Hub>) {
    let connections = hub.connections.all();
    let Ok(count) = u32::try_from(connections.len()) else { return };
    if count == 0 {
        return;
    }
    let step = Duration::from_secs(u64::from(hub.config.drain_secs)) / count;
    // Few connections need no spreading.
    let step = step.min(Duration::from_millis(20));
    for (index, connection) in connections.iter().enumerate() {
        let retry_after = u32::try_from(index % 5).unwrap_or(0) + 1;
        connection.tell(Command::Close(Goodbye::Restart(if count < 20 { 1 } else { retry_after })));
        sleep(step).await;
    }
}
