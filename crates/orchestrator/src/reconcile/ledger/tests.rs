use std::sync::Arc;

use chrono::TimeDelta;
use stagely_cloud::testing::Chance;
use stagely_domain::failure::Code;
use stagely_domain::id::{CloudAccountId, ImageId, MachineId, ProjectId, TeamId};
use stagely_domain::machine::{Arch, Role, Size, State};
use stagely_store::images::{Image, NewImage};
use stagely_store::machines::{BootImage, Machine, NewMachine};
use stagely_store::testing::TestDb;
use stagely_store::{Outcome, Power, Scope};
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
    let placed = [row.create_deadline, row.placed_at, row.enrolled_at].map(|at| at.is_some());
    let ended = [row.sleep_asked_at, row.drop_at, row.gone_at].map(|at| at.is_some());
    let chosen = format!("{offering:?} {tried:?} {refusals} {image:?}");
    format!("{state:?} {desired:?} {power:?} {chosen} {provider_id:?} {address:?} {failure:?} {placed:?} {ended:?}")
}

/// One change that `chance` decides, of a row that is in `state`.
async fn change(tx: &Writing, id: MachineId, state: State, image: &BootImage, chance: &mut Chance) -> Stored<Outcome> {
    let offerings = story::shelves(chance);
    let (offering, _) = chance.pick(&offerings).clone();
    let address = chance.happens(500).then_some("10.0.0.1:7443");
    let from = if chance.happens(100) { *chance.pick(&State::ALL) } else { state };
    let to = *chance.pick(&State::ALL);
    let reason = failure(Code::MachineLost, "run", "it is gone");
    match chance.below(16) {
        0 => tx.machine_creating(id, TimeDelta::minutes(3), Some(&offering), None).await,
        1 => tx.machine_creating(id, TimeDelta::minutes(3), None, None).await,
        12 => tx.machine_creating(id, TimeDelta::minutes(3), Some(&offering), Some(image)).await,
        2 => tx.machine_refused(id, &offering).await,
        13 => tx.machine_image_refused(id, image).await,
        3 | 4 => tx.machine_placed(id, if chance.happens(500) { "i-1" } else { "i-2" }, address).await,
        5 => tx.machine_shown(id).await,
        7 => tx.machine_not_made(id).await,
        14 => tx.note_machine_sleep(id, chance.happens(500)).await.map(|()| Outcome::Written),
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
    let mut chance = Chance::new(3);
    let life = Life::quiet(&mut chance, false);
    let image = ready_image(&db, &life, (team, account)).await;
    let memory = memory(&life);
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

/// The same of an image.
fn image_facts(row: &Image) -> String {
    let Image { agent_sha256, desired, generation, state, machine, reference, locations, failure, .. } = row;
    let times = [row.ready_at, row.deleted_at].map(|at| at.is_some());
    let made = format!("{machine:?} {agent_sha256:?} {reference:?} {locations:?}");
    format!("{state:?} {desired:?} {generation} {made} {failure:?} {times:?}")
}

async fn change_image(tx: &Writing, id: ImageId, machine: &NewMachine, chance: &mut Chance) -> Stored<Outcome> {
    let places = if chance.happens(500) { Vec::new() } else { vec!["a".to_owned()] };
    match chance.below(6) {
        0 | 1 => tx.bake_image(id, machine, "5ha").await,
        2 => tx.image_ready(id, "4711", &places).await,
        3 => tx.fail_image(id, &failure(Code::MachineLost, "bake", "it is gone")).await,
        4 => tx.wish_image_absent(id).await,
        _ => tx.image_cleared(id).await,
    }
}

#[tokio::test]
async fn images_in_memory_change_as_images_in_postgres_do() {
    let db = TestDb::new().await;
    let team = db.team("acme").await;
    let account = db.qemu_account(team).await;
    let mut chance = Chance::new(4);
    let life = Life::quiet(&mut chance, false);
    let (memory, scope) = (memory(&life), Scope::system("look at an image in a test"));
    let mut written = 0;
    for _ in 0..MACHINES {
        let id = new_image(&db, &life, (team, account)).await;
        for _ in 0..CHANGES / 2 {
            let machine = NewMachine { project: None, role: Role::Bake, ..wanted(team, account) };
            let mut same = chance.clone();
            let real = Writing::new(db.store().begin().await.unwrap());
            let outcome = change_image(&real, id, &machine, &mut chance).await.unwrap();
            let simulated = memory.begin().await.unwrap();
            assert_eq!(change_image(&simulated, id, &machine, &mut same).await.unwrap(), outcome);
            // What is stale is not committed.
            if outcome == Outcome::Written {
                real.commit().await.unwrap();
                simulated.commit().await.unwrap();
                written += 1;
            }
            let real = db.store().get_image(&scope, id).await.unwrap();
            let simulated = memory.find_image(id).await.unwrap().unwrap();
            assert_eq!(image_facts(&real), image_facts(&simulated));
            if let Some(machine) = real.machine {
                let (real, simulated) = (db.store().get_machine(machine).await, memory.get_machine(machine).await);
                assert_eq!(facts(&real.unwrap()), facts(&simulated.unwrap()));
            }
            let of = |images: Vec<Image>| images.into_iter().map(|image| image.id).collect::<Vec<_>>();
            let real = of(db.store().list_bootable_images(account, Arch::Amd64).await.unwrap());
            assert_eq!(real, of(memory.list_bootable_images(account, Arch::Amd64).await.unwrap()));
        }
    }
    assert!(written > MACHINES * 2, "{written} changes that took place are too few to prove anything");
}

fn memory(life: &Life) -> Connection {
    let account = Arc::new(Account::new(life.rows.cloud.clone(), Vec::new()));
    Connection { rows: Arc::clone(&life.rows), account }
}

/// An image that is wished for, in Postgres and in memory.
async fn new_image(db: &TestDb, life: &Life, (team, account): (TeamId, CloudAccountId)) -> ImageId {
    let id = ImageId::generate();
    let new = NewImage { id, team, account, arch: Arch::Amd64, base_images: Vec::new() };
    let tx = db.store().begin().await.unwrap();
    assert_eq!(tx.insert_image(&new).await.unwrap(), Outcome::Written);
    tx.commit().await.unwrap();
    let row = db.store().get_image(&Scope::system("copy an image in a test"), id).await.unwrap();
    life.rows.insert_image(row);
    id
}

async fn ready_image(db: &TestDb, life: &Life, (team, account): (TeamId, CloudAccountId)) -> BootImage {
    let (id, reference) = (new_image(db, life, (team, account)).await, "4711".to_owned());
    let (real, simulated) = (db.store().begin().await.unwrap(), memory(life).begin().await.unwrap());
    assert_eq!(real.image_ready(id, &reference, &[]).await.unwrap(), Outcome::Written);
    assert_eq!(simulated.image_ready(id, &reference, &[]).await.unwrap(), Outcome::Written);
    real.commit().await.unwrap();
    simulated.commit().await.unwrap();
    BootImage { id, reference }
}

fn wanted(team: TeamId, account: CloudAccountId) -> NewMachine {
    NewMachine {
        id: MachineId::generate(),
        team,
        project: None,
        environment: None,
        account,
        role: Role::Builder,
        size: Size::Small,
        arch: Arch::Amd64,
        locations: Vec::new(),
        lifetime: TimeDelta::hours(1),
    }
}

async fn new_machine(db: &TestDb, life: &Life, (team, project, account): (TeamId, ProjectId, Uuid)) -> MachineId {
    let new = NewMachine { project: Some(project), ..wanted(team, CloudAccountId::from_uuid(account)) };
    let id = new.id;
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
