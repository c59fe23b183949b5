//! What the database promises, asked of a real Postgres.
#![allow(clippy::unwrap_used)]

mod accounts;
mod costs;
mod history;
mod leases;
mod lifetimes;
mod migrations;
mod outages;
mod queue_model;
mod server;
mod sweeps;
mod tenants;
mod work;

use std::time::Duration;

/// Looks every 10 ms until `check` holds, at most ten seconds.
pub async fn wait_for<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !check().await {
        assert!(tokio::time::Instant::now() < deadline, "waited ten seconds for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How long a storm lasts: short in an ordinary run, `STORM_SECS=60` for one that is worth more.
#[expect(clippy::disallowed_methods, reason = "tests are configured by the environment")]
pub fn storm() -> Duration {
    let told = std::env::var("STORM_SECS").ok();
    Duration::from_secs(told.map_or(10, |secs| secs.parse().expect("STORM_SECS is a number")))
}
