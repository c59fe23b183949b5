//! GitHub's webhooks: have the raw bytes verified, store the delivery once, wake the orchestrator, answer.
//!
//! Nothing is decided here. The delivery's id is not covered by the signature and an old body can be sent
//! again under a new one, so the orchestrator never trusts what a body says: it reads the pull request anew.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use ring::digest::{SHA256, digest};
use serde::Serialize;
use stagely_domain::id::DeliveryId;
use stagely_forge::webhook::{self, Delivery, Hook, WebhookError};
use stagely_store::work::kind;
use stagely_store::{NewDelivery, Received};

use crate::App;
use crate::error::{ApiError, Result};

/// GitHub hangs up after 10 s; it should hear a 503 before that.
const STORE_DEADLINE: Duration = Duration::from_secs(5);

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Stored, to be applied.
    Stored,
    /// Stored; there is nothing to apply.
    Ignored,
    /// The same delivery was here before; nothing happens twice.
    Duplicate,
    /// The answer to a ping; nothing is stored.
    Pong,
}

/// The answer to a delivery.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Receipt {
    /// Its id here; null for a ping.
    pub delivery: Option<DeliveryId>,
    /// What became of it.
    pub outcome: Outcome,
}

/// `POST /webhooks/github`
pub async fn receive(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, axum::Json<Receipt>)> {
    let limit = app.max_webhook_bytes;
    let body = axum::body::to_bytes(body, limit).await.map_err(|_| ApiError::TooLarge { limit })?;
    let delivery = webhook::receive(&app.webhook_secrets, &headers, &body).map_err(|error| refused(&error))?;
    if delivery.hook == Hook::Ping {
        return Ok((StatusCode::OK, axum::Json(Receipt { delivery: None, outcome: Outcome::Pong })));
    }
    let stored = store(&app, row(delivery, &body));
    let receipt = tokio::time::timeout(STORE_DEADLINE, stored).await.map_err(|_| ApiError::TimedOut)??;
    Ok((StatusCode::ACCEPTED, axum::Json(receipt)))
}

async fn store(app: &App, new: NewDelivery) -> Result<Receipt> {
    let is_ignored = new.ignored.is_some();
    let tx = app.store.begin().await?;
    let (delivery, outcome) = match tx.insert_delivery(new).await? {
        Received::Duplicate(id) => (id, Outcome::Duplicate),
        Received::Stored(id) if is_ignored => (id, Outcome::Ignored),
        Received::Stored(id) => {
            tx.wake(kind::INBOX, id.uuid()).await?;
            (id, Outcome::Stored)
        }
    };
    tx.commit().await?;
    tracing::info!(delivery = %delivery, ?outcome, "webhook delivery {delivery} taken in");
    Ok(Receipt { delivery: Some(delivery), outcome })
}

fn row(delivery: Delivery, body: &[u8]) -> NewDelivery {
    let mut body_sha256 = [0; 32];
    body_sha256.copy_from_slice(digest(&SHA256, body).as_ref());
    let ignored = (!matches!(delivery.hook, Hook::PullRequest { .. }))
        .then(|| format!("Stagely does not act on `{}` events", delivery.event));
    let (action, source, number) = match delivery.hook {
        Hook::PullRequest { action, source, number } | Hook::IssueComment { action, source, number } => {
            (Some(action), Some(source), Some(number))
        }
        Hook::Push { source } => (None, Some(source), None),
        Hook::Ping | Hook::InstallationChanged { .. } | Hook::Unknown => (None, None, None),
    };
    NewDelivery {
        source: "github",
        guid: delivery.guid,
        event: delivery.event,
        action,
        repo: source.map(|source| source.repo.to_string()),
        pr_number: number,
        body_sha256,
        body: body.to_vec(),
        ignored,
    }
}

fn refused(error: &WebhookError) -> ApiError {
    match error {
        WebhookError::Unsigned | WebhookError::BadSignature => ApiError::BadSignature,
        WebhookError::Malformed { field } => {
            let hint = match *field {
                "body" => "the body is not the JSON of an event".to_owned(),
                "content-type" => {
                    "the header content-type is not application/json: choose that in the webhook's settings".to_owned()
                }
                field => format!("`{field}` is missing or malformed"),
            };
            ApiError::Invalid { code: "malformed_delivery", detail: hint }
        }
    }
}
