//! Sleep, which stops the bill.

use super::failure::expect;
use super::{Failure, Trial};
use crate::{ErrorKind, VmState};

pub(super) async fn a_machine_sleeps_and_wakes_or_says_that_it_cannot(trial: &Trial<'_>) -> Result<(), Failure> {
    let (request, created, _) = trial.running().await?;
    if !trial.cloud.capabilities().hibernate {
        let refused = trial.cloud.hibernate(&created.id).await.err().map(|error| error.kind);
        return expect(refused == Some(ErrorKind::Unsupported), "put to sleep", "Unsupported", || {
            format!("{refused:?}")
        });
    }
    // The second time changes nothing.
    for _ in 0..2 {
        trial.put_to_sleep(&created.id).await?;
    }
    let asleep = |vm: &crate::Vm| vm.state == VmState::Hibernated && vm.address.is_none();
    let slept = trial.until_shown(request.machine, "a machine that sleeps, without an address", asleep).await?;
    let woken = trial.wake(&slept.id, &request).await?;
    let again = trial.patiently(|| trial.cloud.wake(&woken.id)).await;
    let again = again.map_err(|error| Failure::refused("wake what is awake", &error))?;
    expect(again.id == woken.id, "wake what is awake", &woken.id.0, || again.id.to_string())?;
    let vms = trial.until_listed(trial.installation, 1).await?;
    expect(vms[0].expires_at == request.expires_at, "look at the end of what woke", "the one it had", || {
        vms[0].expires_at.to_string()
    })
}
