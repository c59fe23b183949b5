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
/// So many may always go at once.
const FEW: usize = 5;
/// By so much the clocks of two hosts may differ.
const WRONG_CLOCK: TimeDelta = TimeDelta::minutes(5);

/// An account, and whose machines are meant.
#[derive(Args)]
pub(crate) struct Sweep {
    #[command(flatten)]
    account: Account,
    /// `ins_…`: the value of `stagely-installation` on its machines. Without it the installations that have machines there
    /// are listed.
    #[arg(long)]
    installation: Option<InstallationId>,
    /// Remove machines whose end has passed, and what they left behind.
    #[arg(long, requires = "installation")]
    delete: bool,
    /// With `--delete`: remove the others too. Only for an installation that is no more.
    #[arg(long, requires = "delete")]
    all: bool,
    /// With `--delete`: remove so many things at most. Without it a fifth of what there is, or five: if more would go,
    /// nothing does.
    #[arg(long, requires = "delete")]
    max: Option<usize>,
}

/// `stagely cloud sweep`
pub(crate) async fn sweep(sweep: &Sweep, out: &mut (impl Write + ?Sized)) -> Result<Exit, ClientError> {
    let cloud = sweep.account.open(Settings::default())?;
    let Some(installation) = sweep.installation else { return list_installations(&*cloud, out).await };
    let found = Found::look(&*cloud, installation, sweep.all, SystemClock.now()).await.map_err(told)?;
    found.show(out)?;
    if !found.whole {
        return Err(ClientError::Unavailable("the provider's list is not whole: nothing is removed by it".to_owned()));
    }
    if sweep.delete {
        // With `--all` no end counts.
        if !sweep.all {
            check_clock(cloud.clock_ahead())?;
        }
        found.remove(&*cloud, sweep.max, out).await?;
    }
    Ok(Exit::Done)
}

/// Says which installations can be meant.
async fn list_installations(cloud: &dyn Cloud, out: &mut (impl Write + ?Sized)) -> Result<Exit, ClientError> {
    let found = cloud.installations().await.map_err(told)?;
    for (installation, machines) in &found {
        writeln!(out, "{installation}\t{machines} machines")?;
    }
    match found.is_empty() {
        true => writeln!(out, "no installation has machines there")?,
        false => writeln!(out, "say which one is meant: --installation ins_…")?,
    }
    Ok(Exit::Done)
}

/// Whether a machine is past its end is told by this host's clock.
fn check_clock(ahead: Option<TimeDelta>) -> Result<(), ClientError> {
    match ahead {
        Some(ahead) if ahead.abs() > WRONG_CLOCK => Err(ClientError::Setup(format!(
            "the clock of this host is {} minutes {} the provider's: set it right, then sweep again; nothing was removed",
            ahead.num_minutes().abs(),
            if ahead > TimeDelta::zero() { "ahead of" } else { "behind" }
        ))),
        _ => Ok(()),
    }
}

/// What there is of the installation.
struct Found {
    installation: InstallationId,
    /// Whether everything is to go that nobody holds.
    all: bool,
    machines: Vec<(Vm, bool)>,
    residues: Vec<(Residue, bool)>,
    whole: bool,
    now: DateTime<Utc>,
}

impl Found {
    /// Reads both lists, and says of each thing whether it is to go.
    async fn look(
        cloud: &dyn Cloud,
        installation: InstallationId,
        all: bool,
        now: DateTime<Utc>,
    ) -> Result<Self, CloudError> {
        let listing = cloud.list(installation).await?;
        let residues = cloud.list_residue(installation).await?.with_whole_images_held();
        let goes = |vm: &Vm| !vm.hold && (all || vm.expires_at < now);
        let machines: Vec<(Vm, bool)> =
            listing.vms.into_iter().map(|vm| (goes(&vm), vm)).map(|(go, vm)| (vm, go)).collect();
        let stay: HashSet<_> = machines.iter().filter(|(_, goes)| !goes).map(|(vm, _)| vm.machine).collect();
        let residues_go = |residue: &Residue| {
            !residue.hold
                && match (residue.image, residue.machine) {
                    // Machines of days to come boot it.
                    (Some(_), _) => all,
                    (None, Some(machine)) => !stay.contains(&machine),
                    // All machines share it.
                    (None, None) => all && stay.is_empty(),
                }
        };
        let whole = listing.complete && residues.complete;
        let residues = residues.items.into_iter().map(|item| (residues_go(&item), item)).map(|(go, item)| (item, go));
        Ok(Self { installation, all, machines, residues: residues.collect(), whole, now })
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

    /// Refuses to remove more at once than a person said, or than seldom is an accident.
    fn check_number(&self, going: usize, max: Option<usize>) -> Result<(), ClientError> {
        let few = FEW.max((self.machines.len() + self.residues.len()) / 5);
        if going <= max.unwrap_or(few) {
            return Ok(());
        }
        let most = match max {
            Some(max) => format!("--max allows {max}"),
            None => format!("without --max no more than {few} go at once"),
        };
        Err(ClientError::Setup(format!(
            "{going} things would go, and {most}: nothing more was removed; look at what a sweep without --delete lists, \
             and if all of it is to go, say --max {going}"
        )))
    }

    /// Machines first: what is attached to one cannot go before it.
    async fn remove(
        &self,
        cloud: &dyn Cloud,
        max: Option<usize>,
        out: &mut (impl Write + ?Sized),
    ) -> Result<(), ClientError> {
        let going = |found: &[(Residue, bool)]| found.iter().filter(|(_, goes)| *goes).count();
        let machines = self.machines.iter().filter(|(_, goes)| *goes).count();
        self.check_number(machines + going(&self.residues), max)?;
        let deadline = Instant::now() + PATIENCE;
        let mut failed = 0;
        for (vm, _) in self.machines.iter().filter(|(_, goes)| *goes) {
            failed += report(out, &vm.id.0, until_gone(deadline, || cloud.delete(&vm.id)).await)?;
        }
        if failed > 0 {
            return Err(sweep_again(failed));
        }
        // What a machine leaves behind shows only now.
        let rest = Self::look(cloud, self.installation, self.all, self.now).await.map_err(told)?;
        // What belongs to a machine that is there and not listed would go.
        if !rest.whole {
            let message = "the provider's second list is not whole: the machines that were to go are gone, and nothing \
                           else is removed; sweep again";
            return Err(ClientError::Unavailable(message.to_owned()));
        }
        self.check_number(machines + going(&rest.residues), max)?;
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

    use super::{Found, Sweep, check_clock};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        sweep: Sweep,
    }

    #[test]
    fn nothing_is_removed_of_what_no_installation_is_said() {
        for (arguments, is_right) in [
            (&["sweep", "--account", "hetzner"][..], true),
            (&["sweep", "--account", "hetzner", "--delete"], false),
            (&["sweep", "--account", "hetzner", "--all"], false),
            (&["sweep", "--account", "hetzner", "--max", "3"], false),
        ] {
            assert_eq!(Line::try_parse_from(arguments).is_ok(), is_right, "{arguments:?}");
        }
    }

    #[test]
    fn a_clock_that_differs_from_the_providers_by_minutes_is_refused() {
        for (ahead, words) in [(6, "6 minutes ahead of"), (-90, "90 minutes behind")] {
            let error = check_clock(Some(TimeDelta::minutes(ahead))).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        for ahead in [None, Some(TimeDelta::minutes(4)), Some(TimeDelta::minutes(-4))] {
            check_clock(ahead).unwrap();
        }
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
        let found = Found::look(&cloud, installation, false, SystemClock.now()).await.unwrap();
        assert!(found.whole);
        let mut out = Vec::new();
        cloud.set_incomplete(true);
        let error = found.remove(&cloud, None, &mut out).await.unwrap_err().to_string();
        assert!(error.contains("not whole") && error.contains("sweep again"), "{error}");
        assert_eq!((cloud.machines(), cloud.residue().len()), (vec![wanted], 2));
        cloud.set_incomplete(false);
        found.remove(&cloud, None, &mut out).await.unwrap();
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
        let found = Found::look(&cloud, installation, true, SystemClock.now()).await.unwrap();
        found.remove(&cloud, None, &mut Vec::new()).await.unwrap();
        assert_eq!(cloud.residue().len(), 2);
    }
}
