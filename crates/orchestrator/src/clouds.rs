//! The providers of the accounts in use.

use std::collections::HashMap;
use std::sync::Arc;

use stagely_cloud::Cloud;
use stagely_domain::id::CloudAccountId;
use stagely_domain::machine::Provider;
use stagely_reconcile::{ErrorClass, Failure};
use stagely_store::{Scope, Store};
use tokio::sync::Mutex;

use crate::context::stored;

/// One client per account. Everything on this host is one `qemu`.
pub struct Clouds {
    store: Store,
    qemu: Arc<dyn Cloud>,
    open: Mutex<HashMap<CloudAccountId, Arc<dyn Cloud>>>,
}

impl Clouds {
    pub fn new(store: Store, qemu: Arc<dyn Cloud>) -> Self {
        Self { store, qemu, open: Mutex::default() }
    }

    /// The provider of this host.
    pub fn metal(&self) -> Arc<dyn Cloud> {
        Arc::clone(&self.qemu)
    }

    /// The provider of an account.
    pub async fn of(&self, account: CloudAccountId) -> Result<Arc<dyn Cloud>, Failure> {
        if let Some(cloud) = self.open.lock().await.get(&account) {
            return Ok(Arc::clone(cloud));
        }
        let doing = "open a cloud account";
        let row = self.store.get_cloud_account(&Scope::system(doing), account).await.map_err(stored(doing))?;
        let cloud = match row.kind {
            Provider::Qemu => Arc::clone(&self.qemu),
            kind => {
                let message = format!("{kind:?} accounts are not available in this version");
                return Err(Failure::new(ErrorClass::Permanent, doing, message));
            }
        };
        self.open.lock().await.insert(account, Arc::clone(&cloud));
        Ok(cloud)
    }
}
