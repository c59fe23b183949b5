//! A provider that does not answer, and the machines of other accounts.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use futures::{StreamExt, stream};
use stagely_cloud::ErrorKind;
use stagely_cloud::testing::sim::{Habits, SimCloud};
use stagely_cloud::testing::{Chance, Doom};
use stagely_domain::clock::Clock;
use stagely_domain::id::{InstallationId, MachineId};
use stagely_store::Power;
use tokio::time::{Instant, advance};
use uuid::Uuid;

use super::life::VirtualClock;
use super::story;
use crate::clouds::Account;

/// How many machines are looked at at the same time.
const SLOTS: usize = 16;

/// A cloud with one machine.
fn cloud(clock: &Arc<VirtualClock>, installation: InstallationId, chance: &mut Chance) -> (Arc<SimCloud>, MachineId) {
    let doom = Arc::new(Doom::new(chance.fork()));
    let (cloud, machine) = (SimCloud::new(chance.fork(), clock.clone(), doom), story::machine(chance));
    cloud.plant(Some(story::tags(machine, installation, clock.now())));
    (Arc::new(cloud), machine)
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_does_not_answer_delays_other_accounts_by_one_list_at_most() {
    let (clock, mut chance) = (Arc::new(VirtualClock::new()), Chance::new(3));
    let installation = InstallationId::from_uuid(Uuid::from_u128(chance.draw_wide()));
    let (dead, _) = cloud(&clock, installation, &mut chance);
    let (healthy, mine) = cloud(&clock, installation, &mut chance);
    let longest = TimeDelta::seconds(60);
    dead.behave(Habits { latency: longest, loses_answers: 1000, ..Habits::default() });
    let (nowhere, account) = (Account::new(dead.clone(), Vec::new()), Account::new(healthy, Vec::new()));
    let mut due: Vec<(&Account, MachineId)> = (0..100).map(|_| (&nowhere, story::machine(&mut chance))).collect();
    due.push((&account, mine));
    let begun = Instant::now();
    let looks = stream::iter(due).map(|(account, machine)| account.observe(installation, machine, Power::Awake));
    let answers: Vec<_> = looks.buffer_unordered(SLOTS).collect().await;
    assert!(begun.elapsed() <= longest.to_std().unwrap(), "{:?}", begun.elapsed());
    let refused: Vec<ErrorKind> = answers.iter().filter_map(|answer| Some(answer.as_ref().err()?.kind)).collect();
    assert_eq!((refused, dead.faults()), (vec![ErrorKind::Timeout; 100], 1));
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_one_asks_again_after_a_while_and_keeps_nobody_waiting() {
    let (clock, mut chance) = (Arc::new(VirtualClock::new()), Chance::new(4));
    let installation = InstallationId::from_uuid(Uuid::from_u128(chance.draw_wide()));
    let (cloud, machine) = cloud(&clock, installation, &mut chance);
    let account = Account::new(cloud.clone(), Vec::new());
    let look = || account.observe(installation, machine, Power::Awake);
    cloud.behave(Habits { per_minute: Some(0), ..Habits::default() });
    for _ in 0..20 {
        let error = look().await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::RateLimited { .. }), "{error}");
    }
    assert_eq!(cloud.faults(), 1, "it was asked once");
    cloud.behave(Habits { latency: TimeDelta::seconds(10), ..Habits::default() });
    advance(Duration::from_secs(16)).await;
    let begun = Instant::now();
    let (first, second) = tokio::join!(look(), async { (look().await, begun.elapsed()) });
    assert_eq!(first.unwrap().len(), 1);
    assert!(second.0.is_err() && second.1.is_zero(), "{second:?}");
    let listed = Instant::now();
    assert_eq!((look().await.unwrap().len(), listed.elapsed()), (1, Duration::ZERO));
}
