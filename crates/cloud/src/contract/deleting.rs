//! Machines that go.

use stagely_domain::id::MachineId;

use super::failure::expect;
use super::trial::shown;
use super::{Failure, Trial};
use crate::ErrorKind;

pub(super) async fn a_machine_goes_whatever_its_state_and_again(trial: &Trial<'_>) -> Result<(), Failure> {
    let mut pending = trial.request();
    let created = trial.create(&mut pending).await?;
    trial.delete(&created.id).await?;
    trial.delete(&created.id).await?;
    trial.until_listed(trial.installation, 0).await?;
    let (request, created, _) = trial.running().await?;
    if trial.cloud.capabilities().hibernate {
        trial.put_to_sleep(&created.id).await?;
    }
    trial.delete(&created.id).await?;
    trial.delete(&created.id).await?;
    trial.until_listed(trial.installation, 0).await?;
    let slept = trial.cloud.hibernate(&created.id).await.err().map(|error| error.kind);
    expect(slept == Some(ErrorKind::NotFound), "put to sleep what is gone", "NotFound", || format!("{slept:?}"))?;
    for absent in [request.machine, MachineId::generate()] {
        let found = trial.patiently(|| trial.cloud.find(absent)).await;
        let found = found.map_err(|error| Failure::refused("find what is gone", &error))?;
        expect(found.is_empty(), "find what is gone", "nothing", || shown(&found))?;
    }
    Ok(())
}

pub(super) async fn nothing_is_left_of_a_machine_that_was_deleted(trial: &Trial<'_>) -> Result<(), Failure> {
    let (request, created, _) = trial.running().await?;
    trial.delete(&created.id).await?;
    trial.until_listed(trial.installation, 0).await?;
    let of_machine = || async {
        let residues = trial.cloud.list_residue(trial.installation).await?;
        Ok(residues.complete && residues.items.iter().all(|item| item.machine.is_none()))
    };
    trial.repeat(&format!("look for what {} has left", request.machine), of_machine).await
}
