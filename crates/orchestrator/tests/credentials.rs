//! Credentials that are replaced while machines run.

use stagely_domain::secret::Secret;
use stagely_store::seal::KeyRing;
use stagely_store::tenants::CloudAccount;
use stagely_store::{Outcome, Scope};

use crate::clouds::{self, Account, hetzner};
use crate::stack::Stack;

const ALL: Scope = Scope::system("change an account in a test");

#[tokio::test]
async fn replaced_credentials_are_used_at_once_and_the_machines_made_by_the_old_ones_go_on() {
    let double = hetzner::Double::start().await;
    let stack = Stack::start_in(Account::at_hetzner(&double)).await;
    stack.open_until_live().await;
    let machines = stack.world.machines().await;

    let store = stack.world.db.store();
    let account = store.list_cloud_accounts(&ALL).await.unwrap().remove(0);
    let ring = KeyRing::single(&Secret::new(clouds::KEY.repeat(32))).unwrap();
    let sealed = ring.seal(&CloudAccount::place(account.id, account.team), br#"{"token":"renewed"}"#).unwrap();
    let tx = store.begin().await.unwrap();
    let changed = CloudAccount { credentials_sealed: Some(sealed), ..account };
    assert_eq!(tx.change_cloud_account(&changed).await.unwrap(), Outcome::Written);
    tx.commit().await.unwrap();
    double.world().tokens.insert("renewed", (0, false));
    stack.push().await;
    stack.wait_until_live().await;
    assert_eq!(stack.world.machines().await, machines, "it goes on");

    // Whatever still had the old ones could do nothing from here on.
    double.world().tokens.remove(hetzner::TOKEN);
    stack.close_until_gone().await;
    assert_eq!(double.world().accounts[0].bill().machines, 0);
    stack.end().await;
}
