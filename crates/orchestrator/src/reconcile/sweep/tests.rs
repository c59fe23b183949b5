use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use stagely_cloud::testing::Chance;
use stagely_domain::id::{CloudAccountId, MachineId};
use stagely_store::sweeps::Blind;
use uuid::{NoContext, Timestamp, Uuid};

use super::{Findings, Sweeps, is_of};
use crate::clouds::Account;
use crate::reconcile::simulation::life::Life;
use crate::reconcile::simulation::rows::Connection;
use crate::reconcile::simulation::story::{self, Event};

const PATIENCE: Duration = Duration::from_secs(11 * 60);

/// A life, the sweeps of a process, and what draws ids.
fn quiet() -> (Life, Sweeps, Chance) {
    let mut chance = Chance::new(7);
    let life = Life::quiet(&mut chance, false);
    let account = Arc::new(Account::new(life.rows.cloud.clone(), Vec::new()));
    let context = Arc::new(Connection { rows: Arc::clone(&life.rows), account });
    (life, Sweeps { context, memory: Arc::default() }, chance)
}

/// Machines that no row knows.
fn plant(life: &Life, chance: &mut Chance, count: usize) {
    let orphans: Vec<MachineId> = (0..count).map(|_| story::machine(chance)).collect();
    orphans.into_iter().for_each(|id| life.happen(&Event::Plant(id)));
}

async fn sweep(life: &Life, sweeps: &Sweeps) -> Findings {
    sweeps.sweep(CloudAccountId::from_uuid(life.account)).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_goes_after_its_delete_has_answered_is_marked_no_more() {
    let (life, sweeps, mut chance) = quiet();
    life.rows.cloud.change(|habits| habits.deletes_in = TimeDelta::seconds(30));
    plant(&life, &mut chance, 1);
    assert_eq!(sweep(&life, &sweeps).await.orphans, 1);
    tokio::time::advance(PATIENCE).await;
    assert_eq!(sweep(&life, &sweeps).await.removed, 0, "it is only going");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(sweep(&life, &sweeps).await.seen, 0);
    let memory = sweeps.memory.lock().await;
    assert!(memory.marks.is_empty());
    assert_eq!(memory.residue.len(), 1, "what machines leave behind is looked for at its own pace again");
}

#[tokio::test(start_paused = true)]
async fn of_both_lists_together_no_more_goes_than_may_go_at_once() {
    let (life, sweeps, mut chance) = quiet();
    life.rows.cloud.change(|habits| habits.leaves_disk = 1000);
    plant(&life, &mut chance, 5);
    sweep(&life, &sweeps).await;
    tokio::time::advance(PATIENCE).await;
    plant(&life, &mut chance, 5);
    let found = sweep(&life, &sweeps).await;
    assert_eq!((found.removed, found.paused, life.rows.cloud.residue().len()), (5, false, 5));
    tokio::time::advance(PATIENCE).await;
    // Five machines and five disks are due.
    let found = sweep(&life, &sweeps).await;
    assert_eq!((found.removed, found.paused, life.rows.cloud.residue().len()), (5, true, 10));
}

#[test]
fn an_id_by_another_clock_than_the_sweeps_is_of_the_time_between_them() {
    let at = |minutes: i64| DateTime::from_timestamp(1_800_000_000 + 60 * minutes, 0).unwrap();
    let blind = Blind { from: at(0), until: at(60) };
    for (minutes, expected) in [(-6, false), (-4, true), (30, true), (64, true), (66, false)] {
        let stamp = Timestamp::from_unix(NoContext, at(minutes).timestamp().unsigned_abs(), 0);
        assert_eq!(is_of(blind, Uuid::new_v7(stamp)), expected, "{minutes} minutes");
    }
}
