//! What machines that go on running have cost so far. What ends is counted with its end.

use stagely_domain::id::CloudAccountId;
use stagely_reconcile::{Fence, StepError};

use crate::context::{Context, store_error};

/// Notes it for every machine of an account that its provider bills, each in a transaction of its own.
pub async fn note(context: &Context, fence: &Fence, account: CloudAccountId) -> Result<(), StepError> {
    let doing = "note what machines cost";
    for machine in context.store.list_billed_machines(account).await.map_err(store_error(doing))? {
        let tx = context.store.fenced(fence).await.map_err(store_error(doing))?;
        tx.note_cost(machine).await.map_err(store_error(doing))?;
        tx.commit().await.map_err(store_error(doing))?;
    }
    Ok(())
}
