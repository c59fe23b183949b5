//! Golden images: a machine that bakes, an image of it, and the end of both. Key: the image's id.
//!
//! A failed bake keeps nothing at the provider; its row stays and says why, until somebody removes it.

mod execute;
pub mod plan;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use stagely_domain::id::ImageId;
use stagely_reconcile::{Claim, Fence, Reconciler, Step, StepError};
use stagely_store::images::Image;
use stagely_store::work::kind;

use crate::context::store_error;
use crate::reconcile::ledger::Ledger;
use execute::{Next, execute};
use plan::{Bootable, Plan, Snapshot, plan};

/// Things done in one activation before others get their turn.
const MAX_OPS: usize = 8;

pub struct Images(pub Arc<dyn Ledger>);

#[async_trait]
impl Reconciler for Images {
    const KIND: &'static str = kind::IMAGE;

    /// A bake has a deadline of its own and a removal is tried for ever, so neither is ever parked.
    async fn reconcile(&self, claim: &Claim) -> Result<Step, StepError> {
        let id = ImageId::from_uuid(claim.fence.key);
        self.converge(id, &claim.fence).await.map_err(StepError::never_parks)
    }
}

impl Images {
    async fn converge(&self, id: ImageId, fence: &Fence) -> Result<Step, StepError> {
        for _ in 0..MAX_OPS {
            let Some(snapshot) = self.load_snapshot(id).await? else { return Ok(Step::Done) };
            let op = match plan(&snapshot, self.0.now()) {
                Plan::Do(op) => op,
                Plan::Wait(after) => return Ok(Step::Again(after)),
                Plan::Rest => return Ok(Step::Done),
            };
            tracing::debug!(image.id = %id, ?op, "next for {id}");
            if let Next::Wait(after) = execute(&*self.0, fence, &snapshot, &op).await? {
                return Ok(Step::Again(after));
            }
        }
        Ok(Step::Again(Duration::ZERO))
    }

    /// Everything that a decision is made on; nothing when there is no such image.
    async fn load_snapshot(&self, id: ImageId) -> Result<Option<Snapshot>, StepError> {
        let (doing, rows) = ("read an image", &self.0);
        let Some(image) = rows.find_image(id).await.map_err(store_error(doing))? else { return Ok(None) };
        let machine = match image.machine {
            Some(machine) => Some(rows.get_machine(machine).await.map_err(store_error(doing))?),
            None => None,
        };
        let bootable = rows.list_bootable_images(image.account, image.arch).await.map_err(store_error(doing))?;
        let is_asked_for = rows.is_image_asked_for(id).await.map_err(store_error(doing))?;
        let bootable = bootable.into_iter().map(|Image { id, locations, .. }| Bootable { id, locations }).collect();
        Ok(Some(Snapshot { image, machine, bootable, is_asked_for }))
    }
}
