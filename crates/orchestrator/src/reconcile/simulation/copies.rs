//! A copy of a database beside the original. It knows the original's machines, and has an installation id of its own.

use std::time::Duration;

use chrono::TimeDelta;
use stagely_cloud::testing::Chance;
use stagely_domain::clock::Clock;
use stagely_domain::id::InstallationId;
use stagely_domain::machine::State;
use stagely_store::machines::Machine;
use tokio::time::Instant;
use uuid::Uuid;

use super::life::Life;
use super::rows::{self, Fortune, Intent};
use super::story;

#[tokio::test(start_paused = true)]
async fn a_copy_of_the_database_touches_no_machine_of_the_original() {
    for intent in [Intent::Awake, Intent::Asleep, Intent::Absent] {
        let mut chance = Chance::new(7);
        let life = Life::quiet(&mut chance, false);
        let original = InstallationId::from_uuid(Uuid::from_u128(chance.draw_wide()));
        let (id, now) = (story::machine(&mut chance), life.clock.now());
        let vm = life.rows.cloud.plant(Some(story::tags(id, original, now)));
        let [team, project, environment] = [1, 2, 3].map(Uuid::from_u128);
        let ids = [team, project, environment, life.account];
        let row = Machine {
            state: State::Enrolled,
            provider_id: Some(vm.0.clone()),
            placed_at: Some(now),
            ..rows::intended(id, ids, now + TimeDelta::days(1), now)
        };
        life.rows.insert(row, Fortune { boots_in: None, twins_boot: false });
        life.rows.wish(id, intent);
        life.processes(Instant::now() + Duration::from_secs(30 * 60)).await;
        let record = life.rows.cloud.records().into_iter().find(|record| record.id == vm).unwrap();
        assert!(record.is_awake() && !record.was_asleep, "{intent:?}: {record:?}");
        assert_eq!(life.rows.inside().machines[&id].state, State::Gone, "{intent:?}");
    }
}
