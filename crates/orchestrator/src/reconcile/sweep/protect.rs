//! An account's firewalls: rules that somebody changed at the provider come back, and changed settings reach machines that
//! exist. The firewall itself is made with the first machine.

use std::time::Duration;

use stagely_domain::id::{CloudAccountId, InstallationId};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Memory;
use crate::clouds::Account;
use crate::reconcile::machine::INGRESS_PORT;

/// How often they are looked at while the account stays as it is.
const EVERY: Duration = Duration::from_secs(600);
/// The same after it failed, whatever the account became meanwhile.
const AFTER_FAILURE: Duration = Duration::from_secs(120);

/// When it was last done, for which generation of the account, and whether it failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Protected {
    at: Instant,
    generation: i64,
    failed: bool,
}

impl Protected {
    fn is_due(self, generation: i64) -> bool {
        let passed = self.at.elapsed();
        if self.failed { passed >= AFTER_FAILURE } else { generation != self.generation || passed >= EVERY }
    }
}

/// Looks after them where it is time. What fails is tried again by a later sweep, and keeps this one from nothing.
pub(super) async fn protect(
    memory: &Mutex<Memory>,
    installation: InstallationId,
    id: CloudAccountId,
    account: &Account,
) {
    let last = memory.lock().await.protected.get(&id).copied();
    if last.is_some_and(|last| !last.is_due(account.generation)) {
        return;
    }
    let outcome = account.cloud.protect(installation, INGRESS_PORT).await;
    let protected = Protected { at: Instant::now(), generation: account.generation, failed: outcome.is_err() };
    memory.lock().await.protected.insert(id, protected);
    if let Err(error) = outcome {
        tracing::warn!(account.id = %id, %error, "the firewall may not be as the settings of the account say");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stagely_cloud::testing::FakeCloud;
    use stagely_domain::clock::SystemClock;
    use stagely_domain::id::{CloudAccountId, InstallationId};
    use tokio::sync::Mutex;

    use super::{AFTER_FAILURE, EVERY, Memory, protect};
    use crate::clouds::Account;

    #[tokio::test(start_paused = true)]
    async fn firewalls_are_looked_after_every_ten_minutes_at_once_with_new_settings_and_soon_after_a_failure() {
        let (memory, installation) = (Mutex::new(Memory::default()), InstallationId::generate());
        let (id, cloud) = (CloudAccountId::generate(), Arc::new(FakeCloud::new(Arc::new(SystemClock))));
        let mut account = Account::new(cloud.clone(), Vec::new());
        for _ in 0..2 {
            protect(&memory, installation, id, &account).await;
            assert_eq!(cloud.protected(), 1);
        }
        protect(&memory, installation, CloudAccountId::generate(), &account).await;
        assert_eq!(cloud.protected(), 2, "each account by itself");
        tokio::time::advance(EVERY).await;
        protect(&memory, installation, id, &account).await;
        assert_eq!(cloud.protected(), 3);
        account.generation += 1;
        cloud.fail_to_protect(true);
        protect(&memory, installation, id, &account).await;
        cloud.fail_to_protect(false);
        protect(&memory, installation, id, &account).await;
        assert_eq!(cloud.protected(), 4, "not with every sweep");
        tokio::time::advance(AFTER_FAILURE).await;
        for _ in 0..2 {
            protect(&memory, installation, id, &account).await;
        }
        assert_eq!(cloud.protected(), 5);
    }
}
