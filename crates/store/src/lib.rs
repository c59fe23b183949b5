//! The only crate that speaks SQL.
//!
//! Reads are methods of [`Store`]; writes are methods of [`Tx`], a short transaction. A reconciler's
//! `Tx` is begun with [`Store::fenced`], so that each of its writes starts with the check that it still
//! holds the lease (docs/architecture.md, invariant 5). A few writes need no transaction and are methods of
//! [`Store`] too: each is a single statement that may be lost or repeated without harm ([`Store::touch_token`],
//! [`Store::touch_agents`], [`Store::ensure_installation`], [`Store::ensure_partitions`], [`Store::note_sweep`], [`Store::forget_blind`],
//! [`Store::notify_logs`]). Migrations are the other exception. Rows are read through sea-orm entities that do not
//! leave this crate; one file per aggregate holds its methods and its types.

pub mod accounts;
pub mod agents;
mod api_tokens;
mod audit;
pub mod builds;
pub mod certificates;
mod costs;
mod desired;
mod entity;
pub mod environments;
mod error;
pub mod images;
mod inbox;
mod logs;
pub mod machines;
mod notify;
mod outcome;
pub mod posts;
pub mod routes;
pub mod runs;
mod scope;
pub mod seal;
mod statement;
pub mod sweeps;
pub mod tenants;
#[cfg(feature = "testing")]
pub mod testing;
mod tx;
mod views;
mod word;
pub mod work;

pub use api_tokens::{Authorized, NewApiToken};
pub use audit::AuditEntry;
pub use costs::DayCost;
pub use desired::{Power, Presence};
pub use error::StoreError;
pub use inbox::{Delivery, DeliveryDecision, NewDelivery, Received};
pub use logs::{LogEntry, LogOwner, LogPage, LogRow, LogStream};
pub use notify::Notice;
pub use outcome::Outcome;
pub use scope::Scope;
pub use stagely_reconcile::Fence;
pub use tx::Tx;
pub use views::{BuildView, EnvironmentFilter, EnvironmentView, MachineView, RouteView, RunView, StatusCounts};

use sea_orm::{DatabaseConnection, SqlxPostgresConnector};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// Every migration, both directions, compiled in.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations");

/// A result of this crate.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    db: DatabaseConnection,
    // Listeners, which end with their receiver or their token.
    tasks: TaskTracker,
}

impl Store {
    /// Connects with a pool of at most `max_connections`.
    ///
    /// # Errors
    /// [`StoreError::Connect`] when the address is malformed or nobody answers within 10 s.
    pub async fn connect(url: &str, max_connections: u32) -> Result<Self> {
        let options: PgConnectOptions = url.parse().map_err(StoreError::Connect)?;
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(options)
            .await
            .map_err(StoreError::Connect)?;
        Ok(Self { db: SqlxPostgresConnector::from_sqlx_postgres_pool(pool), tasks: TaskTracker::new() })
    }

    /// Brings the schema up to date.
    ///
    /// # Errors
    /// [`StoreError::Migrate`] with the migration that failed.
    pub async fn migrate_up(&self) -> Result<()> {
        MIGRATIONS.run(self.pool()).await.map_err(StoreError::Migrate)
    }

    /// Undoes every migration newer than `target` (a version: the number before the name); 0 undoes all.
    ///
    /// # Errors
    /// [`StoreError::Migrate`] with the migration that failed.
    pub async fn migrate_down(&self, target: i64) -> Result<()> {
        MIGRATIONS.undo(self.pool(), target).await.map_err(StoreError::Migrate)
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// The database's error.
    pub async fn ping(&self) -> Result<()> {
        self.db.ping().await.map_err(|source| StoreError::query("ping the database", source))
    }

    /// Makes next months' partitions of the append-only tables. Safe to repeat.
    ///
    /// # Errors
    /// The database's error.
    pub async fn ensure_partitions(&self) -> Result<()> {
        let sql = "SELECT ensure_month_partitions(parent, 2) \
                   FROM unnest(ARRAY['build_logs', 'audit_logs', 'cost_entries']) AS parent";
        self.run("make partitions", sql, []).await.map(drop)
    }

    fn pool(&self) -> &sqlx::PgPool {
        self.db.get_postgres_connection_pool()
    }
}
