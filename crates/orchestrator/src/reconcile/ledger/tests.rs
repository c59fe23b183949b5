use std::sync::Arc;

use chrono::TimeDelta;
use stagely_cloud::testing::Chance;
use stagely_domain::failure::Code;
use stagely_domain::id::{CloudAccountId, ImageId, MachineId, ProjectId, TeamId};
use stagely_domain::machine::{Arch, Role, Size, State};
use stagely_store::environments::{Outcome, Power};
use stagely_store::images::NewImage;
use stagely_store::machines::{BootImage, Machine, NewMachine};
use stagely_store::testing::TestDb;
use uuid::Uuid;

use super::{Ledger, Stored, Writing};
use crate::clouds::Account;
use crate::failures::failure;
use crate::reconcile::simulation::life::Life;
use crate::reconcile::simulation::rows::{Connection, Fortune, Intent, intended};
use crate::reconcile::simulation::story;

const MACHINES: usize = 40;
const CHANGES: usize = 25;

/// Everything of a row but its owner and the times themselves.
fn facts(row: &Machine) -> String {
    let Machine { state, desired, power, offering, tried, refusals, image, provider_id, address, failure, .. } = row;
    let times = [row.create_deadline, row.absent_seen_at, row.placed_at, row.enrolled_at, row.drop_at, row.gone_at]
        .map(|at| at.is_some());
    let chosen = format!("{offering:?} {tried:?} {refusals} {image:?}");
    format!("{state:?} {desired:?} {power:?} {chosen} {provider_id:?} {address:?} {failure:?} {times:?}")
}

/// One change that `chance` decides, of a row that is in `state`.
async fn change(tx: &Writing, id: MachineId, state: State, image: &BootImage, chance: &mut Chance) -> Stored<Outcome> {
    let offerings = story::shelves(chance);
    let (offering, _) = chance.pick(&offerings).clone();
    let address = chance.happens(500).then_some("10.0.0.1:7443");
    let from = if chance.happens(100) { *chance.pick(&State::ALL) } else { state };
    let to = *chance.pick(&State::ALL);
    let reason = failure(Code::MachineLost, "run", "it is gone");
    match chance.below(15) {
        0 => tx.machine_creating(id, TimeDelta::minutes(3), Some(&offering), None).await,
        1 => tx.machine_creating(id, TimeDelta::minutes(3), None, None).await,
        12 => tx.machine_creating(id, TimeDelta::minutes(3), Some(&offering), Some(image)).await,
        2 => tx.machine_refused(id, &offering).await,
        13 => tx.machine_image_refused(id, image).await,
        3 | 4 => tx.machine_placed(id, if chance.happens(500) { "i-1" } else { "i-2" }, address).await,
        5 => tx.machine_shown(id).await,
        7 => tx.machine_not_made(id).await,
        6 => tx.drop_machine(id, chance.happens(500).then_some(&reason)).await,
        _ => tx.set_machine_state(id, from, to).await,
    }
}

/// The simulation is worth as much as its rows are true.
#[tokio::test]
async fn rows_in_memory_change_as_rows_in_postgres_do() {
    let db = TestDb::new().await;
    let team = db.team("acme").await;
    let account = db.qemu_account(team).await;
    let project = db.project(team, "acme/shop", Some(account)).await;
    let image = ready_image(&db, (team, account)).await;
    let mut chance = Chance::new(3);
    let life = Life::quiet(&mut chance, false);
    let memory = Connection {
        rows: Arc::clone(&life.rows),
        account: Arc::new(Account::new(life.rows.cloud.clone(), Vec::new())),
    };
    let mut written = 0;
    for _ in 0..MACHINES {
        let id = new_machine(&db, &life, (team, project, account.uuid())).await;
        for _ in 0..CHANGES {
            let state = db.store().get_machine(id).await.unwrap().state;
            let mut same = chance.clone();
            let real = Writing::new(db.store().begin().await.unwrap());
            let outcome = change(&real, id, state, &image, &mut chance).await;
            let simulated = memory.begin().await.unwrap();
            let expected = change(&simulated, id, state, &image, &mut same).await;
            assert_eq!(outcome.as_ref().ok(), expected.as_ref().ok(), "{outcome:?} {expected:?}");
            if outcome.is_ok() {
                real.commit().await.unwrap();
                simulated.commit().await.unwrap();
            }
            written += usize::from(outcome.is_ok_and(|outcome| outcome == Outcome::Written));
            if chance.happens(200) {
                wish(&db, &life, id, chance.happens(500)).await;
            }
            let (real, simulated) = (db.store().get_machine(id).await.unwrap(), memory.get_machine(id).await.unwrap());
            assert_eq!(facts(&real), facts(&simulated));
        }
    }
    assert!(written > MACHINES * CHANGES / 5, "{written} changes that took place are too few to prove anything");
}

async fn ready_image(db: &TestDb, (team, account): (TeamId, CloudAccountId)) -> BootImage {
    let (id, reference) = (ImageId::generate(), "4711".to_owned());
    let new = NewImage { id, team, account, arch: Arch::Amd64, base_images: Vec::new() };
    let tx = db.store().begin().await.unwrap();
    assert_eq!(tx.insert_image(&new).await.unwrap(), Outcome::Written);
    assert_eq!(tx.image_ready(id, &reference, &[]).await.unwrap(), Outcome::Written);
    tx.commit().await.unwrap();
    BootImage { id, reference }
}

async fn new_machine(db: &TestDb, life: &Life, (team, project, account): (TeamId, ProjectId, Uuid)) -> MachineId {
    let id = MachineId::generate();
    let new = NewMachine {
        id,
        team,
        project: Some(project),
        environment: None,
        account: CloudAccountId::from_uuid(account),
        role: Role::Builder,
        size: Size::Small,
        arch: Arch::Amd64,
        locations: Vec::new(),
        lifetime: TimeDelta::hours(1),
    };
    let tx = db.store().begin().await.unwrap();
    assert_eq!(tx.insert_machine(&new).await.unwrap(), Outcome::Written);
    tx.commit().await.unwrap();
    let now = life.rows.clock.now();
    let ids = [team.uuid(), project.uuid(), Uuid::nil(), account];
    life.rows.insert(intended(id, ids, now, now), Fortune { boots_in: None, twins_boot: false });
    id
}

async fn wish(db: &TestDb, life: &Life, id: MachineId, awake: bool) {
    let (power, intent) = if awake { (Power::Awake, Intent::Awake) } else { (Power::Asleep, Intent::Asleep) };
    let tx = db.store().begin().await.unwrap();
    let _ = tx.wish_machine_power(id, power).await.unwrap();
    tx.commit().await.unwrap();
    life.rows.wish(id, intent);
}
