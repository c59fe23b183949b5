//! What there is of an installation, and its removal.

use std::collections::HashSet;
use std::io::Write;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use stagely_cloud::{Cloud, CloudError, DeleteProgress, ErrorKind, Residue, Vm};
use stagely_domain::account::Settings;
use stagely_domain::clock::{Clock, SystemClock};
use stagely_domain::id::InstallationId;
use tokio::time::Instant;

use super::account::Account;
use super::told;
use crate::{ClientError, Exit};

/// How long what is deleted may take to be gone.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_secs(2);

/// An account, and whose machines are meant.
#[derive(Args)]
pub(crate) struct Sweep {
    #[command(flatten)]
    account: Account,
    /// `ins_…`: the value of `stagely-installation` on its machines.
    #[arg(long)]
    installation: InstallationId,
    /// Remove machines whose end has passed, and what they left behind.
    #[arg(long)]
    delete: bool,
    /// With `--delete`: remove the others too. Only for an installation that is no more.
    #[arg(long, requires = "delete")]
    all: bool,
}

/// `stagely cloud sweep`
pub(crate) async fn sweep(sweep: &Sweep, out: &mut (impl Write + ?Sized)) -> Result<Exit, ClientError> {
    let cloud = sweep.account.open(Settings::default())?;
    let found = Found::look(&*cloud, sweep, SystemClock.now()).await.map_err(told)?;
    found.show(out)?;
    if !found.whole {
        return Err(ClientError::Unavailable("the provider's list is not whole: nothing is removed by it".to_owned()));
    }
    if sweep.delete {
        found.remove(&*cloud, sweep, out).await?;
    }
    Ok(Exit::Done)
}

/// What there is of the installation.
struct Found {
    machines: Vec<(Vm, bool)>,
    residues: Vec<(Residue, bool)>,
    whole: bool,
    now: DateTime<Utc>,
}

impl Found {
    /// Reads both lists, and says of each thing whether it is to go.
    async fn look(cloud: &dyn Cloud, sweep: &Sweep, now: DateTime<Utc>) -> Result<Self, CloudError> {
        let listing = cloud.list(sweep.installation).await?;
        let residues = cloud.list_residue(sweep.installation).await?.with_whole_images_held();
        let goes = |vm: &Vm| !vm.hold && (sweep.all || vm.expires_at < now);
        let machines: Vec<(Vm, bool)> =
            listing.vms.into_iter().map(|vm| (goes(&vm), vm)).map(|(go, vm)| (vm, go)).collect();
        let stay: HashSet<_> = machines.iter().filter(|(_, goes)| !goes).map(|(vm, _)| vm.machine).collect();
        let residues_go = |residue: &Residue| {
            !residue.hold
                && match (residue.image, residue.machine) {
                    // Machines of days to come boot it.
                    (Some(_), _) => sweep.all,
                    (None, Some(machine)) => !stay.contains(&machine),
                    // All machines share it.
                    (None, None) => sweep.all && stay.is_empty(),
                }
        };
        let whole = listing.complete && residues.complete;
        let residues = residues.items.into_iter().map(|item| (residues_go(&item), item)).map(|(go, item)| (item, go));
        Ok(Self { machines, residues: residues.collect(), whole, now })
    }

    fn show(&self, out: &mut (impl Write + ?Sized)) -> std::io::Result<()> {
        let word = |goes: bool, hold: bool| match (goes, hold) {
            (true, _) => "goes",
            (false, true) => "held",
            (false, false) => "stays",
        };
        for (vm, goes) in &self.machines {
            let left = vm.expires_at - self.now;
            let end = if left < TimeDelta::zero() { "past its end" } else { "before its end" };
            let (machine, id, state) = (vm.machine, &vm.id, &vm.state);
            writeln!(out, "{}\tmachine\t{id}\t{machine}\t{state:?}\t{end}, {}", word(*goes, vm.hold), vm.expires_at)?;
        }
        for (residue, goes) in &self.residues {
            let of = match (residue.image, residue.machine) {
                (Some(image), _) => image.to_string(),
                (None, Some(machine)) => machine.to_string(),
                (None, None) => "shared".to_owned(),
            };
            writeln!(out, "{}\t{:?}\t{}\t{of}", word(*goes, residue.hold), residue.kind, residue.id)?;
        }
        writeln!(out, "{} machines, {} other things", self.machines.len(), self.residues.len())
    }

    /// Machines first: what is attached to one cannot go before it.
    async fn remove(
        &self,
        cloud: &dyn Cloud,
        sweep: &Sweep,
        out: &mut (impl Write + ?Sized),
    ) -> Result<(), ClientError> {
        let deadline = Instant::now() + PATIENCE;
        let mut failed = 0;
        for (vm, _) in self.machines.iter().filter(|(_, goes)| *goes) {
            failed += report(out, &vm.id.0, until_gone(deadline, || cloud.delete(&vm.id)).await)?;
        }
        if failed > 0 {
            return Err(sweep_again(failed));
        }
        // What a machine leaves behind shows only now.
        let rest = Self::look(cloud, sweep, self.now).await.map_err(told)?;
        // What belongs to a machine that is there and not listed would go.
        if !rest.whole {
            let message = "the provider's second list is not whole: the machines that were to go are gone, and nothing \
                           else is removed; sweep again";
            return Err(ClientError::Unavailable(message.to_owned()));
        }
        for (residue, _) in rest.residues.iter().filter(|(_, goes)| *goes) {
            failed += report(out, &residue.id, until_gone(deadline, || cloud.delete_residue(residue)).await)?;
        }
        match failed {
            0 => Ok(()),
            _ => Err(sweep_again(failed)),
        }
    }
}

fn sweep_again(failed: u32) -> ClientError {
    ClientError::Unavailable(format!("{failed} could not be removed: sweep again"))
}

/// Asks until it is gone, or held since it was listed, or refused for good.
async fn until_gone<F>(deadline: Instant, delete: impl Fn() -> F) -> Result<DeleteProgress, CloudError>
where
    F: Future<Output = stagely_cloud::Result<DeleteProgress>>,
{
    loop {
        let wait = match delete().await {
            Ok(DeleteProgress::InProgress) => LOOK,
            Ok(progress) => return Ok(progress),
            Err(CloudError { kind: ErrorKind::RateLimited { retry_after }, .. }) => retry_after.unwrap_or(LOOK),
            Err(error) if matches!(error.kind, ErrorKind::Conflict | ErrorKind::Unavailable | ErrorKind::Timeout) => {
                LOOK
            }
            Err(error) => return Err(error),
        };
        if Instant::now() + wait > deadline {
            return Err(CloudError::new(ErrorKind::Timeout, "delete", "it is not gone yet"));
        }
        tokio::time::sleep(wait).await;
    }
}

/// How many failed: one or none.
fn report(
    out: &mut (impl Write + ?Sized),
    id: &str,
    outcome: Result<DeleteProgress, CloudError>,
) -> Result<u32, ClientError> {
    match outcome {
        Ok(DeleteProgress::Held) => writeln!(out, "{id}: held")?,
        Ok(_) => writeln!(out, "{id}: removed")?,
        Err(error) => {
            writeln!(out, "{id}: {error}")?;
            return Ok(1);
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::TimeDelta;
    use clap::Parser;
    use stagely_cloud::testing::FakeCloud;
    use stagely_cloud::{Cloud, CreateRequest, Residue, ResidueKind, contract};
    use stagely_domain::clock::{Clock, SystemClock};
    use stagely_domain::id::{ImageId, InstallationId, MachineId};

    use super::{Found, Sweep};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        sweep: Sweep,
    }

    async fn machine(cloud: &FakeCloud, installation: InstallationId, hours: i64) -> MachineId {
        let request = contract::request(installation, &SystemClock);
        let request = CreateRequest { expires_at: SystemClock.now() + TimeDelta::hours(hours), ..request };
        cloud.create(&request).await.unwrap();
        request.machine
    }

    #[tokio::test]
    async fn what_the_second_look_does_not_show_keeps_what_is_its_own() {
        let (cloud, installation) = (FakeCloud::new(Arc::new(SystemClock)), InstallationId::generate());
        let (ended, wanted) = (machine(&cloud, installation, -1).await, machine(&cloud, installation, 1).await);
        let disk = Residue {
            kind: ResidueKind::Volume,
            id: "disk".to_owned(),
            installation,
            machine: Some(wanted),
            image: None,
            created_at: None,
            hold: false,
        };
        let other = Residue { id: "other".to_owned(), machine: Some(ended), ..disk.clone() };
        cloud.leave_behind(vec![disk.clone(), other]);
        let id = installation.to_string();
        let sweep = Line::try_parse_from(["sweep", "hetzner", "--delete", "--installation", &id]).unwrap().sweep;
        let found = Found::look(&cloud, &sweep, SystemClock.now()).await.unwrap();
        assert!(found.whole);
        let mut out = Vec::new();
        cloud.set_incomplete(true);
        let error = found.remove(&cloud, &sweep, &mut out).await.unwrap_err().to_string();
        assert!(error.contains("not whole") && error.contains("sweep again"), "{error}");
        assert_eq!((cloud.machines(), cloud.residue().len()), (vec![wanted], 2));
        cloud.set_incomplete(false);
        found.remove(&cloud, &sweep, &mut out).await.unwrap();
        assert_eq!((cloud.machines(), cloud.residue()), (vec![wanted], vec![disk]));
    }

    #[tokio::test]
    async fn an_image_of_which_a_person_holds_a_part_stays_whole() {
        let (cloud, installation) = (FakeCloud::new(Arc::new(SystemClock)), InstallationId::generate());
        let image = Residue {
            kind: ResidueKind::Image,
            id: "image".to_owned(),
            installation,
            machine: None,
            image: Some(ImageId::generate()),
            created_at: None,
            hold: false,
        };
        let part = Residue { kind: ResidueKind::Snapshot, id: "part".to_owned(), hold: true, ..image.clone() };
        cloud.leave_behind(vec![image, part]);
        let id = installation.to_string();
        let line = ["sweep", "hetzner", "--delete", "--all", "--installation", &id];
        let sweep = Line::try_parse_from(line).unwrap().sweep;
        let found = Found::look(&cloud, &sweep, SystemClock.now()).await.unwrap();
        found.remove(&cloud, &sweep, &mut Vec::new()).await.unwrap();
        assert_eq!(cloud.residue().len(), 2);
    }
}
