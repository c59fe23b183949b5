//! A database that was restored from a backup.

use chrono::TimeDelta;
use stagely_cloud::{Cloud, CreateRequest, contract};
use stagely_domain::clock::{Clock, SystemClock};
use stagely_domain::id::MachineId;
use uuid::{NoContext, Timestamp, Uuid};

use crate::stack::Stack;

#[tokio::test]
async fn a_backup_from_before_an_accounts_first_sweep_does_not_take_its_machines_for_orphans() {
    let stack = Stack::start().await;
    let blind = "SELECT count(*) FROM sweeps WHERE blind_from IS NOT NULL";
    let sees = "SELECT count(*) FROM sweeps WHERE blind_from IS NULL";
    // Nothing is in the new account, so nothing is forgotten.
    stack.wait("a whole sweep", async || stack.world.db.text(sees).await == "1").await;
    let installation = stack.world.db.store().ensure_installation().await.unwrap();
    let at = SystemClock.now() - TimeDelta::hours(1);
    let stamp = Timestamp::from_unix(NoContext, at.timestamp().unsigned_abs(), 0);
    let machine = MachineId::from_uuid(Uuid::new_v7(stamp));
    let request = CreateRequest { machine, ..contract::request(installation, &SystemClock) };
    stack.cloud.inner.create(&request).await.unwrap();
    stack.world.db.execute("DELETE FROM sweeps").await;
    for _ in 0..2 {
        let found = stack.sweep().await;
        assert_eq!((found.forgotten, found.orphans, found.seen), (1, 0, 1));
        assert_eq!(stack.world.db.text(blind).await, "1");
    }
    // A person looks, and removes it.
    stack.cloud.inner.power_off(machine);
    assert_eq!(stack.sweep().await.forgotten, 0);
    assert_eq!(stack.world.db.text(blind).await, "0");
    stack.end().await;
}
