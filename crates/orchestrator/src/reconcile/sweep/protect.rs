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

/// Looks after them where it is time. What fails is tried again with the next sweep, and keeps that from nothing.
pub(super) async fn protect(
    memory: &Mutex<Memory>,
    installation: InstallationId,
    id: CloudAccountId,
    account: &Account,
) {
    let last = memory.lock().await.protected.get(&id).copied();
    if last.is_some_and(|(at, generation)| generation == account.generation && at.elapsed() < EVERY) {
        return;
    }
    match account.cloud.protect(installation, INGRESS_PORT).await {
        Ok(()) => {
            memory.lock().await.protected.insert(id, (Instant::now(), account.generation));
        }
        Err(error) => {
            tracing::warn!(account.id = %id, %error, "the firewall may not be as the settings of the account say");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stagely_cloud::testing::FakeCloud;
    use stagely_domain::clock::SystemClock;
    use stagely_domain::id::{CloudAccountId, InstallationId};
    use tokio::sync::Mutex;

    use super::{EVERY, Memory, protect};
    use crate::clouds::Account;

    #[tokio::test(start_paused = true)]
    async fn firewalls_are_looked_after_every_ten_minutes_at_once_with_new_settings_and_again_after_a_failure() {
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
        for _ in 0..2 {
            protect(&memory, installation, id, &account).await;
        }
        assert_eq!(cloud.protected(), 5);
    }
}
