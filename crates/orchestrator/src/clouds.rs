//! The accounts in use: each one's provider, where it may make machines, and what it can make.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use stagely_cloud::catalogue::candidates;
use stagely_cloud::{Cloud, CloudError, Offering};
use stagely_domain::id::CloudAccountId;
use stagely_domain::machine::Provider;
use stagely_reconcile::{ErrorClass, Failure};
use stagely_store::machines::Machine;
use stagely_store::seal::KeyRing;
use stagely_store::tenants::CloudAccount;
use stagely_store::{Scope, Store};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::context::{clouded, stored};

/// How long a provider's word on types, prices and room is believed.
const CATALOGUE: Duration = Duration::from_secs(3600);

/// One client per account. Everything on this host is one `qemu`.
pub struct Clouds {
    store: Store,
    keys: KeyRing,
    qemu: Arc<dyn Cloud>,
    open: Mutex<HashMap<CloudAccountId, Arc<Account>>>,
}

/// An account that was opened.
pub struct Account {
    pub cloud: Arc<dyn Cloud>,
    /// Where it may make machines, the best first; everywhere when it is empty.
    locations: Vec<String>,
    catalogue: Mutex<Option<(Instant, Arc<Vec<Offering>>)>>,
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
}

impl Clouds {
    pub fn new(store: Store, keys: KeyRing, qemu: Arc<dyn Cloud>) -> Self {
        Self { store, keys, qemu, open: Mutex::default() }
    }

    /// The provider of this host.
    pub fn metal(&self) -> Arc<dyn Cloud> {
        Arc::clone(&self.qemu)
    }

    /// An account.
    pub async fn of(&self, account: CloudAccountId) -> Result<Arc<Account>, Failure> {
        if let Some(account) = self.open.lock().await.get(&account) {
            return Ok(Arc::clone(account));
        }
        let doing = "open a cloud account";
        let row = self.store.get_cloud_account(&Scope::system(doing), account).await.map_err(stored(doing))?;
        let opened = Arc::new(self.open(&row)?);
        self.open.lock().await.insert(account, Arc::clone(&opened));
        Ok(opened)
    }

    /// Asks the provider whether the account works; the failure is for the account's owner.
    pub async fn verify(&self, row: &CloudAccount) -> Result<(), Failure> {
        let account = self.open(row)?;
        account.cloud.check_access().await.map_err(clouded("verify a cloud account"))
    }

    fn open(&self, row: &CloudAccount) -> Result<Account, Failure> {
        let cloud = match row.kind {
            Provider::Qemu => Arc::clone(&self.qemu),
            kind => {
                let message = format!("{kind:?} accounts are not available in this version");
                return Err(Failure::new(ErrorClass::Permanent, "open a cloud account", message));
            }
        };
        Ok(Account { cloud, locations: row.settings.locations.clone(), catalogue: Mutex::default() })
    }
}

impl Account {
    /// What `machine` is to be created as: what was chosen before, until the provider refused it, or else the best that was
    /// not tried yet.
    pub async fn choose(&self, machine: &Machine) -> Result<Choice, CloudError> {
        if let Some(chosen) = &machine.offering {
            return Ok(Choice::Offering(chosen.clone()));
        }
        let offerings = self.offerings().await?;
        if offerings.is_empty() {
            return Ok(Choice::Any);
        }
        let fitting = candidates(&offerings, machine.size, machine.arch, &self.locations);
        let untried = fitting.into_iter().find(|offering| !machine.tried.contains(&offering.to_string()));
        Ok(untried.cloned().map_or(Choice::Nothing, Choice::Offering))
    }

    async fn offerings(&self) -> Result<Arc<Vec<Offering>>, CloudError> {
        let mut catalogue = self.catalogue.lock().await;
        if let Some((read_at, offerings)) = &*catalogue
            && read_at.elapsed() < CATALOGUE
        {
            return Ok(Arc::clone(offerings));
        }
        let offerings = Arc::new(self.cloud.catalogue().await?);
        *catalogue = Some((Instant::now(), Arc::clone(&offerings)));
        Ok(offerings)
    }
}
