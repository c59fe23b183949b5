//! What lists show.

use chrono::TimeDelta;
use stagely_domain::machine::Role;

use super::failure::expect;
use super::trial::shown;
use super::{Failure, Trial};
use crate::{CreateRequest, Vm};

pub(super) async fn the_first_list_that_shows_a_machine_shows_all_its_tags(trial: &Trial<'_>) -> Result<(), Failure> {
    let mut request = trial.request();
    trial.create(&mut request).await?;
    let vms = trial.until_listed(trial.installation, 1).await?;
    same(&vms[0], &request)
}

pub(super) async fn what_is_unusual_comes_back_as_it_was_given(trial: &Trial<'_>) -> Result<(), Failure> {
    // Nothing that people write becomes a tag: ids, a role and a time are all there is.
    let usual = trial.request();
    let expires_at = usual.expires_at + TimeDelta::days(400) + TimeDelta::seconds(1);
    let mut request = CreateRequest { environment: None, role: Role::Builder, expires_at, ..usual };
    trial.create(&mut request).await?;
    let vms = trial.until_listed(trial.installation, 1).await?;
    same(&vms[0], &request)
}

pub(super) async fn nobody_sees_the_machines_of_a_neighbour(trial: &Trial<'_>) -> Result<(), Failure> {
    let mut ours = trial.request();
    let mut theirs = CreateRequest { installation: trial.other, ..trial.request() };
    trial.create(&mut ours).await?;
    trial.create(&mut theirs).await?;
    for (installation, request) in [(trial.installation, &ours), (trial.other, &theirs)] {
        let vms = trial.until_listed(installation, 1).await?;
        expect(vms[0].machine == request.machine, "list machines", &request.machine.to_string(), || shown(&vms))?;
    }
    // By now both are shown, so that what is seen twice would be.
    let vms = trial.list(trial.installation).await?;
    expect(vms.len() == 1, "list machines beside a neighbour's", "one's own", || shown(&vms))
}

fn same(vm: &Vm, request: &CreateRequest) -> Result<(), Failure> {
    let came = (vm.machine, vm.installation, vm.environment, vm.expires_at);
    let given = (request.machine, request.installation, request.environment, request.expires_at);
    expect(came == given && !vm.hold, "read a machine's tags", &format!("{given:?}, not held"), || {
        format!("{came:?}, held: {}", vm.hold)
    })
}
