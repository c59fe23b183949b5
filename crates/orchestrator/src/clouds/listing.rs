//! One list of an account's machines for all who look at one of them, since requests are counted. A provider that does not
//! answer is waited for by few of them.

use std::collections::HashMap;
use std::time::Duration;

use stagely_cloud::{Cloud, CloudError, Listing, Vm};
use stagely_domain::id::{InstallationId, MachineId};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long a list of the account's machines is believed to hold those that it shows, for each request that it takes: of an
/// allowance of one a second, the smallest of all providers, lists of a few hundred machines take a tenth.
const LISTING: Duration = Duration::from_secs(10);
/// The longest. A sweep's list comes sooner, and serves as well.
const LONGEST_LISTING: Duration = Duration::from_secs(90);
/// Machines in one answer, at the provider with the shortest.
const PAGE: usize = 50;
/// How long nobody asks again after the provider failed to list.
const PAUSE: Duration = Duration::from_secs(15);
/// Longer than any list takes.
const LONGEST_FLIGHT: Duration = Duration::from_secs(600);

/// What the provider has listed last, and who asks it.
#[derive(Default)]
pub(super) struct Listings {
    known: Mutex<Known>,
    /// Held by the one who asks for a list for which others wait.
    asking: Mutex<()>,
}

#[derive(Default)]
struct Known {
    list: Option<List>,
    /// When the provider failed to list, and how, if it has not listed since.
    failure: Option<(Instant, CloudError)>,
    /// When something was last done to a machine.
    outdated: HashMap<MachineId, Instant>,
}

struct List {
    asked_at: Instant,
    came_at: Instant,
    listing: Listing,
}

impl Listings {
    /// What a list shows of a machine. Whoever comes while one is under way is served by that; after a failure, until there is
    /// a list again, one at a time asks and the others have that failure at once.
    pub(super) async fn show(
        &self,
        cloud: &dyn Cloud,
        installation: InstallationId,
        machine: MachineId,
    ) -> Result<Vec<Vm>, CloudError> {
        let since = Instant::now();
        let failure = {
            let known = self.known.lock().await;
            if let Some(answer) = known.answer(machine, since) {
                return answer;
            }
            known.failure.clone()
        };
        let _asking = match failure {
            None => self.asking.lock().await,
            Some((_, error)) => match self.asking.try_lock() {
                Ok(asking) => asking,
                Err(_) => return Err(error),
            },
        };
        if let Some(answer) = self.known.lock().await.answer(machine, since) {
            return answer;
        }
        let listing = self.ask(cloud, installation).await?;
        Ok(of_machine(&listing, machine))
    }

    /// A new list, which serves those who look next; a failure to list keeps them from asking for a while.
    pub(super) async fn ask(&self, cloud: &dyn Cloud, installation: InstallationId) -> Result<Listing, CloudError> {
        let asked_at = Instant::now();
        let outcome = cloud.list(installation).await;
        self.known.lock().await.note(asked_at, &outcome);
        outcome
    }

    /// What lists that were asked for until now show of a machine is of the past.
    pub(super) async fn outdate(&self, machine: MachineId) {
        let mut known = self.known.lock().await;
        known.outdated.insert(machine, Instant::now());
        if let Some(list) = &mut known.list {
            list.listing.vms.retain(|vm| vm.machine != machine);
        }
    }
}

impl Known {
    /// The answer to who has waited since then, if nobody has to be asked for it.
    fn answer(&self, machine: MachineId, since: Instant) -> Option<Result<Vec<Vm>, CloudError>> {
        let serves =
            |list: &&List| list.came_at >= since || list.asked_at.elapsed() <= believed(list.listing.vms.len());
        if let Some(list) = self.list.as_ref().filter(serves) {
            return Some(Ok(of_machine(&list.listing, machine)));
        }
        let failure = self.failure.as_ref().filter(|(at, _)| at.elapsed() < PAUSE);
        failure.map(|(_, error)| Err(error.clone()))
    }

    fn note(&mut self, asked_at: Instant, outcome: &Result<Listing, CloudError>) {
        let came_at = Instant::now();
        let mut listing = match outcome {
            Ok(listing) => listing.clone(),
            Err(error) => {
                self.failure = Some((came_at, error.clone()));
                return;
            }
        };
        self.failure = None;
        if self.list.as_ref().is_some_and(|list| list.asked_at > asked_at) {
            return;
        }
        listing.vms.retain(|vm| self.outdated.get(&vm.machine).is_none_or(|at| *at < asked_at));
        self.outdated.retain(|_, at| at.elapsed() < LONGEST_FLIGHT);
        self.list = Some(List { asked_at, came_at, listing });
    }
}

fn of_machine(listing: &Listing, machine: MachineId) -> Vec<Vm> {
    listing.vms.iter().filter(|vm| vm.machine == machine).cloned().collect()
}

/// How long a list of so many machines is believed. What runs and what sleeps are on pages of their own, of which the last
/// may not be full.
fn believed(machines: usize) -> Duration {
    let requests = u32::try_from(machines / PAGE).unwrap_or(u32::MAX).saturating_add(2);
    LISTING.saturating_mul(requests).min(LONGEST_LISTING)
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_LISTING, PAGE, believed};

    #[test]
    fn lists_take_a_tenth_of_the_smallest_allowance_and_no_list_is_believed_for_long() {
        for machines in [0, 1, PAGE, PAGE + 1, 200, 350] {
            // Those that run, those that sleep, and a page of each that is not full.
            let requests = u64::try_from(machines / PAGE + 2).unwrap();
            assert!(believed(machines).as_secs() >= 10 * requests, "{machines} machines");
        }
        assert!([500, 5_000, usize::MAX].iter().all(|machines| believed(*machines) == LONGEST_LISTING));
    }
}
