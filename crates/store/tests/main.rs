//! What the database promises, asked of a real Postgres.
#![allow(clippy::unwrap_used)]

mod accounts;
mod costs;
mod leases;
mod lifetimes;
mod migrations;
mod queue_model;
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
