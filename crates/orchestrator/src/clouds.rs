//! The accounts in use: each one's provider, where it may make machines, and what it can make.

mod listing;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use stagely_cloud::account::{self, Apis};
use stagely_cloud::catalogue::{candidates, is_in};
use stagely_cloud::{Catalogue, Cloud, CloudError, CreateRequest, Created, ErrorKind, Listing, Offering, Vm, VmState};
use stagely_domain::account::Credentials;
use stagely_domain::clock::Clock;
use stagely_domain::id::{CloudAccountId, ImageId, InstallationId, MachineId};
use stagely_domain::machine::{Arch, Provider};
use stagely_reconcile::{ErrorClass, StepError};
use stagely_store::machines::Machine;
use stagely_store::seal::KeyRing;
use stagely_store::tenants::CloudAccount;
use stagely_store::{Power, Scope, Store};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::context::{cloud_error, store_error};
use listing::Listings;

/// How long a provider's word on types, prices and room is believed.
const CATALOGUE: Duration = Duration::from_secs(3600);
/// The same, while a part of the account, or its prices, could not be read.
const PART_OF_CATALOGUE: Duration = Duration::from_secs(60);
/// How long nobody asks again after it could not be read: whoever has waited for that answer meanwhile has it, too, and
/// does not ask a provider that does not answer once more.
const NO_CATALOGUE: Duration = Duration::from_secs(1);
const OPEN: &str = "open a cloud account";

/// One client per account. Everything on this host is one `qemu`.
pub struct Clouds {
    store: Store,
    keys: KeyRing,
    clock: Arc<dyn Clock>,
    apis: Apis,
    qemu: Arc<dyn Cloud>,
    open: Mutex<HashMap<CloudAccountId, Arc<Account>>>,
}

/// An account that was opened.
pub struct Account {
    pub cloud: Arc<dyn Cloud>,
    /// That of the row by which it was opened.
    pub generation: i64,
    /// Where it may make machines, the best first; everywhere when it is empty.
    locations: Vec<String>,
    /// When its catalogue was read last, or refused.
    catalogue: Mutex<Option<(Instant, CatalogueRead)>>,
    listings: Listings,
    /// Machines of which all that is shown has said to this process that it sleeps.
    asleep: Mutex<HashSet<MachineId>>,
}

/// A catalogue, or why it could not be read.
type CatalogueRead = Result<Arc<Catalogue>, CloudError>;

/// How long that is believed.
fn lasts(read: &CatalogueRead) -> Duration {
    match read {
        Ok(catalogue) if catalogue.unread.is_none() && !catalogue.lacks_prices => CATALOGUE,
        Ok(_) => PART_OF_CATALOGUE,
        Err(_) => NO_CATALOGUE,
    }
}

/// The machines and golden images that an account has by its rows.
pub struct Known {
    pub installation: InstallationId,
    pub machines: HashSet<MachineId>,
    pub images: HashSet<ImageId>,
}

/// What an account's provider showed of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// One at least.
    Known,
    Nothing,
}

/// Which type in which place a machine is to be created as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// This one.
    Offering(Offering),
    /// The provider has no catalogue: size and architecture say all.
    Any,
    /// Everything that fits was tried, or nothing does.
    Nothing,
    /// The first of the wished places that the account does not have or does not allow, and those that it does.
    Nowhere { wish: String, places: Vec<String> },
}

impl Clouds {
    pub fn new(store: Store, keys: KeyRing, clock: Arc<dyn Clock>, apis: Apis, qemu: Arc<dyn Cloud>) -> Self {
        Self { store, keys, clock, apis, qemu, open: Mutex::default() }
    }

    /// The provider of this host.
    pub fn metal(&self) -> Arc<dyn Cloud> {
        Arc::clone(&self.qemu)
    }

    /// An account, by the settings and credentials that its row has now: the row is read each time, and the client is
    /// another one when it was changed since.
    pub async fn of(&self, account: CloudAccountId) -> Result<Arc<Account>, StepError> {
        let row = self.store.get_cloud_account(&Scope::system(OPEN), account).await.map_err(store_error(OPEN))?;
        let mut open = self.open.lock().await;
        if let Some(account) = open.get(&account).filter(|account| account.generation == row.generation) {
            return Ok(Arc::clone(account));
        }
        let opened = Arc::new(self.open(&row)?);
        open.insert(account, Arc::clone(&opened));
        Ok(opened)
    }

    /// Whether an account's provider makes machines with this processor; none when the account cannot be opened.
    pub async fn makes(&self, account: CloudAccountId, arch: Arch) -> Option<bool> {
        let account = self.of(account).await.ok()?;
        Some(account.cloud.capabilities().arches.contains(&arch))
    }

    /// Asks the provider whether the account works; the failure is for the account's owner.
    pub async fn verify(&self, row: &CloudAccount, known: &Known) -> Result<Seen, StepError> {
        let doing = "verify a cloud account";
        let account = self.open(row)?;
        account.cloud.check_access().await.map_err(cloud_error(doing))?;
        look_for(&*account.cloud, known).await.map_err(cloud_error(doing))
    }

    fn open(&self, row: &CloudAccount) -> Result<Account, StepError> {
        let cloud = match row.kind {
            Provider::Qemu => Arc::clone(&self.qemu),
            kind => {
                let (credentials, clock) = (self.credentials(row)?, Arc::clone(&self.clock));
                account::open(kind, &row.settings, &credentials, &self.apis, clock).map_err(cloud_error(OPEN))?
            }
        };
        Ok(Account { generation: row.generation, ..Account::new(cloud, row.settings.places().to_vec()) })
    }

    fn credentials(&self, row: &CloudAccount) -> Result<Credentials, StepError> {
        let sealed = row.credentials_sealed.as_deref().unwrap_or_default();
        let text = self.keys.open_text(&CloudAccount::place(row.id, row.team), sealed).map_err(store_error(OPEN))?;
        Credentials::from_text(row.kind, &text).map_err(|message| StepError::new(ErrorClass::Permanent, OPEN, message))
    }
}

impl Account {
    /// An account of which nothing was read yet.
    pub fn new(cloud: Arc<dyn Cloud>, locations: Vec<String>) -> Self {
        Self {
            cloud,
            generation: 1,
            locations,
            catalogue: Mutex::default(),
            listings: Listings::default(),
            asleep: Mutex::default(),
        }
    }

    /// What `machine` is to be created as: what was chosen before, until the provider refused it, or else the best that was
    /// not tried yet.
    pub async fn choose(&self, machine: &Machine) -> Result<Choice, CloudError> {
        if let Some(chosen) = &machine.offering {
            return Ok(Choice::Offering(chosen.clone()));
        }
        let catalogue = self.catalogue().await?;
        let (mut offerings, unread) = (Cow::Borrowed(&catalogue.offerings), catalogue.unread.clone());
        let mut locations = &self.locations;
        if !machine.locations.is_empty() {
            // A wish chooses among what the account allows, and replaces its order.
            let allows = |place: &str| locations.is_empty() || locations.iter().any(|named| is_in(place, named));
            offerings.to_mut().retain(|offering| allows(&offering.location));
            locations = &machine.locations;
            let places: BTreeSet<&str> = offerings.iter().map(|offering| offering.location.as_str()).collect();
            let is_nowhere = |wish: &&String| !places.iter().any(|place| is_in(place, wish));
            if let Some(wish) = locations.iter().find(is_nowhere).filter(|_| unread.is_none()) {
                let places = places.into_iter().map(str::to_owned).collect();
                return Ok(Choice::Nowhere { wish: wish.clone(), places });
            }
        }
        if offerings.is_empty() {
            return unread.map_or(Ok(Choice::Any), Err);
        }
        let fitting = candidates(&offerings, machine.size, machine.arch, locations);
        let untried = fitting.into_iter().find(|offering| !machine.tried.contains(&offering.to_string()));
        match (untried, unread) {
            (Some(offering), _) => Ok(Choice::Offering(offering.clone())),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(Choice::Nothing),
        }
    }

    /// Creates a machine. When its type is refused as wrong and the catalogue, read anew, has it no more or has no room of
    /// it, there is none left of it: what was chosen was true once.
    pub async fn create(&self, request: &CreateRequest) -> Result<Created, CloudError> {
        let error = match self.cloud.create(request).await {
            Ok(created) => return Ok(created),
            Err(error) => error,
        };
        let Some(chosen) = request.offering.as_ref().filter(|_| error.kind == ErrorKind::Invalid && !error.ambiguous)
        else {
            return Err(error);
        };
        *self.catalogue.lock().await = None;
        // Without a new catalogue, the refusal is all that is known.
        let Ok(catalogue) = self.catalogue().await else { return Err(error) };
        let is_sold = catalogue
            .offerings
            .iter()
            .any(|sold| sold.available && (&sold.name, &sold.location) == (&chosen.name, &chosen.location));
        Err(if is_sold || catalogue.unread.is_some() {
            error
        } else {
            CloudError { kind: ErrorKind::Capacity, ..error }
        })
    }

    /// What the provider shows of a machine that is to be as it is, awake or asleep. One list serves all machines of the
    /// account, since requests are counted; where a list shows it otherwise, or not, it is asked for by itself before
    /// anything follows from that.
    pub async fn observe(
        &self,
        installation: InstallationId,
        machine: MachineId,
        power: Power,
    ) -> Result<Vec<Vm>, CloudError> {
        let shown = self.listings.show(&*self.cloud, installation, machine).await?;
        let is_as_wished = match power {
            Power::Awake => shown.iter().any(|vm| vm.state == VmState::Running),
            // A list that is not whole may lack a second one that runs: the next whole one shows it.
            Power::Asleep => !shown.is_empty() && shown.iter().all(|vm| vm.state == VmState::Hibernated),
        };
        if is_as_wished { Ok(shown) } else { Ok(keep_own(installation, self.cloud.find(machine).await?)) }
    }

    /// Every machine as the provider shows it now. Who looks at one next is served by the same list.
    pub async fn list(&self, installation: InstallationId) -> Result<Listing, CloudError> {
        self.listings.ask(&*self.cloud, installation).await
    }

    /// Something is done to a machine: what is known of it is of the past.
    pub async fn outdate(&self, machine: MachineId) {
        self.asleep.lock().await.remove(&machine);
        self.listings.outdate(machine).await;
    }

    /// All that is shown of it has said that it sleeps.
    pub async fn note_asleep(&self, machine: MachineId) {
        self.asleep.lock().await.insert(machine);
    }

    pub async fn is_known_asleep(&self, machine: MachineId) -> bool {
        self.asleep.lock().await.contains(&machine)
    }

    /// Whoever comes while it is read waits for that answer, and has it too when it is a refusal.
    async fn catalogue(&self) -> CatalogueRead {
        let mut known = self.catalogue.lock().await;
        if let Some((read_at, read)) = &*known
            && read_at.elapsed() < lasts(read)
        {
            return read.clone();
        }
        let read = self.cloud.readable_catalogue().await.map(Arc::new);
        *known = Some((Instant::now(), read.clone()));
        read
    }
}

/// Those that are this installation's. A copy of the database that has another id knows the original's machines by theirs;
/// they are as good as not there.
pub fn keep_own(installation: InstallationId, mut vms: Vec<Vm>) -> Vec<Vm> {
    vms.retain(|vm| {
        let is_own = vm.installation == installation;
        if !is_own {
            tracing::warn!(machine.id = %vm.machine, "{} of {} is {}'s: it is left alone", vm.id, vm.machine, vm.installation);
        }
        is_own
    });
    vms
}

/// Ids cannot be guessed: who is shown one machine or image looks at the place in which all of them are.
async fn look_for(cloud: &dyn Cloud, known: &Known) -> Result<Seen, CloudError> {
    if !known.machines.is_empty() {
        let listing = cloud.list(known.installation).await?;
        if listing.vms.iter().any(|vm| known.machines.contains(&vm.machine)) {
            return Ok(Seen::Known);
        }
    }
    if known.images.is_empty() {
        return Ok(Seen::Nothing);
    }
    let residues = cloud.list_residue(known.installation).await?;
    let mut images = residues.items.iter().filter_map(|residue| residue.image);
    Ok(if images.any(|image| known.images.contains(&image)) { Seen::Known } else { Seen::Nothing })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use stagely_cloud::testing::FakeCloud;
    use stagely_cloud::{Offering, Price};
    use stagely_domain::clock::SystemClock;
    use stagely_domain::machine::Arch;

    use super::{Account, CATALOGUE, PART_OF_CATALOGUE};

    #[tokio::test(start_paused = true)]
    async fn prices_that_could_not_be_read_are_asked_for_again_soon_and_known_ones_are_believed() {
        let offering = |micros: Option<u64>| Offering {
            name: "small".to_owned(),
            location: "here".to_owned(),
            arch: Arch::Amd64,
            vcpus: 1,
            memory_mib: 2048,
            price: micros.map(|micros_per_hour| Price { micros_per_hour, currency: "EUR".to_owned() }),
            available: true,
        };
        let cloud = Arc::new(FakeCloud::new(Arc::new(SystemClock)));
        let account = Account::new(cloud.clone(), Vec::new());
        let told =
            async || account.catalogue().await.unwrap().offerings[0].price.clone().map(|one| one.micros_per_hour);
        cloud.sell(vec![offering(None)]);
        cloud.hide_prices(true);
        assert_eq!(told().await, None);
        cloud.sell(vec![offering(Some(7))]);
        cloud.hide_prices(false);
        assert_eq!(told().await, None, "not with every machine");
        tokio::time::advance(PART_OF_CATALOGUE).await;
        assert_eq!(told().await, Some(7));
        cloud.sell(vec![offering(Some(8))]);
        tokio::time::advance(CATALOGUE - Duration::from_secs(1)).await;
        assert_eq!(told().await, Some(7));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(told().await, Some(8));
    }
}
