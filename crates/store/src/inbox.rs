//! Webhook deliveries. The API inserts them and reads them back for people; the orchestrator decides.

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbBackend, QueryResult, Statement};
use stagely_domain::id::DeliveryId;
use uuid::Uuid;

use crate::environments::Environment;
use crate::work::kind;
use crate::{Result, Scope, Store, StoreError, Tx};

/// A verified delivery, as received.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    /// The git host: `github`.
    pub source: &'static str,
    /// The host's id of the event; the same again when it is delivered again.
    pub guid: Uuid,
    /// `pull_request`, say.
    pub event: String,
    /// `opened`, say.
    pub action: Option<String>,
    /// `owner/name`.
    pub repo: Option<String>,
    /// The pull request's number.
    pub pr_number: Option<i64>,
    /// SHA-256 of `body`.
    pub body_sha256: [u8; 32],
    /// The raw bytes.
    pub body: Vec<u8>,
    /// Set when there is nothing to apply, with the reason; the delivery is then decided at once.
    pub ignored: Option<String>,
}

/// What became of an insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// It is new.
    Stored(DeliveryId),
    /// The same event was here before; nothing was written.
    Duplicate(DeliveryId),
}

/// What was decided about a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryDecision {
    /// `applied`, `ignored` or `failed`.
    pub verdict: String,
    /// Why, in a sentence.
    pub reason: String,
    /// When.
    pub at: Option<DateTime<Utc>>,
}

/// A delivery without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its id.
    pub id: DeliveryId,
    /// The git host.
    pub source: String,
    /// The host's id of the event.
    pub guid: Uuid,
    /// The kind of event.
    pub event: String,
    /// What happened.
    pub action: Option<String>,
    /// `owner/name`.
    pub repo: Option<String>,
    /// The pull request's number.
    pub pr_number: Option<i64>,
    /// When it came in.
    pub received_at: DateTime<Utc>,
    /// `None` until the orchestrator has looked at it, and while it waits for a removal to end.
    pub decision: Option<DeliveryDecision>,
}

const COLUMNS: &str = "i.id, i.source, i.delivery_guid, i.event, i.action, i.repo, i.pr_number, i.received_at, \
                       i.decision, i.reason, i.applied_at";

/// A delivery belongs to the team whose project watches its repository.
const VISIBLE: &str = "($1::uuid IS NULL OR EXISTS (SELECT 1 FROM projects p WHERE p.team_id = $1 \
                       AND p.deleted_at IS NULL AND p.forge = i.source AND lower(p.repo) = lower(i.repo)))";

impl Store {
    /// The team's deliveries, newest first, older than `before`.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_deliveries(
        &self,
        scope: &Scope,
        before: Option<DeliveryId>,
        limit: u32,
    ) -> Result<Vec<Delivery>> {
        let statement = Statement::from_sql_and_values(
            DbBackend::Postgres,
            format!(
                "SELECT {COLUMNS} FROM inbox i WHERE {VISIBLE} AND ($2::uuid IS NULL OR i.id < $2) \
                 ORDER BY i.id DESC LIMIT $3"
            ),
            [scope.team_uuid().into(), before.map(DeliveryId::uuid).into(), i64::from(limit).into()],
        );
        let doing = |source| StoreError::query("list deliveries", source);
        let rows = self.db.query_all_raw(statement).await.map_err(doing)?;
        rows.iter().map(delivery).collect::<std::result::Result<_, _>>().map_err(doing)
    }

    /// One delivery.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none, or it is another team's.
    pub async fn get_delivery(&self, scope: &Scope, id: DeliveryId) -> Result<Delivery> {
        let statement = Statement::from_sql_and_values(
            DbBackend::Postgres,
            format!("SELECT {COLUMNS} FROM inbox i WHERE {VISIBLE} AND i.id = $2"),
            [scope.team_uuid().into(), id.uuid().into()],
        );
        let doing = |source| StoreError::query("read a delivery", source);
        let row = self.db.query_one_raw(statement).await.map_err(doing)?;
        delivery(&row.ok_or(StoreError::NotFound("delivery"))?).map_err(doing)
    }
}

impl Tx {
    /// Stores a delivery once. The caller wakes the inbox row in the same transaction.
    ///
    /// # Errors
    /// The database's error.
    pub async fn insert_delivery(&self, new: NewDelivery) -> Result<Received> {
        let id = DeliveryId::generate();
        let (source, guid) = (new.source, new.guid);
        let insert = Statement::from_sql_and_values(
            DbBackend::Postgres,
            "INSERT INTO inbox (id, source, delivery_guid, event, action, repo, pr_number, body_sha256, body, \
             decision, reason, applied_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, CASE WHEN $10::text IS NULL THEN NULL ELSE 'ignored' END, \
             $10, CASE WHEN $10::text IS NULL THEN NULL ELSE now() END) \
             ON CONFLICT (source, delivery_guid) DO NOTHING",
            [
                id.uuid().into(),
                source.into(),
                guid.into(),
                new.event.into(),
                new.action.into(),
                new.repo.into(),
                new.pr_number.into(),
                new.body_sha256.to_vec().into(),
                new.body.into(),
                new.ignored.into(),
            ],
        );
        let doing = |source| StoreError::query("store a delivery", source);
        if self.inner.execute_raw(insert).await.map_err(doing)?.rows_affected() == 1 {
            return Ok(Received::Stored(id));
        }
        let find = Statement::from_sql_and_values(
            DbBackend::Postgres,
            "SELECT id FROM inbox WHERE source = $1 AND delivery_guid = $2",
            [source.into(), guid.into()],
        );
        let row = self.inner.query_one_raw(find).await.map_err(doing)?.ok_or(StoreError::NotFound("delivery"))?;
        Ok(Received::Duplicate(DeliveryId::from_uuid(row.try_get("", "id").map_err(doing)?)))
    }
}

fn delivery(row: &QueryResult) -> std::result::Result<Delivery, sea_orm::DbErr> {
    let verdict: Option<String> = row.try_get("", "decision")?;
    let reason: Option<String> = row.try_get("", "reason")?;
    let at = row.try_get("", "applied_at")?;
    Ok(Delivery {
        id: DeliveryId::from_uuid(row.try_get("", "id")?),
        source: row.try_get("", "source")?,
        guid: row.try_get("", "delivery_guid")?,
        event: row.try_get("", "event")?,
        action: row.try_get("", "action")?,
        repo: row.try_get("", "repo")?,
        pr_number: row.try_get("", "pr_number")?,
        received_at: row.try_get("", "received_at")?,
        decision: verdict.map(|verdict| DeliveryDecision { verdict, reason: reason.unwrap_or_default(), at }),
    })
}

impl Tx {
    /// Records what became of a delivery.
    ///
    /// # Errors
    /// The database's error.
    pub async fn decide_delivery(&self, id: DeliveryId, verdict: &str, reason: &str) -> Result<()> {
        let sql = "UPDATE inbox SET decision = $2, reason = $3, applied_at = now() WHERE id = $1";
        self.run("decide about a delivery", sql, [id.uuid().into(), verdict.into(), reason.into()]).await?;
        Ok(())
    }

    /// Has what waits for the end of an environment looked at, when this transaction commits.
    ///
    /// # Errors
    /// The database's error.
    pub async fn wake_deliveries(&self, env: &Environment) -> Result<()> {
        let doing = |source| StoreError::query("look for deliveries that wait", source);
        let waiting = Statement::from_sql_and_values(
            DbBackend::Postgres,
            "SELECT i.id FROM inbox i JOIN projects p ON p.forge = i.source AND lower(p.repo) = lower(i.repo) \
             WHERE p.id = $1 AND i.pr_number = $2 AND i.received_at >= $3 AND i.decision IS NULL",
            [env.project.uuid().into(), env.pr.number.into(), env.created_at.into()],
        );
        for row in self.inner.query_all_raw(waiting).await.map_err(doing)? {
            self.wake(kind::INBOX, row.try_get("", "id").map_err(doing)?).await?;
        }
        Ok(())
    }

    /// Makes a delivery undecided again.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn reopen_delivery(&self, id: DeliveryId) -> Result<()> {
        let sql = "UPDATE inbox SET decision = NULL, reason = NULL, applied_at = NULL WHERE id = $1";
        if self.run("reopen a delivery", sql, [id.uuid().into()]).await? == 1 {
            Ok(())
        } else {
            Err(StoreError::NotFound("delivery"))
        }
    }
}
