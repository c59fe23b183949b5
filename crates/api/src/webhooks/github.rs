//! GitHub's webhooks: verify the raw bytes, store the delivery once, wake the orchestrator, answer.
//!
//! Nothing is decided here. The delivery's id is not covered by the signature and an old body can be sent
//! again under a new one, so the orchestrator never trusts what a body says: it reads the pull request anew.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use ring::digest::{SHA256, digest};
use ring::hmac;
use serde::{Deserialize, Serialize};
use stagely_domain::id::DeliveryId;
use stagely_store::work::kind;
use stagely_store::{NewDelivery, Received};
use uuid::Uuid;

use crate::App;
use crate::error::{ApiError, Result};

/// Events that can change an environment; others are kept for the record only.
const APPLIED: &[&str] = &["pull_request"];

/// The longest `action` or repository name worth keeping.
const MAX_NAME: usize = 256;

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

/// The few fields by which a delivery is found again.
#[derive(Deserialize)]
struct Payload {
    action: Option<String>,
    repository: Option<Repository>,
    number: Option<i64>,
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
}

/// `POST /webhooks/github`
pub async fn receive(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, axum::Json<Receipt>)> {
    let limit = app.max_webhook_bytes;
    let body = axum::body::to_bytes(body, limit).await.map_err(|_| ApiError::TooLarge { limit })?;
    verify(&app, &headers, &body)?;

    let event = text(&headers, "x-github-event")?;
    let guid: Uuid = text(&headers, "x-github-delivery")?
        .parse()
        .map_err(|_| malformed("the header X-GitHub-Delivery is not a UUID"))?;
    let payload = parse(&headers, &body)?;
    if event == "ping" {
        return Ok((StatusCode::OK, axum::Json(Receipt { delivery: None, outcome: Outcome::Pong })));
    }
    let applied = APPLIED.contains(&event);
    if applied {
        payload.check()?;
    }
    let ignored = (!applied).then(|| format!("Stagely does not act on `{event}` events"));
    let stored = store(&app, delivery(guid, event, payload, &body, ignored));
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

fn delivery(guid: Uuid, event: &str, payload: Payload, body: &[u8], ignored: Option<String>) -> NewDelivery {
    let mut body_sha256 = [0; 32];
    body_sha256.copy_from_slice(digest(&SHA256, body).as_ref());
    NewDelivery {
        source: "github",
        guid,
        event: event.to_owned(),
        action: payload.action,
        repo: payload.repository.map(|repository| repository.full_name),
        pr_number: payload.number,
        body_sha256,
        body: body.to_vec(),
        ignored,
    }
}

impl Payload {
    /// Whether a pull request event says which pull request it is about.
    fn check(&self) -> Result<()> {
        let repo = self.repository.as_ref().map_or("", |repository| repository.full_name.as_str());
        let missing = if self.action.as_ref().is_none_or(String::is_empty) {
            "action"
        } else if repo.split('/').count() != 2 || repo.len() > MAX_NAME {
            "repository.full_name"
        } else if self.number.is_none_or(|number| number < 1) {
            "number"
        } else {
            return Ok(());
        };
        Err(malformed(&format!("the field `{missing}` is missing or malformed")))
    }
}

/// Checks the one `X-Hub-Signature-256` against every secret that is valid now, in constant time each.
fn verify(app: &App, headers: &HeaderMap, body: &[u8]) -> Result<()> {
    let mut values = headers.get_all("x-hub-signature-256").iter();
    let (Some(given), None) = (values.next(), values.next()) else {
        return Err(ApiError::BadSignature);
    };
    let given = given.to_str().ok().and_then(|text| hex::decode(text.strip_prefix("sha256=")?).ok());
    let given = given.ok_or(ApiError::BadSignature)?;
    let fits = app.webhook_secrets.iter().filter(|secret| !secret.is_empty()).any(|secret| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
        hmac::verify(&key, body, &given).is_ok()
    });
    if fits { Ok(()) } else { Err(ApiError::BadSignature) }
}

fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Payload> {
    let content_type = text(headers, header::CONTENT_TYPE.as_str())?;
    if !content_type.trim_start().to_ascii_lowercase().starts_with("application/json") {
        return Err(malformed(
            "the header Content-Type is not application/json: choose that in the webhook's settings",
        ));
    }
    let payload: Payload = serde_json::from_slice(body).map_err(|error| {
        malformed(&format!("the body is not the JSON of an event (line {}, column {})", error.line(), error.column()))
    })?;
    // Names end up in a column and in a page; longer ones are nobody's.
    if payload.action.as_ref().is_some_and(|action| action.len() > MAX_NAME) {
        return Err(malformed("the field `action` is too long"));
    }
    Ok(payload)
}

/// A header that must be there exactly once.
fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next().and_then(|value| value.to_str().ok()), values.next()) {
        (Some(value), None) if !value.is_empty() && value.len() <= MAX_NAME => Ok(value),
        _ => Err(malformed(&format!("the header {name} is missing, empty or there twice"))),
    }
}

fn malformed(detail: &str) -> ApiError {
    ApiError::Invalid { code: "malformed_delivery", detail: detail.to_owned() }
}
