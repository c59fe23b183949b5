//! Deliveries: each says which pull request to look at, once.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use stagely_domain::id::DeliveryId;
use stagely_forge::ForgeError;
use stagely_reconcile::{Claim, ErrorClass, Reconciler, Step, StepError};
use stagely_store::Scope;
use stagely_store::work::kind;

use crate::context::{Context, store_error};
use crate::pulls::{self, Decision};

/// When to look again at what waits for the end of an environment, should nothing wake it.
const WAIT: Duration = Duration::from_secs(300);

/// After so many tries a delivery has failed; the scan finds what it was about.
const TRIES: u32 = 20;

/// Key: the delivery's id.
pub struct Inbox(pub Arc<Context>);

#[async_trait]
impl Reconciler for Inbox {
    const KIND: &'static str = kind::INBOX;

    async fn reconcile(&self, claim: &Claim) -> Result<Step, StepError> {
        match self.apply(claim).await {
            Err(failure) if is_spent(claim, &failure) => self.give_up(claim, failure).await,
            outcome => outcome,
        }
    }
}

impl Inbox {
    async fn apply(&self, claim: &Claim) -> Result<Step, StepError> {
        let doing = "apply a delivery";
        let (context, id) = (&self.0, DeliveryId::from_uuid(claim.fence.key));
        let scope = Scope::system(doing);
        let delivery = context.store.get_delivery(&scope, id).await.map_err(store_error(doing))?;
        if delivery.decision.is_some() {
            return Ok(Step::Done);
        }
        let Some((repo, number)) = delivery.repo.zip(delivery.pr_number) else {
            return self.decide(claim, "ignored", "it is about no pull request").await;
        };
        let Some(project) = context.store.find_project(&scope, &repo).await.map_err(store_error(doing))? else {
            return self.decide(claim, "ignored", "no project watches this repository").await;
        };
        let seen = pulls::read(context, &project, number).await?;
        let tx = context.store.fenced(&claim.fence).await.map_err(store_error(doing))?;
        let verdict = pulls::apply(context, &tx, &project, number, seen).await?;
        tracing::info!(delivery = %id, decision = ?verdict.decision, "delivery {id}: {}", verdict.reason);
        let word = match verdict.decision {
            Decision::Applied => "applied",
            Decision::Ignored => "ignored",
            // Whoever ends the environment wakes it.
            Decision::Later => return Ok(Step::Again(WAIT)),
        };
        tx.decide_delivery(id, word, &verdict.reason).await.map_err(store_error(doing))?;
        tx.commit().await.map_err(store_error(doing))?;
        Ok(Step::Done)
    }

    /// Records why it was not applied, and parks: who replays it wakes it.
    async fn give_up(&self, claim: &Claim, failure: StepError) -> Result<Step, StepError> {
        // The git host's words are for people, other errors are for the log.
        let said = failure.source.as_ref().and_then(|source| source.downcast_ref::<ForgeError>());
        let reason = said.map_or_else(|| failure.doing.clone(), ToString::to_string);
        let decided = self.decide(claim, "failed", &format!("it was given up at: {reason}")).await;
        decided.map_err(StepError::never_parks)?;
        Err(StepError { class: ErrorClass::Permanent, may_park: true, ..failure })
    }

    async fn decide(&self, claim: &Claim, word: &str, reason: &str) -> Result<Step, StepError> {
        let doing = "decide about a delivery";
        let tx = self.0.store.fenced(&claim.fence).await.map_err(store_error(doing))?;
        let id = DeliveryId::from_uuid(claim.fence.key);
        tx.decide_delivery(id, word, reason).await.map_err(store_error(doing))?;
        tx.commit().await.map_err(store_error(doing))?;
        Ok(Step::Done)
    }
}

/// Whether another try would change nothing, or there were enough.
fn is_spent(claim: &Claim, failure: &StepError) -> bool {
    match failure.class {
        ErrorClass::Permanent => true,
        ErrorClass::Transient => claim.attempt >= TRIES,
        ErrorClass::RateLimited { .. } | ErrorClass::Fenced => false,
    }
}
