//! The keyed work queue: eight raw statements, checked in `tests/work.rs`. One row per resource, so a thousand
//! wakes are one row and no two replicas work on one resource at a time. Only Postgres' `now()` decides.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sea_orm::Value;
use stagely_reconcile::{Claim, Fence, Next, WorkError, WorkStore};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::statement::Row;
use crate::{Result, Store, StoreError, Tx};

/// The kinds of work, and what their keys are.
pub mod kind {
    /// An environment; its id.
    pub const ENVIRONMENT: &str = "environment";
    /// A machine; its id.
    pub const MACHINE: &str = "machine";
    /// A golden image; its id.
    pub const IMAGE: &str = "image";
    /// An environment's routes in Redis; its id, or nil for all.
    pub const ROUTE: &str = "route";
    /// A post at the git host; its id.
    pub const POST: &str = "post";
    /// A webhook delivery; its id.
    pub const INBOX: &str = "inbox";
    /// A project's builds and builders; the project's id.
    pub const FLEET: &str = "fleet";
    /// A cloud account; its id.
    pub const SWEEP: &str = "sweep";

    /// All of them.
    pub const ALL: [&str; 8] = [ENVIRONMENT, MACHINE, IMAGE, ROUTE, POST, INBOX, FLEET, SWEEP];
}

impl Tx {
    /// Makes a resource due at once, when this transaction commits.
    ///
    /// # Errors
    /// The database's error.
    pub async fn wake(&self, kind: &'static str, key: Uuid) -> Result<()> {
        self.run(
            "wake",
            "INSERT INTO work (kind, key, run_after) VALUES ($1, $2, now()) \
             ON CONFLICT (kind, key) DO UPDATE SET wake_seq = work.wake_seq + 1, \
             run_after = least(work.run_after, excluded.run_after), parked = false",
            [kind.into(), key.into()],
        )
        .await?;
        self.run("notify", "SELECT pg_notify('work_' || $1, '')", [kind.into()]).await?;
        Ok(())
    }
}

/// The queue in Postgres. Wake-ups come from [`PgWork::listen`], which must be running for claims to be prompt.
pub struct PgWork {
    store: Store,
    signals: Mutex<HashMap<&'static str, Arc<Notify>>>,
}

impl PgWork {
    /// The queue of `store`'s database.
    #[must_use]
    pub fn new(store: Store) -> Arc<Self> {
        Arc::new(Self { store, signals: Mutex::default() })
    }

    /// Turns notifications into wake-ups until shutdown. A lost connection is reopened, and counts as a wake of
    /// everything, since notifications may have been missed.
    pub async fn listen(self: Arc<Self>, shutdown: CancellationToken) {
        let channels: Vec<String> = kind::ALL.iter().map(|kind| format!("work_{kind}")).collect();
        let channels: Vec<&str> = channels.iter().map(String::as_str).collect();
        let mut notices = self.store.listen(&channels, shutdown);
        while let Some(notice) = notices.recv().await {
            let woken = kind::ALL.into_iter().filter(|kind| notice.concerns(&format!("work_{kind}")));
            woken.for_each(|kind| self.wake_signal(kind).notify_waiters());
        }
    }

    /// Runs one statement; the number of rows it changed.
    async fn run(
        &self,
        doing: &'static str,
        sql: &'static str,
        values: Vec<Value>,
    ) -> std::result::Result<u64, WorkError> {
        self.store.run(doing, sql, values).await.map_err(|error| failed(doing, error))
    }
}

#[async_trait]
impl WorkStore for PgWork {
    async fn claim(
        &self,
        kind: &'static str,
        owner: &str,
        limit: u32,
        lease: Duration,
    ) -> std::result::Result<Vec<Claim>, WorkError> {
        let doing = "claim";
        let sql = "WITH due AS (SELECT kind, key FROM work WHERE kind = $1 AND NOT parked AND run_after <= now() \
                   AND not_before <= now() AND lease_until <= now() \
                   ORDER BY run_after LIMIT $2 FOR UPDATE SKIP LOCKED) \
                   UPDATE work SET lease_owner = $3, lease_until = now() + make_interval(secs => $4), \
                   epoch = epoch + 1, claimed_seq = wake_seq, attempt = attempt + 1 \
                   FROM due WHERE work.kind = due.kind AND work.key = due.key \
                   RETURNING work.key, work.epoch, work.attempt";
        let values = [kind.into(), i64::from(limit).into(), owner.into(), lease.as_secs_f64().into()];
        let rows = self.store.rows(doing, sql, values).await.map_err(|error| failed(doing, error))?;
        rows.iter().map(|row| claim(kind, row)).collect::<Result<_>>().map_err(|error| failed(doing, error))
    }

    async fn renew(&self, fence: &Fence, lease: Duration) -> std::result::Result<bool, WorkError> {
        let sql = "UPDATE work SET lease_until = now() + make_interval(secs => $4) \
                   WHERE kind = $1 AND key = $2 AND epoch = $3 AND lease_until > now()";
        let mut values = held(fence);
        values.push(lease.as_secs_f64().into());
        Ok(self.run("renew", sql, values).await? == 1)
    }

    async fn finish(&self, fence: &Fence, next: &Next) -> std::result::Result<bool, WorkError> {
        let mut values = held(fence);
        let sql = match next {
            Next::Done { again_in } => {
                values.push(again_in.map(|after| after.as_secs_f64()).into());
                "UPDATE work SET lease_owner = NULL, lease_until = '-infinity', attempt = 0, last_error = NULL, \
                 not_before = '-infinity', run_after = CASE WHEN wake_seq > claimed_seq THEN now() \
                 ELSE coalesce(now() + make_interval(secs => $4), 'infinity') END \
                 WHERE kind = $1 AND key = $2 AND epoch = $3"
            }
            Next::Retry { after, error, counts } => {
                values.extend([after.as_secs_f64().into(), bounded(error).into(), i32::from(!counts).into()]);
                "UPDATE work SET lease_owner = NULL, lease_until = '-infinity', last_error = $5, \
                 attempt = greatest(attempt - $6, 0), \
                 not_before = now() + make_interval(secs => $4), run_after = CASE WHEN wake_seq > claimed_seq \
                 THEN now() ELSE now() + make_interval(secs => $4) END WHERE kind = $1 AND key = $2 AND epoch = $3"
            }
            Next::Park { error } => {
                values.push(bounded(error).into());
                "UPDATE work SET lease_owner = NULL, lease_until = '-infinity', last_error = $4, run_after = now(), \
                 attempt = 0, parked = (wake_seq = claimed_seq) WHERE kind = $1 AND key = $2 AND epoch = $3"
            }
        };
        Ok(self.run("finish", sql, values).await? == 1)
    }

    async fn give_back(&self, fence: &Fence) -> std::result::Result<(), WorkError> {
        let sql = "WITH freed AS (UPDATE work SET lease_owner = NULL, lease_until = '-infinity', run_after = now(), \
                   attempt = greatest(attempt - 1, 0) WHERE kind = $1 AND key = $2 AND epoch = $3 RETURNING kind) \
                   SELECT pg_notify('work_' || kind, '') FROM freed";
        self.run("give back", sql, held(fence)).await.map(drop)
    }

    fn wake_signal(&self, kind: &'static str) -> Arc<Notify> {
        Arc::clone(self.signals.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default())
    }
}

fn claim(kind: &'static str, row: &Row) -> Result<Claim> {
    let attempt: i32 = row.get("attempt")?;
    let fence = Fence { kind, key: row.get("key")?, epoch: row.get("epoch")? };
    Ok(Claim { fence, attempt: u32::try_from(attempt).unwrap_or(u32::MAX) })
}

fn held(fence: &Fence) -> Vec<Value> {
    vec![fence.kind.into(), fence.key.into(), fence.epoch.into()]
}

fn bounded(error: &str) -> String {
    error.chars().take(2000).collect()
}

fn failed(doing: &'static str, source: StoreError) -> WorkError {
    WorkError { doing, source: Box::new(source) }
}
