//! What the sweep of an account removes, and what it leaves alone.

use chrono::TimeDelta;
use stagely_cloud::{Cloud, CreateRequest, Residue, ResidueKind, contract};
use stagely_domain::clock::{Clock, SystemClock};
use stagely_domain::id::MachineId;
use uuid::{NoContext, Timestamp, Uuid};

use crate::stack::Stack;

#[tokio::test]
async fn a_machine_that_lands_after_its_end_is_swept_away() {
    let stack = Stack::start_live().await;
    let machine = stack.only_machine();
    stack.close_until_gone().await;
    stack.cloud.inner.land_late(machine);
    stack.sweep_until("the late machine to go", || stack.cloud.inner.machines().is_empty()).await;
    stack.end().await;
}

#[tokio::test]
async fn a_machine_that_a_person_holds_stays_until_it_is_let_go() {
    let stack = Stack::start_live().await;
    let machine = stack.only_machine();
    stack.cloud.inner.hold(machine, true);
    stack.close().await;
    let held = "SELECT count(*) FROM work WHERE kind = 'machine' AND run_after > now() + interval '1 minute'";
    stack.wait("the hold to be seen", async || stack.world.db.text(held).await == "1").await;
    assert_eq!(stack.cloud.inner.machines(), [machine]);
    stack.cloud.inner.hold(machine, false);
    stack.world.db.execute("UPDATE work SET run_after = now() WHERE kind = 'machine'").await;
    stack.wait_until_gone().await;
    stack.end().await;
}

#[tokio::test]
async fn what_a_machine_left_behind_goes_and_what_is_held_shared_or_in_use_stays() {
    let mut stack = Stack::start_live().await;
    let closed = stack.only_machine();
    stack.close_until_gone().await;
    stack.next().await;
    stack.open_until_live().await;
    let live = stack.only_machine();
    let installation = stack.cloud.inner.find(live).await.unwrap()[0].installation;
    let residue = |id: &str, machine: Option<MachineId>, hold: bool| Residue {
        kind: ResidueKind::Volume,
        id: id.to_owned(),
        installation,
        machine,
        image: None,
        created_at: None,
        hold,
    };
    stack.cloud.inner.leave_behind(vec![
        residue("left", Some(closed), false),
        residue("held", Some(closed), true),
        residue("used", Some(live), false),
        residue("shared", None, false),
    ]);
    // Another process has not looked yet.
    stack.kill();
    let left = || stack.cloud.inner.residue().iter().map(|residue| residue.id.clone()).collect::<Vec<_>>();
    stack.sweep_until("what was left to go", || left() == ["held", "used", "shared"]).await;
    stack.close_and_end().await;
}

#[tokio::test]
async fn a_database_that_was_restored_does_not_take_newer_machines_for_orphans() {
    let stack = Stack::start().await;
    stack
        .wait("a sweep", async || {
            stack.world.db.text("SELECT count(*) FROM sweeps WHERE blind_from IS NULL").await == "1"
        })
        .await;
    let installation = stack.world.db.store().ensure_installation().await.unwrap();
    let made = [1, 3].map(|hours| {
        let at = SystemClock.now() - TimeDelta::hours(hours);
        let stamp = Timestamp::from_unix(NoContext, at.timestamp().unsigned_abs(), 0);
        MachineId::from_uuid(Uuid::new_v7(stamp))
    });
    for machine in made {
        let request = CreateRequest { machine, ..contract::request(installation, &SystemClock) };
        stack.cloud.inner.create(&request).await.unwrap();
    }
    // This database ends two hours ago; what was made an hour ago was made by the one that it replaces.
    stack.world.db.execute("UPDATE sweeps SET swept_at = now() - interval '2 hours'").await;
    let found = stack.sweep().await;
    assert_eq!((found.forgotten, found.orphans, found.seen), (1, 1, 2));
    assert_eq!(stack.sweep().await.forgotten, 1);
    let blind = "SELECT count(*) FROM sweeps WHERE blind_from IS NOT NULL";
    assert_eq!(stack.world.db.text(blind).await, "1");
    // A person looks, and removes it.
    stack.cloud.inner.power_off(made[0]);
    let found = stack.sweep().await;
    assert_eq!((found.forgotten, found.orphans), (0, 1));
    assert_eq!(stack.world.db.text(blind).await, "0");
    stack.cloud.inner.power_off(made[1]);
    stack.end().await;
}
