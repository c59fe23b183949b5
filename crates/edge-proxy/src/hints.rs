//! Hints to the control plane: who was visited, who is to wake. Gathered in memory and sent by one task, so that no
//! request waits for Redis.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use stagely_cache::Cache;
use stagely_domain::clock::Clock;
use stagely_domain::error_chain::chain;
use stagely_domain::id::EnvironmentId;
use tokio_util::sync::CancellationToken;

/// How often hints are sent.
const EVERY: Duration = Duration::from_millis(200);

/// What is to be sent. A set each, so it is bounded by the number of environments.
#[derive(Default)]
pub struct Hints {
    seen: Mutex<HashSet<EnvironmentId>>,
    wakes: Mutex<HashSet<EnvironmentId>>,
}

impl Hints {
    /// A visitor was there.
    pub fn seen(&self, environment: EnvironmentId) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(environment);
    }

    /// A visitor waits for it to wake.
    pub fn wake(&self, environment: EnvironmentId) {
        self.wakes.lock().unwrap_or_else(PoisonError::into_inner).insert(environment);
    }

    /// Sends until shutdown. What Redis did not take is lost: the next visit says it again.
    pub async fn send(self: Arc<Self>, cache: Cache, clock: Arc<dyn Clock>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = shutdown.cancelled() => return,
            }
            let take = |set: &Mutex<HashSet<EnvironmentId>>| -> Vec<EnvironmentId> {
                set.lock().unwrap_or_else(PoisonError::into_inner).drain().collect()
            };
            for environment in take(&self.wakes) {
                if let Err(error) = cache.request_wake(environment).await {
                    tracing::warn!(env.id = %environment, error = %chain(&error), "a wake-up was not passed on");
                }
            }
            let seen = take(&self.seen);
            if let Err(error) = cache.touch_seen(&seen, clock.now()).await {
                tracing::debug!(error = %chain(&error), "visits were not noted");
            }
        }
    }
}
