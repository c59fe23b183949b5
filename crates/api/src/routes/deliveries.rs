//! Webhook deliveries: what came in, what was decided and why, and once more please.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use stagely_domain::id::DeliveryId;
use stagely_proto::orchestrator::ReplayRequest;

use crate::App;
use crate::auth::permission::{Member, Viewer};
use crate::error::{ApiError, Result};
use crate::extract::{Path, Query};
use crate::json::{Page, PageQuery, Timestamp};

/// A webhook delivery.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Delivery {
    /// Its id.
    pub id: DeliveryId,
    /// The git host.
    pub source: String,
    /// The git host's id of the event.
    pub guid: String,
    /// `pull_request`, say.
    pub event: String,
    /// `opened`, say.
    pub action: Option<String>,
    /// `owner/name`.
    pub repo: Option<String>,
    /// The pull request's number.
    pub pr: Option<i64>,
    /// When it came in.
    pub received_at: Timestamp,
    /// applied, ignored or failed; null until it was looked at.
    pub decision: Option<String>,
    /// Why, in a sentence.
    pub reason: Option<String>,
    /// When that was decided.
    pub decided_at: Option<Timestamp>,
}

/// It will be applied again.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Replayed {
    /// The delivery.
    pub delivery: DeliveryId,
}

/// `GET /api/v1/deliveries`
pub async fn list(
    Viewer(caller): Viewer,
    State(app): State<App>,
    Query(page): Query<PageQuery>,
) -> Result<axum::Json<Page<Delivery>>> {
    let limit = page.limit()?;
    let rows = app.store.list_deliveries(caller.scope(), page.cursor()?, limit + 1).await?;
    Ok(axum::Json(Page::cut(rows, limit, |row| row.id.to_string(), Delivery::from)))
}

/// `GET /api/v1/deliveries/{id}`
pub async fn get(
    Viewer(caller): Viewer,
    State(app): State<App>,
    Path(id): Path<DeliveryId>,
) -> Result<axum::Json<Delivery>> {
    Ok(axum::Json(app.store.get_delivery(caller.scope(), id).await?.into()))
}

/// `POST /api/v1/deliveries/{id}/replay`
pub async fn replay(
    Member(caller): Member,
    State(app): State<App>,
    Path(id): Path<DeliveryId>,
) -> Result<(StatusCode, axum::Json<Replayed>)> {
    app.store.get_delivery(caller.scope(), id).await?;
    let request = ReplayRequest { delivery_id: id.to_string() };
    app.orchestrator.clone().replay(request).await.map_err(|status| match status.code() {
        tonic::Code::NotFound => ApiError::NotFound("delivery"),
        _ => status.into(),
    })?;
    let tx = app.store.begin().await?;
    tx.audit(caller.audit("delivery.replay", "delivery", id, serde_json::json!({}))).await?;
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, axum::Json(Replayed { delivery: id })))
}

impl From<stagely_store::Delivery> for Delivery {
    fn from(row: stagely_store::Delivery) -> Self {
        let (decision, reason, at) = match row.decision {
            Some(decision) => (Some(decision.verdict), Some(decision.reason), decision.at),
            None => (None, None, None),
        };
        Self {
            id: row.id,
            source: row.source,
            guid: row.guid.to_string(),
            event: row.event,
            action: row.action,
            repo: row.repo,
            pr: row.pr_number,
            received_at: row.received_at.into(),
            decision,
            reason,
            decided_at: at.map(Timestamp),
        }
    }
}
