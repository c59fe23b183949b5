//! The cases of the providers' contract that are about rows and sweeps, one by one: the same for every provider.

use std::time::Duration;

use chrono::TimeDelta;
use stagely_cloud::VmState;
use stagely_cloud::testing::Chance;
use stagely_cloud::testing::sim::{Habits, Record};
use stagely_domain::clock::Clock;
use stagely_domain::id::MachineId;
use stagely_domain::machine::State;
use stagely_store::Presence;
use tokio::time::Instant;

use super::life::Life;
use super::process::Process;
use super::rows::{Fortune, Intent};
use super::story::{self, Event};

const DAY: TimeDelta = TimeDelta::days(1);
const PATIENCE: Duration = Duration::from_secs(11 * 60);

fn quiet() -> (Life, MachineId) {
    let mut chance = Chance::new(7);
    let life = Life::quiet(&mut chance, false);
    life.rows.cloud.sell(story::shelves(&mut chance));
    let id = story::machine(&mut chance);
    (life, id)
}

fn insert(id: MachineId, lifetime: TimeDelta) -> Event {
    Event::Insert(id, Fortune { boots_in: Some(TimeDelta::seconds(20)), twins_boot: false }, lifetime)
}

fn costs(record: &Record) -> bool {
    record.awake.iter().any(|(_, to)| to.is_none())
}

async fn pass(life: &Life, minutes: u64) {
    life.processes(Instant::now() + Duration::from_secs(60 * minutes)).await;
}

fn alive(life: &Life, id: MachineId) -> Vec<Record> {
    let mut records = life.rows.cloud.records();
    records.retain(|record| record.is(id) && record.is_alive());
    records
}

/// Cases 7 and 33: each point at which the process calls something is its last, once before and once after the effect.
#[tokio::test(start_paused = true)]
async fn a_process_that_dies_at_any_point_leaves_one_machine_or_none_and_none_unowned() {
    for wishes in [&[][..], &[Intent::Asleep], &[Intent::Asleep, Intent::Awake], &[Intent::Absent]] {
        let mut point = 0;
        loop {
            let (life, id) = quiet();
            life.rows.cloud.change(|habits| (habits.stops_first, habits.sleeps_by_halves) = (true, true));
            life.rows.doom.strike_after(point);
            life.happen(&insert(id, DAY));
            pass(&life, 2).await;
            for wish in wishes {
                life.rows.wish(id, *wish);
                pass(&life, 2).await;
            }
            let died = life.died();
            life.calm().await;
            life.two_sweeps().await;
            if let Err(wrong) = life.judge() {
                panic!("killed at point {point} of {wishes:?}: {wrong}");
            }
            let expected = usize::from(!wishes.contains(&Intent::Absent));
            assert_eq!(alive(&life, id).len(), expected, "killed at point {point} of {wishes:?}");
            assert_eq!(life.rows.cloud.records().iter().filter(|record| record.is(id)).count(), 1);
            if died == 0 {
                assert!(point > 20, "{point} points are too few to prove anything");
                break;
            }
            point += 1;
        }
    }
}

/// It is shown asleep from the first call on, and costs until the second.
#[tokio::test(start_paused = true)]
async fn a_machine_that_is_half_asleep_is_put_to_sleep_whatever_its_row_says() {
    for recorded_by_an_earlier_version in [false, true] {
        let (life, id) = quiet();
        life.rows.cloud.change(|habits| habits.sleeps_by_halves = true);
        life.happen(&insert(id, DAY));
        pass(&life, 2).await;
        life.rows.wish(id, Intent::Asleep);
        life.processes(Instant::now() + Duration::from_secs(1)).await;
        let half = alive(&life, id).remove(0);
        assert!(half.state == VmState::Hibernated && costs(&half), "{half:?}");
        if recorded_by_an_earlier_version {
            life.rows.inside().machines.get_mut(&id).unwrap().state = State::Hibernated;
        }
        pass(&life, 1).await;
        let asleep = alive(&life, id).remove(0);
        assert!(asleep.state == VmState::Hibernated && !costs(&asleep), "{asleep:?}");
        assert_eq!(life.rows.inside().machines[&id].state, State::Hibernated);
    }
}

/// A visit comes when it was just shut down, and while what is on its disk is being kept.
#[tokio::test(start_paused = true)]
async fn a_machine_that_is_woken_on_its_way_to_sleep_lives_on_with_its_data() {
    for seconds in [1, 6, 30] {
        let (life, id) = quiet();
        let sleeps_in = TimeDelta::minutes(30);
        life.rows.cloud.change(|habits| (habits.stops_first, habits.sleeps_in) = (true, sleeps_in));
        life.happen(&insert(id, DAY));
        pass(&life, 2).await;
        let before = alive(&life, id).remove(0);
        life.rows.wish(id, Intent::Asleep);
        life.processes(Instant::now() + Duration::from_secs(seconds)).await;
        assert_eq!(alive(&life, id)[0].state, VmState::Stopped, "this seed falls asleep too soon");
        life.rows.wish(id, Intent::Awake);
        pass(&life, 35).await;
        let (after, row) = (alive(&life, id), life.rows.inside().machines[&id].clone());
        assert_eq!(after.iter().map(|record| &record.id).collect::<Vec<_>>(), [&before.id], "{seconds}: {row:?}");
        assert_eq!((row.desired, row.state, &row.failure), (Presence::Present, State::Enrolled, &None), "{seconds}");
        assert_eq!((&row.address, row.sleep_asked_at), (&after[0].address, None), "{seconds}");
        assert!(after[0].state == VmState::Running && costs(&after[0]), "{seconds}: {after:?}");
    }
}

/// Later it is lost like any other when it stops.
#[tokio::test(start_paused = true)]
async fn that_a_machine_was_asked_to_sleep_is_forgotten_when_it_ran_on() {
    let (life, id) = quiet();
    life.rows.cloud.change(|habits| habits.power_off_deletes = false);
    life.happen(&insert(id, TimeDelta::hours(1)));
    pass(&life, 2).await;
    let asked = life.clock.now();
    life.rows.inside().machines.get_mut(&id).unwrap().sleep_asked_at = Some(asked);
    pass(&life, 5).await;
    assert_eq!(life.rows.inside().machines[&id].sleep_asked_at, Some(asked), "it may still shut down");
    pass(&life, 15).await;
    assert_eq!(life.rows.inside().machines[&id].sleep_asked_at, None);
    pass(&life, 45).await;
    let row = life.rows.inside().machines[&id].clone();
    assert!(row.state == State::Gone && row.failure.is_some() && alive(&life, id).is_empty(), "{row:?}");
}

/// Where a machine is made first and then started, it is off for a moment.
#[tokio::test(start_paused = true)]
async fn a_new_machine_that_is_off_for_a_moment_is_not_lost() {
    let (life, id) = quiet();
    life.happen(&insert(id, DAY));
    life.processes(Instant::now() + Duration::from_secs(1)).await;
    life.rows.cloud.stop(id);
    life.processes(Instant::now() + Duration::from_secs(11)).await;
    life.rows.cloud.start(id);
    pass(&life, 2).await;
    let (row, record) = (life.rows.inside().machines[&id].clone(), alive(&life, id).remove(0));
    assert_eq!((row.state, &row.address, &row.failure), (State::Enrolled, &record.address, &None));
}

#[tokio::test(start_paused = true)]
async fn a_new_address_of_the_same_machine_is_learned() {
    let (life, id) = quiet();
    life.happen(&insert(id, DAY));
    pass(&life, 2).await;
    let before = life.rows.inside().machines[&id].address.clone();
    life.rows.cloud.stop(id);
    life.rows.cloud.start(id);
    pass(&life, 3).await;
    let (row, record) = (life.rows.inside().machines[&id].clone(), alive(&life, id).remove(0));
    assert!(row.address != before && row.address == record.address, "{before:?}, then {row:?}");
}

/// The same for a golden image, wished away soon, late or never.
#[tokio::test(start_paused = true)]
async fn a_bake_whose_process_dies_at_any_point_leaves_one_image_or_none_and_no_machine() {
    for dropped_after in [None, Some(1), Some(6)] {
        let mut point = 0;
        loop {
            let (life, _) = quiet();
            let minute = TimeDelta::minutes(1);
            life.rows.cloud.change(|habits| (habits.bakes_in, habits.images_in) = (minute, minute));
            life.rows.doom.strike_after(point);
            let image = story::image(minute, &mut Chance::new(9));
            life.happen(&Event::Bake(image));
            pass(&life, dropped_after.unwrap_or(6)).await;
            if dropped_after.is_some() {
                life.happen(&Event::DropImage(image));
                pass(&life, 2).await;
            }
            let died = life.died();
            life.calm().await;
            life.two_sweeps().await;
            if let Err(wrong) = life.judge() {
                panic!("killed at point {point}, dropped after {dropped_after:?}: {wrong}");
            }
            let (pictures, records) = (life.rows.cloud.pictures(), life.rows.cloud.records());
            let left = pictures.iter().filter(|picture| picture.is_alive()).count();
            assert_eq!(left, usize::from(dropped_after.is_none()), "killed at point {point} of {dropped_after:?}");
            let machines = records.iter().filter(|record| !life.foreign.contains(&record.id));
            assert!(pictures.len() <= 1 && machines.clone().count() <= 1, "killed at point {point}");
            assert!(machines.into_iter().all(|record| !record.is_alive()), "killed at point {point}");
            if died == 0 {
                assert!(point > 20, "{point} points are too few to prove anything");
                break;
            }
            point += 1;
        }
    }
}

/// Case 33: the process is gone, its request is not, and its row is closed when the machine comes.
#[tokio::test(start_paused = true)]
async fn a_machine_that_lands_after_its_row_was_closed_is_swept_away() {
    let (life, id) = quiet();
    life.rows.cloud.behave(Habits { lands_late: 1000, late_by: TimeDelta::minutes(30), ..Habits::default() });
    life.happen(&insert(id, DAY));
    pass(&life, 1).await;
    life.rows.cloud.behave(Habits::default());
    life.rows.wish(id, Intent::Absent);
    pass(&life, 5).await;
    assert_eq!(life.rows.inside().machines[&id].state, State::Gone);
    assert!(alive(&life, id).is_empty() && life.rows.cloud.has_landings(), "this seed lands too early");
    while life.rows.cloud.has_landings() {
        pass(&life, 1).await;
    }
    pass(&life, 3).await;
    assert!(alive(&life, id).is_empty() && life.rows.cloud.records().iter().any(|record| record.is(id)));
}

/// Each by itself would be more calls than this cloud allows.
#[tokio::test(start_paused = true)]
async fn one_list_serves_all_that_sleep() {
    let (life, _) = quiet();
    let (cloud, mut chance) = (&life.rows.cloud, Chance::new(9));
    cloud.sell(story::shelves(&mut chance).into_iter().map(|(offering, _)| (offering, None)).collect());
    let process = Process::start(&life);
    let ids: Vec<MachineId> = (0..20).map(|_| story::machine(&mut chance)).collect();
    ids.iter().for_each(|id| life.happen(&insert(*id, DAY)));
    process.run(Instant::now() + Duration::from_secs(120)).await;
    ids.iter().for_each(|id| life.rows.wish(*id, Intent::Asleep));
    process.run(Instant::now() + Duration::from_secs(120)).await;
    assert!(life.rows.inside().machines.values().all(|row| row.state == State::Hibernated));
    cloud.change(|habits| habits.per_minute = Some(5));
    process.run(Instant::now() + Duration::from_secs(20 * 60)).await;
    assert_eq!(cloud.faults(), 0);
    assert!(life.rows.inside().machines.values().all(|row| row.state == State::Hibernated));
}

/// Case 23.
#[tokio::test(start_paused = true)]
async fn what_no_row_knows_is_marked_first_and_removed_later_and_never_on_a_partial_list() {
    let (life, id) = quiet();
    life.happen(&Event::Plant(id));
    let process = Process::start(&life);
    process.sweep().await.unwrap();
    assert_eq!(alive(&life, id).len(), 1, "it was only just seen");
    tokio::time::advance(PATIENCE).await;
    life.rows.cloud.behave(Habits { lists_partly: 1000, ..Habits::default() });
    for _ in 0..20 {
        process.sweep().await.unwrap();
    }
    assert_eq!(alive(&life, id).len(), 1, "nothing follows from a partial list");
    life.rows.cloud.behave(Habits::default());
    process.sweep().await.unwrap();
    assert!(alive(&life, id).is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_orphan_that_cannot_be_deleted_keeps_no_other_and_no_disk() {
    let (life, protected) = quiet();
    let other = story::machine(&mut Chance::new(8));
    life.rows.cloud.behave(Habits { leaves_disk: 1000, ..Habits::default() });
    for id in [protected, other] {
        life.happen(&Event::Plant(id));
    }
    life.rows.cloud.protect(protected);
    let process = Process::start(&life);
    process.sweep().await.unwrap();
    tokio::time::advance(PATIENCE).await;
    process.sweep().await.unwrap_err();
    assert_eq!((alive(&life, protected).len(), alive(&life, other).len()), (1, 0));
    assert_eq!(life.rows.cloud.residue().len(), 1);
    tokio::time::advance(PATIENCE).await;
    process.sweep().await.unwrap_err();
    assert_eq!((alive(&life, protected).len(), life.rows.cloud.residue().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn after_too_many_orphans_nothing_more_goes_for_an_hour() {
    let (life, _) = quiet();
    let mut chance = Chance::new(8);
    let orphans: Vec<MachineId> = (0..12).map(|_| story::machine(&mut chance)).collect();
    orphans.iter().for_each(|id| life.happen(&Event::Plant(*id)));
    let process = Process::start(&life);
    process.sweep().await.unwrap();
    // How many are removed by then: five may go at once.
    for (minutes, removed) in [(11, 5), (1, 5), (58, 5), (2, 10), (58, 10), (3, 12)] {
        tokio::time::advance(Duration::from_secs(60 * minutes)).await;
        let found = process.sweep().await.unwrap();
        let left: usize = orphans.iter().map(|id| alive(&life, *id).len()).sum();
        assert_eq!((left, found.paused), (12 - removed, removed < 12), "{minutes} minutes later");
    }
}

/// What the cloud lists has its row by then, since the rows are read after the list.
#[tokio::test(start_paused = true)]
async fn what_is_made_while_the_cloud_lists_is_no_orphan() {
    let (life, id) = quiet();
    let (cloud, process) = (&life.rows.cloud, Process::start(&life));
    cloud.behave(Habits { latency: TimeDelta::minutes(2), ..Habits::default() });
    let (found, ()) = tokio::join!(process.sweep(), async {
        cloud.behave(Habits::default());
        life.happen(&insert(id, DAY));
        process.run(Instant::now() + Duration::from_secs(1)).await;
    });
    let found = found.unwrap();
    assert_eq!((found.seen, found.orphans), (1, 0));
}

/// Case 24: by a person's word it stays, with a row that was closed, and without any.
#[tokio::test(start_paused = true)]
async fn what_a_person_holds_stays_until_it_is_let_go() {
    let (life, orphan) = quiet();
    let dropped = story::machine(&mut Chance::new(8));
    life.happen(&Event::Plant(orphan));
    life.happen(&insert(dropped, DAY));
    pass(&life, 2).await;
    for id in [orphan, dropped] {
        life.happen(&Event::Hold(id, true));
    }
    life.rows.wish(dropped, Intent::Absent);
    pass(&life, 30).await;
    assert_eq!((alive(&life, orphan).len(), alive(&life, dropped).len()), (1, 1));
    for id in [orphan, dropped] {
        life.happen(&Event::Hold(id, false));
    }
    pass(&life, 15).await;
    assert!(alive(&life, orphan).is_empty() && alive(&life, dropped).is_empty());
}

/// Case 24: the last defence is the machine's own, and its row does not go on as if nothing had happened.
#[tokio::test(start_paused = true)]
async fn a_machine_that_is_past_its_hard_end_is_gone_and_given_up() {
    for power_off_deletes in [true, false] {
        let (life, id) = quiet();
        life.rows.cloud.behave(Habits { power_off_deletes, ..Habits::default() });
        life.happen(&insert(id, TimeDelta::minutes(10)));
        pass(&life, 9).await;
        assert!(alive(&life, id).len() == 1 && life.rows.inside().machines[&id].desired == Presence::Present);
        pass(&life, 4).await;
        let row = life.rows.inside().machines[&id].clone();
        assert!(alive(&life, id).is_empty() && row.state == State::Gone && row.failure.is_some(), "{row:?}");
    }
}

/// A machine that an account made twice.
async fn twins() -> (Life, MachineId) {
    let (life, id) = quiet();
    let late = Habits { makes_twins: true, shows_after: TimeDelta::seconds(90), ..Habits::default() };
    life.rows.cloud.behave(Habits { lands_late: 1000, late_by: TimeDelta::seconds(10), ..late.clone() });
    life.happen(&insert(id, DAY));
    life.processes(Instant::now() + Duration::from_millis(200)).await;
    life.rows.cloud.behave(late);
    pass(&life, 2).await;
    let twins = alive(&life, id).len();
    assert!(twins > 1 && meant(&life, id).is_some(), "this seed has no twins");
    (life, id)
}

/// The provider's id by which its row knows it.
fn meant(life: &Life, id: MachineId) -> Option<String> {
    life.rows.inside().machines[&id].provider_id.clone()
}

/// Case 37.
#[tokio::test(start_paused = true)]
async fn of_twins_the_one_goes_that_the_row_does_not_mean() {
    let (life, id) = twins().await;
    let first = meant(&life, id);
    pass(&life, 30).await;
    let left: Vec<String> = alive(&life, id).into_iter().map(|record| record.id.0).collect();
    assert_eq!(left, first.into_iter().collect::<Vec<_>>());
    assert_eq!(life.rows.inside().machines[&id].state, State::Enrolled, "the preview does not notice");
}

/// They were put to sleep, and half-way there only one was woken.
#[tokio::test(start_paused = true)]
async fn of_twins_the_one_goes_that_was_left_half_asleep() {
    let (life, id) = twins().await;
    life.rows.cloud.change(|habits| habits.sleeps_by_halves = true);
    pass(&life, 1).await;
    life.rows.wish(id, Intent::Asleep);
    life.processes(Instant::now() + Duration::from_secs(1)).await;
    assert!(alive(&life, id).iter().all(|record| record.state == VmState::Hibernated && costs(record)));
    life.rows.wish(id, Intent::Awake);
    pass(&life, 30).await;
    let left: Vec<String> = alive(&life, id).into_iter().map(|record| record.id.0).collect();
    assert_eq!(left, meant(&life, id).into_iter().collect::<Vec<_>>());
    assert_eq!(life.rows.inside().machines[&id].state, State::Enrolled);
}
