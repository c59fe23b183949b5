//! Doing one thing. Outside calls first, then one short transaction behind the fence.

use std::cmp::Reverse;
use std::time::Duration;

use chrono::TimeDelta;
use stagely_cloud::{
    CaptureProgress, CaptureRequest, CloudError, DeleteProgress, ErrorKind, Image as Captured, ProviderId, Residue,
};
use stagely_domain::failure::{Code, Failure};
use stagely_domain::id::{ImageId, MachineId};
use stagely_domain::machine::{Role, Size};
use stagely_reconcile::{Fence, StepError};
use stagely_store::Outcome;
use stagely_store::machines::NewMachine;
use stagely_store::work::kind;

use super::plan::{Op, Snapshot};
use crate::context::{cloud_error, store_error};
use crate::failures::failure;
use crate::reconcile::ledger::{Ledger, Writing};

/// After this a machine that bakes is past its end, whoever is left to remove it.
const LIFETIME: TimeDelta = TimeDelta::hours(2);

/// What follows.
pub enum Next {
    /// The next plan.
    Plan,
    /// A look after this long.
    Wait(Duration),
}

pub async fn execute(context: &dyn Ledger, fence: &Fence, snapshot: &Snapshot, op: &Op) -> Result<Next, StepError> {
    match op {
        Op::EnsureMachine => ensure_machine(context, fence, snapshot).await,
        Op::Capture(machine) => capture(context, fence, snapshot, machine).await,
        Op::Fail(failure) => fail(context, fence, snapshot, failure).await,
        Op::DropMachine => {
            write(context, fence, "drop a baked machine", async |tx| {
                drop_machine(tx, snapshot).await.map(|()| Outcome::Written)
            })
            .await
        }
        Op::Retire(images) => {
            write(context, fence, "retire older images", async |tx| {
                for image in images {
                    let _ = tx.wish_image_absent(*image).await?;
                    tx.wake(kind::IMAGE, image.uuid()).await?;
                }
                Ok(Outcome::Written)
            })
            .await
        }
        Op::Remove => remove(context, fence, snapshot).await,
        Op::Close => close(context, fence, snapshot.image.id).await,
    }
}

/// One short transaction behind the fence. What is stale is not committed, and looked at again.
async fn write(
    context: &dyn Ledger,
    fence: &Fence,
    doing: &'static str,
    change: impl AsyncFnOnce(&Writing) -> stagely_store::Result<Outcome>,
) -> Result<Next, StepError> {
    let tx = context.fenced(fence).await.map_err(store_error(doing))?;
    if change(&tx).await.map_err(store_error(doing))? == Outcome::Stale {
        return Ok(Next::Wait(Duration::ZERO));
    }
    tx.commit().await.map_err(store_error(doing))?;
    Ok(Next::Plan)
}

/// The smallest machine: its disk is the least, so that the image fits on all others.
async fn ensure_machine(context: &dyn Ledger, fence: &Fence, snapshot: &Snapshot) -> Result<Next, StepError> {
    let image = &snapshot.image;
    let agent = match context.agent(image.arch).await? {
        Ok(agent) => agent,
        Err(lacks) => return fail(context, fence, snapshot, &failure(Code::MachineFailed, "bake", lacks)).await,
    };
    let machine = NewMachine {
        id: MachineId::generate(),
        team: image.team,
        project: None,
        environment: None,
        account: image.account,
        role: Role::Bake,
        size: Size::Small,
        arch: image.arch,
        locations: Vec::new(),
        lifetime: LIFETIME,
    };
    write(context, fence, "wish for a machine to bake", async |tx| {
        let outcome = tx.bake_image(image.id, &machine, &agent.sha256).await?;
        tx.wake(kind::MACHINE, machine.id.uuid()).await?;
        Ok(outcome)
    })
    .await
}

async fn capture(
    context: &dyn Ledger,
    fence: &Fence,
    snapshot: &Snapshot,
    machine: &ProviderId,
) -> Result<Next, StepError> {
    let (doing, id) = ("make an image of a machine", snapshot.image.id);
    let account = context.account(snapshot.image.account).await?;
    let request = CaptureRequest { image: id, installation: context.installation(), machine: machine.clone() };
    match account.cloud.capture(&request).await {
        Ok(CaptureProgress::InProgress) => Ok(Next::Wait(Duration::from_secs(10))),
        Ok(CaptureProgress::Ready(Captured { reference, locations })) => {
            let next = write(context, fence, "record an image", async |tx| {
                let outcome = tx.image_ready(id, &reference, &locations).await?;
                drop_machine(tx, snapshot).await?;
                Ok(outcome)
            })
            .await?;
            if matches!(next, Next::Plan) {
                tracing::info!(image.id = %id, "{id} can be booted as {reference}");
            }
            Ok(next)
        }
        Err(error) if is_final(&error) => {
            let message = format!("the cloud made no image: {}", error.message);
            fail(context, fence, snapshot, &failure(Code::MachineFailed, "bake", message)).await
        }
        Err(error) => Err(cloud_error(doing)(error)),
    }
}

/// Whether asking again within a bake's time helps nothing.
fn is_final(error: &CloudError) -> bool {
    use ErrorKind::{Exists, Invalid, Permission, Quota, Unsupported};
    !error.ambiguous && matches!(error.kind, Exists | Invalid | Permission | Quota | Unsupported)
}

/// With the end of the machine's console, as long as there is one.
async fn fail(context: &dyn Ledger, fence: &Fence, snapshot: &Snapshot, why: &Failure) -> Result<Next, StepError> {
    let (id, mut why) = (snapshot.image.id, why.clone());
    let provider = snapshot.machine.as_ref().and_then(|machine| machine.provider_id.clone());
    if let Some(provider) = provider
        && why.log_tail.is_empty()
    {
        let account = context.account(snapshot.image.account).await?;
        why.log_tail = account.cloud.console_tail(&ProviderId(provider)).await.ok().flatten().unwrap_or_default();
    }
    let next = write(context, fence, "give an image up", async |tx| {
        let outcome = tx.fail_image(id, &why).await?;
        drop_machine(tx, snapshot).await?;
        Ok(outcome)
    })
    .await?;
    tracing::warn!(image.id = %id, code = why.code.as_str(), "{id}: {}", why.message);
    Ok(next)
}

async fn drop_machine(tx: &Writing, snapshot: &Snapshot) -> stagely_store::Result<()> {
    let Some(machine) = &snapshot.machine else { return Ok(()) };
    let _ = tx.drop_machine(machine.id, None).await?;
    tx.wake(kind::MACHINE, machine.id.uuid()).await
}

/// Everything with the image's tag: its parts, and what a lost answer made twice. It is gone when a complete list shows
/// nothing more of it.
async fn remove(context: &dyn Ledger, fence: &Fence, snapshot: &Snapshot) -> Result<Next, StepError> {
    let (doing, id) = ("remove an image", snapshot.image.id);
    let account = context.account(snapshot.image.account).await?;
    let residues = account.cloud.list_residue(context.installation()).await.map_err(cloud_error(doing))?;
    let residues = residues.with_whole_images_held();
    if !residues.complete {
        return Ok(Next::Wait(Duration::from_secs(30)));
    }
    let (held, mut left): (Vec<Residue>, Vec<Residue>) =
        residues.items.into_iter().filter(|residue| residue.image == Some(id)).partition(|residue| residue.hold);
    if held.is_empty() && left.is_empty() {
        return close(context, fence, id).await;
    }
    // An image before the disks that it is made of, which cannot go before it.
    left.sort_by_key(|residue| Reverse(residue.kind));
    let mut refused = None;
    for residue in &left {
        if let Err(error) = account.cloud.delete_residue(residue).await.map(|_: DeleteProgress| ()) {
            refused.get_or_insert(error);
        }
    }
    match refused {
        Some(error) => Err(cloud_error(doing)(error)),
        None if left.is_empty() => {
            tracing::warn!(image.id = %id, "{id} is not wanted any more, and held at the provider: it stays");
            Ok(Next::Wait(Duration::from_secs(300)))
        }
        None => Ok(Next::Wait(Duration::from_secs(2))),
    }
}

async fn close(context: &dyn Ledger, fence: &Fence, id: ImageId) -> Result<Next, StepError> {
    let next = write(context, fence, "record that an image is gone", async |tx| tx.image_cleared(id).await).await?;
    tracing::info!(image.id = %id, "{id} is gone");
    Ok(next)
}
