//! Machines that come to be.

use std::time::Duration;

use tokio::time::Instant;

use super::failure::expect;
use super::trial::shown;
use super::{Failure, Trial};
use crate::{CreateRequest, ErrorKind};

/// No machine that is waited for has booted by then, and every answer has come.
const PROMPT: Duration = Duration::from_secs(90);

pub(super) async fn a_create_answers_before_the_machine_has_booted(trial: &Trial<'_>) -> Result<(), Failure> {
    let mut request = trial.request();
    let begun = Instant::now();
    let created = trial.create(&mut request).await?;
    let took = begun.elapsed();
    expect(took < PROMPT, "create a machine", &format!("an answer within {PROMPT:?}"), || format!("{took:?}"))?;
    let vm = trial.until_shown(request.machine, "a machine that was made", |_| true).await?;
    expect(vm.id == created.id, "find a machine", &format!("the id that create gave: {}", created.id), || {
        vm.id.to_string()
    })
}

pub(super) async fn a_new_machine_runs_and_has_an_address_in_the_end(trial: &Trial<'_>) -> Result<(), Failure> {
    let (request, created, vm) = trial.running().await?;
    let port = request.config.ingress_port;
    let address = vm.address.clone().unwrap_or_default();
    expect(address.contains(':'), "look at its address", &format!("one like ip:{port}"), || address.clone())?;
    expect(vm.id == created.id, "find a machine", &created.id.0, || vm.id.to_string())
}

pub(super) async fn the_same_request_again_is_the_same_machine(trial: &Trial<'_>) -> Result<(), Failure> {
    let mut request = trial.request();
    let first = trial.create(&mut request).await?;
    trial.until_listed(trial.installation, 1).await?;
    for when in ["at once", "when it runs"] {
        let again = trial.create_as_is(&request).await?;
        let again =
            again.map_err(|error| Failure::refused(format!("create the same machine again, {when}"), &error))?;
        expect(again.id == first.id, "create the same machine again", &first.id.0, || again.id.to_string())?;
        trial.until_running(request.machine).await?;
    }
    let vms = trial.list(trial.installation).await?;
    expect(vms.len() == 1, "list machines after three creates of one", "one machine", || shown(&vms))
}

pub(super) async fn a_foreign_machine_is_neither_adopted_nor_deleted(trial: &Trial<'_>) -> Result<(), Failure> {
    let mut request = trial.request();
    let created = trial.create(&mut request).await?;
    trial.until_listed(trial.installation, 1).await?;
    let stolen = CreateRequest { installation: trial.other, ..request.clone() };
    let expected = "Exists, since another installation has this id";
    match trial.create_as_is(&stolen).await? {
        Err(error) => expect(error.kind == ErrorKind::Exists, "create a machine that another has", expected, || {
            format!("{:?}: {error}", error.kind)
        })?,
        Ok(stolen) => return Err(Failure::new("create a machine that another has", expected, stolen.id.to_string())),
    }
    let vms = trial.list(trial.installation).await?;
    expect(vms.len() == 1 && vms[0].id == created.id, "list the other's machines", "the one it had", || shown(&vms))
}
