//! Webhook deliveries. The API inserts them and reads them back for people; the orchestrator decides.

use chrono::{DateTime, Utc};
use stagely_domain::id::DeliveryId;
use uuid::Uuid;

use crate::environments::Environment;
use crate::statement::Row;
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
    /// When it was decided.
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
    /// At most `limit` of the team's deliveries, newest first, older than `before`.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_deliveries(
        &self,
        scope: &Scope,
        before: Option<DeliveryId>,
        limit: u32,
    ) -> Result<Vec<Delivery>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM inbox i WHERE {VISIBLE} AND ($2::uuid IS NULL OR i.id < $2) \
             ORDER BY i.id DESC LIMIT $3"
        );
        let values = [scope.team_uuid().into(), before.map(DeliveryId::uuid).into(), i64::from(limit).into()];
        self.rows("list deliveries", sql, values).await?.iter().map(delivery).collect()
    }

    /// One delivery.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none, or it is another team's.
    pub async fn get_delivery(&self, scope: &Scope, id: DeliveryId) -> Result<Delivery> {
        let sql = format!("SELECT {COLUMNS} FROM inbox i WHERE {VISIBLE} AND i.id = $2");
        let found = self.row("read a delivery", sql, [scope.team_uuid().into(), id.uuid().into()]).await?;
        delivery(&found.ok_or(StoreError::NotFound("delivery"))?)
    }
}

impl Tx {
    /// Stores a delivery once, and says whether it was new. The caller wakes the inbox row in the same transaction.
    ///
    /// # Errors
    /// The database's error.
    pub async fn insert_delivery(&self, new: NewDelivery) -> Result<Received> {
        let doing = "store a delivery";
        let id = DeliveryId::generate();
        let (source, guid) = (new.source, new.guid);
        let sql = "INSERT INTO inbox (id, source, delivery_guid, event, action, repo, pr_number, body_sha256, body, \
                   decision, reason, applied_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, \
                   CASE WHEN $10::text IS NULL THEN NULL ELSE 'ignored' END, $10, \
                   CASE WHEN $10::text IS NULL THEN NULL ELSE now() END) \
                   ON CONFLICT (source, delivery_guid) DO NOTHING";
        let values = [
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
        ];
        if self.run(doing, sql, values).await? == 1 {
            return Ok(Received::Stored(id));
        }
        let sql = "SELECT id FROM inbox WHERE source = $1 AND delivery_guid = $2";
        let found = self.row(doing, sql, [source.into(), guid.into()]).await?;
        let earlier = found.ok_or(StoreError::NotFound("delivery"))?.get("id")?;
        Ok(Received::Duplicate(DeliveryId::from_uuid(earlier)))
    }

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
        let sql = "SELECT i.id FROM inbox i JOIN projects p ON p.forge = i.source AND lower(p.repo) = lower(i.repo) \
                   WHERE p.id = $1 AND i.pr_number = $2 AND i.received_at >= $3 AND i.decision IS NULL";
        let values = [env.project.uuid().into(), env.pr.number.into(), env.created_at.into()];
        for row in self.rows("look for deliveries that wait", sql, values).await? {
            self.wake(kind::INBOX, row.get("id")?).await?;
        }
        Ok(())
    }

    /// Makes a delivery undecided again.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none, or the database's error.
    pub async fn reopen_delivery(&self, id: DeliveryId) -> Result<()> {
        let sql = "UPDATE inbox SET decision = NULL, reason = NULL, applied_at = NULL WHERE id = $1";
        if self.run("reopen a delivery", sql, [id.uuid().into()]).await? == 1 {
            Ok(())
        } else {
            Err(StoreError::NotFound("delivery"))
        }
    }
}

fn delivery(row: &Row) -> Result<Delivery> {
    let verdict: Option<String> = row.get("decision")?;
    let reason: Option<String> = row.get("reason")?;
    let at = row.get("applied_at")?;
    Ok(Delivery {
        id: DeliveryId::from_uuid(row.get("id")?),
        source: row.get("source")?,
        guid: row.get("delivery_guid")?,
        event: row.get("event")?,
        action: row.get("action")?,
        repo: row.get("repo")?,
        pr_number: row.get("pr_number")?,
        received_at: row.get("received_at")?,
        decision: verdict.map(|verdict| DeliveryDecision { verdict, reason: reason.unwrap_or_default(), at }),
    })
}
