//! Deliveries: each says which pull request to look at, once.

use std::sync::Arc;

use async_trait::async_trait;
use stagely_domain::id::DeliveryId;
use stagely_reconcile::{Claim, Failure, Reconciler, Step};
use stagely_store::Scope;
use stagely_store::work::kind;

use crate::context::{Context, stored};
use crate::pulls;

/// Key: the delivery's id.
pub struct Inbox(pub Arc<Context>);

#[async_trait]
impl Reconciler for Inbox {
    const KIND: &'static str = kind::INBOX;

    async fn reconcile(&self, claim: &Claim) -> Result<Step, Failure> {
        let doing = "apply a delivery";
        let (context, id) = (&self.0, DeliveryId::from_uuid(claim.fence.key));
        let subject = context.store.delivery_subject(id).await.map_err(stored(doing))?;
        let Some(subject) = subject.filter(|subject| !subject.decided) else { return Ok(Step::Done) };
        let project = context.store.find_project(&Scope::system(doing), &subject.repo).await.map_err(stored(doing))?;
        let found = match &project {
            Some(project) => Some(pulls::read(context, project, subject.pr_number).await?),
            None => None,
        };
        let tx = context.store.fenced(&claim.fence).await.map_err(stored(doing))?;
        match project.zip(found) {
            Some((project, seen)) => {
                let verdict = pulls::apply(context, &tx, &project, subject.pr_number, seen).await?;
                let word = if verdict.applied { "applied" } else { "ignored" };
                tracing::info!(delivery = %id, decision = word, "delivery {id}: {}", verdict.reason);
                tx.decide_delivery(id, word, &verdict.reason).await.map_err(stored(doing))?;
            }
            None => {
                let reason = "no project watches this repository";
                tx.decide_delivery(id, "ignored", reason).await.map_err(stored(doing))?;
            }
        }
        tx.commit().await.map_err(stored(doing))?;
        Ok(Step::Done)
    }
}
