//! What a case works with: an account, an installation id of its own, patience, money; and the clearing up.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stagely_domain::clock::Clock;
use stagely_domain::id::{InstallationId, MachineId};
use stagely_domain::machine::{Arch, Size};
use tokio::time::{Instant, sleep};

use super::failure::expect;
use super::{Failure, Purse, request};
use crate::catalogue::candidates;
use crate::{
    Cloud, CloudError, CreateRequest, Created, DeleteProgress, ErrorKind, Offering, ProviderId, SleepProgress, Vm,
    VmState,
};

/// Types and places that are asked for one machine, one after the other, where there is no room.
pub(super) const TRIES: usize = 3;

/// How long to wait for a cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For one thing to come about: a machine that runs, sleeps or is gone, a list that shows it.
    pub step: Duration,
    /// Between two looks.
    pub look: Duration,
    /// For a whole case, which ends then.
    pub case: Duration,
    /// For clearing up after one.
    pub clearing: Duration,
}

impl Patience {
    /// The longest that a machine of a case is there.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.case + self.clearing
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            step: Duration::from_secs(480),
            look: Duration::from_secs(3),
            case: Duration::from_secs(1500),
            clearing: Duration::from_secs(900),
        }
    }
}

/// One case at one account.
pub struct Trial<'t> {
    pub(super) cloud: &'t dyn Cloud,
    pub(super) clock: &'t dyn Clock,
    pub(super) offerings: &'t [Offering],
    patience: Patience,
    purse: &'t Purse,
    pub(super) installation: InstallationId,
    /// Another one, for cases about two.
    pub(super) other: InstallationId,
    made: Mutex<BTreeSet<(InstallationId, MachineId, Option<String>)>>,
}

impl<'t> Trial<'t> {
    /// A trial that has made nothing yet, with the types that the provider sells.
    #[must_use]
    pub fn new(
        cloud: &'t dyn Cloud,
        clock: &'t dyn Clock,
        offerings: &'t [Offering],
        patience: Patience,
        purse: &'t Purse,
    ) -> Self {
        let installation = InstallationId::generate();
        Self {
            cloud,
            clock,
            offerings,
            patience,
            purse,
            installation,
            other: neighbour(installation),
            made: Mutex::default(),
        }
    }

    /// Whose machines the case makes: what is to be swept should it be killed.
    #[must_use]
    pub fn installations(&self) -> [InstallationId; 2] {
        [self.installation, self.other]
    }

    /// The types that a small machine of `arch` is asked for as, in that order.
    #[must_use]
    pub fn tried(offerings: &[Offering], arch: Arch) -> Vec<&Offering> {
        candidates(offerings, Size::Small, arch, &[]).into_iter().take(TRIES).collect()
    }

    /// A request of this trial's installation for the first type that is tried.
    pub(super) fn request(&self) -> CreateRequest {
        let request = request(self.installation, self.clock);
        let offering = Self::tried(self.offerings, request.arch).first().copied().cloned();
        CreateRequest { offering, ..request }
    }

    /// Makes a machine, as the next type where there is no room for one. The request says afterwards what it was.
    pub(super) async fn create(&self, request: &mut CreateRequest) -> Result<Created, Failure> {
        let first = request.offering.clone();
        let tried = Self::tried(self.offerings, request.arch).into_iter();
        let mut next = tried.skip_while(|offering| Some(*offering) != first.as_ref()).skip(1).cloned();
        loop {
            match self.create_as_is(request).await? {
                Ok(created) => return Ok(created),
                Err(error) if error.kind == ErrorKind::Capacity && !error.ambiguous => match next.next() {
                    Some(offering) => (request.offering, request.attempt) = (Some(offering), request.attempt + 1),
                    None => return Err(Failure::refused("create a machine", &error)),
                },
                Err(error) => return Err(Failure::refused("create a machine", &error)),
            }
        }
    }

    /// One create, once what it can cost is set aside, and as often as the provider is only busy. After a call that may have
    /// taken effect the machine is looked for first, and what was set aside for that call stays so.
    pub(super) async fn create_as_is(&self, request: &CreateRequest) -> Result<Result<Created, CloudError>, Failure> {
        self.note(request, None);
        let (deadline, mut in_doubt) = (Instant::now() + self.patience.step, false);
        loop {
            if in_doubt && let Some(created) = self.made_before(request).await? {
                return Ok(Ok(created));
            }
            self.purse.take(request.offering.as_ref())?;
            let error = match self.cloud.create(request).await {
                Ok(created) => {
                    self.note(request, Some(created.id.0.clone()));
                    return Ok(Ok(created));
                }
                Err(error) => error,
            };
            match error.ambiguous {
                true => in_doubt = true,
                false => self.purse.put_back(request.offering.as_ref()),
            }
            match self.pause(&error).filter(|pause| Instant::now() + *pause < deadline) {
                Some(pause) => sleep(pause).await,
                None => return Ok(Err(CloudError { ambiguous: in_doubt, ..error })),
            }
        }
    }

    /// The machine that a call before has made, if it is shown.
    async fn made_before(&self, request: &CreateRequest) -> Result<Option<Created>, Failure> {
        let found = self.patiently(|| self.cloud.find(request.machine)).await;
        let found = found.map_err(|error| Failure::refused("look for a machine that may have been made", &error))?;
        let ours = found.into_iter().find(|vm| vm.installation == request.installation);
        Ok(ours.map(|vm| {
            self.note(request, Some(vm.id.0.clone()));
            Created { id: vm.id, address: vm.address }
        }))
    }

    /// Makes a machine and waits until it runs.
    pub(super) async fn running(&self) -> Result<(CreateRequest, Created, Vm), Failure> {
        let mut request = self.request();
        let created = self.create(&mut request).await?;
        let vm = self.until_running(request.machine).await?;
        Ok((request, created, vm))
    }

    /// Looks until the machine is shown running with an address. That it is not shown at first is no failure.
    pub(super) async fn until_running(&self, machine: MachineId) -> Result<Vm, Failure> {
        self.until_shown(machine, "a machine that runs and has an address", |vm| {
            vm.state == VmState::Running && vm.address.is_some()
        })
        .await
    }

    /// Looks until the machine is shown so.
    pub(super) async fn until_shown(
        &self,
        machine: MachineId,
        expected: &str,
        is_so: impl Fn(&Vm) -> bool,
    ) -> Result<Vm, Failure> {
        let deadline = Instant::now() + self.patience.step;
        loop {
            let found = self.patiently(|| self.cloud.find(machine)).await;
            let found = found.map_err(|error| Failure::refused("find a machine", &error))?;
            match found.iter().find(|vm| is_so(vm)) {
                Some(vm) => return Ok(vm.clone()),
                None if Instant::now() >= deadline => {
                    return Err(Failure::new("find a machine that was made", expected, shown(&found)));
                }
                None => sleep(self.patience.look).await,
            }
        }
    }

    /// Every machine of an installation, by a whole list.
    pub(super) async fn list(&self, installation: InstallationId) -> Result<Vec<Vm>, Failure> {
        let listing = self.patiently(|| self.cloud.list(installation)).await;
        let listing = listing.map_err(|error| Failure::refused("list machines", &error))?;
        expect(listing.complete, "list machines", "a whole list", || "a partial one".to_owned())?;
        Ok(listing.vms)
    }

    /// Looks until the list shows so many machines.
    pub(super) async fn until_listed(&self, installation: InstallationId, wanted: usize) -> Result<Vec<Vm>, Failure> {
        let deadline = Instant::now() + self.patience.step;
        loop {
            let vms = self.list(installation).await?;
            if vms.len() == wanted {
                return Ok(vms);
            }
            let late = Instant::now() >= deadline;
            expect(!late, "list machines", &format!("{wanted} of them"), || shown(&vms))?;
            sleep(self.patience.look).await;
        }
    }

    /// Deletes a machine, however many calls that takes.
    pub(super) async fn delete(&self, id: &ProviderId) -> Result<(), Failure> {
        self.repeat("delete a machine", || async { Ok(self.cloud.delete(id).await? == DeleteProgress::Gone) }).await
    }

    /// Puts a machine to sleep, however many calls that takes.
    pub(super) async fn put_to_sleep(&self, id: &ProviderId) -> Result<(), Failure> {
        let asleep = || async { Ok(self.cloud.hibernate(id).await? == SleepProgress::Asleep) };
        self.repeat("put a machine to sleep", asleep).await
    }

    /// Wakes a machine, once what that can cost is set aside, and waits until it runs.
    pub(super) async fn wake(&self, id: &ProviderId, request: &CreateRequest) -> Result<Vm, Failure> {
        self.purse.take(request.offering.as_ref())?;
        self.repeat("wake a machine", || async { self.cloud.wake(id).await.map(|_| true) }).await?;
        self.until_running(request.machine).await
    }

    /// Calls until it is done.
    pub(super) async fn repeat<F>(&self, did: &str, call: impl Fn() -> F) -> Result<(), Failure>
    where
        F: Future<Output = crate::Result<bool>>,
    {
        let deadline = Instant::now() + self.patience.step;
        loop {
            let done = self.patiently(&call).await.map_err(|error| Failure::refused(did, &error))?;
            if done {
                return Ok(());
            }
            expect(Instant::now() < deadline, did, "that it ends", || format!("not in {:?}", self.patience.step))?;
            sleep(self.patience.look).await;
        }
    }

    /// Calls again while the provider is only busy or not well.
    pub(super) async fn patiently<T, F>(&self, call: impl Fn() -> F) -> crate::Result<T>
    where
        F: Future<Output = crate::Result<T>>,
    {
        let deadline = Instant::now() + self.patience.step;
        loop {
            let error = match call().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            match self.pause(&error).filter(|pause| Instant::now() + *pause < deadline) {
                Some(pause) => sleep(pause).await,
                None => return Err(error),
            }
        }
    }

    /// How long to wait before a call is made again that failed so; nothing when it would fail again.
    fn pause(&self, error: &CloudError) -> Option<Duration> {
        match error.kind {
            ErrorKind::RateLimited { retry_after } => Some(retry_after.unwrap_or(self.patience.look * 4)),
            ErrorKind::Conflict | ErrorKind::Unavailable | ErrorKind::Timeout => Some(self.patience.look),
            _ => None,
        }
    }

    /// Runs what a case does, no longer than it may take.
    pub(super) async fn within<F>(&self, case: F) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), Failure>>,
    {
        let late = |_| {
            let came = format!("it was given up after {:?}", self.patience.case);
            Failure::new("wait for the case to end", "that every step is done in its time", came)
        };
        tokio::time::timeout(self.patience.case, case).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
    }

    /// Removes all that the case made, whatever became of it, and says what it could not remove: an empty list is a clean
    /// account.
    pub async fn clear(&self) -> Vec<String> {
        tokio::time::timeout(self.patience.clearing, self.remove_all())
            .await
            .unwrap_or_else(|_| self.left("not in time"))
    }

    async fn remove_all(&self) -> Vec<String> {
        let mut left = Vec::new();
        let made: Vec<_> = self.made().iter().cloned().collect();
        // Lists may be late: what we know of goes by its id, shown or not.
        for (_, machine, id) in &made {
            let found = self.patiently(|| self.cloud.find(*machine)).await.unwrap_or_default();
            let ids: BTreeSet<String> = found.into_iter().map(|vm| vm.id.0).chain(id.clone()).collect();
            for id in ids {
                if let Err(failure) = self.delete(&ProviderId(id.clone())).await {
                    left.push(format!("machine {machine} ({id}): {}", failure.came));
                }
            }
        }
        let installations: BTreeSet<InstallationId> = made.iter().map(|(installation, _, _)| *installation).collect();
        for installation in installations {
            if let Err(failure) = self.empty(installation).await {
                left.push(format!("{installation}: {failure}"));
            }
        }
        if left.is_empty() {
            self.made().clear();
        }
        left
    }

    /// Removes what the lists show, until they show nothing twice in a row.
    async fn empty(&self, installation: InstallationId) -> Result<(), Failure> {
        let deadline = Instant::now() + self.patience.step;
        let mut seen_empty = 0;
        while seen_empty < 2 {
            let vms = self.list(installation).await?;
            for vm in &vms {
                self.delete(&vm.id).await?;
            }
            let residues = self.patiently(|| self.cloud.list_residue(installation)).await;
            let residues = residues.map_err(|error| Failure::refused("list what is left over", &error))?;
            for residue in &residues.items {
                let gone = || async { Ok(self.cloud.delete_residue(residue).await? == DeleteProgress::Gone) };
                self.repeat(&format!("remove the {:?} {}", residue.kind, residue.id), gone).await?;
            }
            let is_empty = vms.is_empty() && residues.items.is_empty() && residues.complete;
            seen_empty = if is_empty { seen_empty + 1 } else { 0 };
            expect(is_empty || Instant::now() < deadline, "clear up", "an empty account", || {
                let things = residues.items.iter().map(|item| format!("{:?} {}", item.kind, item.id));
                format!("{}; {}", shown(&vms), things.collect::<Vec<_>>().join(", "))
            })?;
            sleep(self.patience.look).await;
        }
        Ok(())
    }

    /// What was made and is not known to be gone.
    #[must_use]
    pub fn left(&self, why: &str) -> Vec<String> {
        self.made()
            .iter()
            .map(|(installation, machine, id)| {
                format!("{installation}: machine {machine} ({}): {why}", id.as_deref().unwrap_or("its id is not known"))
            })
            .collect()
    }

    /// Before it is asked for: a call may take effect although its answer is lost.
    fn note(&self, request: &CreateRequest, id: Option<String>) {
        self.made().insert((request.installation, request.machine, id));
    }

    fn made(&self) -> MutexGuard<'_, BTreeSet<(InstallationId, MachineId, Option<String>)>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An installation whose id differs in its last letter alone.
fn neighbour(installation: InstallationId) -> InstallationId {
    let text = installation.to_string();
    let begin = &text[..text.len() - 1];
    let others = ('0'..='9').filter_map(|last| format!("{begin}{last}").parse().ok());
    others.into_iter().find(|other| *other != installation).unwrap_or_else(InstallationId::generate)
}

/// Machines in few words.
pub(super) fn shown(vms: &[Vm]) -> String {
    match vms {
        [] => "no machine".to_owned(),
        vms => {
            vms.iter().map(|vm| format!("{} ({}, {:?})", vm.machine, vm.id, vm.state)).collect::<Vec<_>>().join(", ")
        }
    }
}
