use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::{Strategy, any, prop, proptest};
use stagely_cloud::{BAKE_DEADLINE, ProviderId};
use stagely_domain::failure::Code;
use stagely_domain::id::{CloudAccountId, ImageId, MachineId, TeamId};
use stagely_domain::image::State;
use stagely_domain::machine::{self, Arch, Role, Size};
use stagely_store::images::Image;
use stagely_store::machines::Machine;
use stagely_store::{Power, Presence};

use super::{BAKE_LIMIT, Bootable, Op, PLACE_LIMIT, Plan, Snapshot, plan};
use crate::failures::failure;

/// More than anything takes.
const MOST: usize = 12;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn snapshot(desired: Presence, state: State, machine: Option<Machine>) -> Snapshot {
    let image = Image {
        id: ImageId::generate(),
        team: TeamId::generate(),
        account: CloudAccountId::generate(),
        arch: Arch::Amd64,
        base_images: Vec::new(),
        agent_sha256: None,
        desired,
        generation: 1,
        state,
        machine: machine.as_ref().map(|machine| machine.id),
        reference: (state == State::Ready).then(|| "4711".to_owned()),
        locations: Vec::new(),
        failure: None,
        created_at: now(),
        ready_at: None,
        deleted_at: None,
    };
    let is_bootable = (desired, state) == (Presence::Present, State::Ready);
    let bootable = if is_bootable { vec![bootable(image.id, &[])] } else { Vec::new() };
    Snapshot { image, machine, bootable, is_asked_for: false }
}

fn bootable(id: ImageId, locations: &[&str]) -> Bootable {
    Bootable { id, locations: locations.iter().map(|place| (*place).to_owned()).collect() }
}

/// One that was placed so many minutes ago, if its state says that it was placed.
fn machine(desired: Presence, state: machine::State, minutes: i64) -> Machine {
    let placed = !matches!(state, machine::State::Intended | machine::State::Creating);
    let at = now() - TimeDelta::minutes(minutes);
    Machine {
        id: MachineId::generate(),
        team: TeamId::generate(),
        project: None,
        environment: None,
        account: CloudAccountId::generate(),
        role: Role::Bake,
        size: Size::Small,
        arch: Arch::Amd64,
        desired,
        power: Power::Awake,
        state,
        locations: Vec::new(),
        offering: None,
        tried: Vec::new(),
        refusals: 0,
        image: None,
        provider_id: placed.then(|| "i-1".to_owned()),
        address: None,
        failure: None,
        create_deadline: None,
        expires_at: at,
        intended_at: at,
        placed_at: placed.then_some(at),
        enrolled_at: None,
        sleep_asked_at: None,
        drop_at: None,
        gone_at: (state == machine::State::Gone).then_some(at),
    }
}

fn code(plan: &Plan) -> Option<Code> {
    match plan {
        Plan::Do(Op::Fail(failure)) => Some(failure.code),
        _ => None,
    }
}

#[test]
fn a_bake_goes_from_a_machine_to_an_image_and_has_a_deadline_whatever_its_machine_does() {
    use machine::State as Of;
    let bake = |machine| plan(&snapshot(Presence::Present, State::Baking, machine), now());
    let of = |state, minutes| bake(Some(machine(Presence::Present, state, minutes)));
    assert_eq!(bake(None), Plan::Do(Op::EnsureMachine));
    let mut forgotten = snapshot(Presence::Present, State::Baking, None);
    forgotten.image.created_at = now() - PLACE_LIMIT - TimeDelta::minutes(1);
    assert_eq!(code(&plan(&forgotten, now())), Some(Code::TimedOut));
    for state in [Of::Intended, Of::Creating] {
        assert!(matches!(of(state, 59), Plan::Wait(_)), "{state:?}");
        assert_eq!(code(&of(state, PLACE_LIMIT.num_minutes() + 1)), Some(Code::TimedOut), "{state:?}");
    }
    assert_eq!(of(Of::Booting, 0), Plan::Do(Op::Capture(ProviderId("i-1".to_owned()))));
    assert_eq!(of(Of::Booting, 25), Plan::Do(Op::Capture(ProviderId("i-1".to_owned()))));
    assert_eq!(code(&of(Of::Booting, BAKE_LIMIT.num_minutes() + 1)), Some(Code::TimedOut));
}

/// At its own deadline a failed bake powers off like one that went well.
#[test]
fn a_machine_that_bakes_runs_longer_than_anybody_makes_an_image_of_it() {
    let reserve = TimeDelta::minutes(30);
    assert!(BAKE_DEADLINE >= (PLACE_LIMIT + BAKE_LIMIT + reserve).to_std().unwrap());
}

#[test]
fn no_image_is_made_of_a_machine_that_is_too_old_whenever_it_was_found() {
    let limit = (PLACE_LIMIT + BAKE_LIMIT).num_minutes();
    for age in [limit + 1, limit + 10, 3 * limit] {
        for (found, state) in (0..=age).flat_map(|found| machine::State::ALL.map(|state| (found, state))) {
            let old = machine(Presence::Present, state, age);
            let placed_at = Some(old.intended_at + TimeDelta::minutes(found));
            let old = Machine { provider_id: Some("i-1".to_owned()), placed_at, ..old };
            let told = plan(&snapshot(Presence::Present, State::Baking, Some(old)), now());
            assert_eq!(code(&told), Some(Code::TimedOut), "{state:?}, found after {found} of {age} minutes");
        }
    }
}

#[test]
fn a_machine_that_was_lost_or_could_not_be_had_says_why_there_is_no_image() {
    for state in machine::State::ALL {
        let dropped = machine(Presence::Absent, state, 1);
        let lost = Machine { failure: Some(failure(Code::MachineFailed, "boot", "no room")), ..dropped.clone() };
        let told = plan(&snapshot(Presence::Present, State::Baking, Some(lost)), now());
        assert_eq!(code(&told), Some(Code::MachineFailed), "{state:?}");
        let told = plan(&snapshot(Presence::Present, State::Baking, Some(dropped)), now());
        assert_eq!(code(&told), Some(Code::MachineLost), "{state:?}");
    }
}

#[test]
fn only_the_newest_of_several_images_stays_whichever_was_ready_last() {
    let mut one = snapshot(Presence::Present, State::Ready, None);
    assert_eq!(plan(&one, now()), Plan::Rest);
    let newer = ImageId::generate();
    one.bootable.push(bootable(newer, &[]));
    assert_eq!(plan(&one, now()), Plan::Do(Op::Retire(vec![one.image.id])));
    let mut other = snapshot(Presence::Present, State::Ready, None);
    other.bootable.insert(0, bootable(newer, &[]));
    assert_eq!(plan(&other, now()), Plan::Do(Op::Retire(vec![newer])));
}

#[test]
fn an_image_goes_only_for_a_newer_one_that_boots_wherever_it_does() {
    let retires = |older: &[&str], newer: &[&str]| {
        let mut one = snapshot(Presence::Present, State::Ready, None);
        one.bootable = vec![bootable(ImageId::generate(), newer), bootable(one.image.id, older)];
        match plan(&one, now()) {
            Plan::Do(Op::Retire(images)) => images == [one.image.id],
            Plan::Rest => false,
            other => panic!("{other:?}"),
        }
    };
    assert!(retires(&["fra1"], &["fra1"]) && retires(&["fra1"], &["ams3", "fra1"]) && retires(&["fra1"], &[]));
    assert!(retires(&["eu-west-1b"], &["eu-west-1"]));
    assert!(!retires(&["fra1"], &["ams3"]) && !retires(&["ams3", "fra1"], &["fra1"]) && !retires(&[], &["fra1"]));
    // Not only the newest of all replaces: that of another place came between.
    let ids: Vec<ImageId> = (0..3).map(|_| ImageId::generate()).collect();
    let mut one = snapshot(Presence::Present, State::Ready, None);
    one.bootable = vec![bootable(ids[2], &["ams3"]), bootable(ids[1], &["fra1"]), bootable(ids[0], &["fra1"])];
    assert_eq!(plan(&one, now()), Plan::Do(Op::Retire(vec![ids[0]])));
}

#[test]
fn what_is_not_wanted_goes_after_its_machine_and_not_while_another_is_created_with_it() {
    for (desired, state) in [
        (Presence::Absent, State::Baking),
        (Presence::Absent, State::Ready),
        (Presence::Absent, State::Failed),
        (Presence::Present, State::Failed),
    ] {
        let of = |machine| snapshot(desired, state, machine);
        let wanted = machine(Presence::Present, machine::State::Booting, 1);
        assert_eq!(plan(&of(Some(wanted)), now()), Plan::Do(Op::DropMachine), "{desired:?} {state:?}");
        let leaving = machine(Presence::Absent, machine::State::Deleting, 1);
        assert!(matches!(plan(&of(Some(leaving)), now()), Plan::Wait(_)), "{desired:?} {state:?}");
        let gone = Some(machine(Presence::Absent, machine::State::Gone, 1));
        assert_eq!(plan(&of(gone.clone()), now()), Plan::Do(Op::Remove), "{desired:?} {state:?}");
        assert_eq!(plan(&of(None), now()), Plan::Do(Op::Remove), "{desired:?} {state:?}");
        let asked_for = Snapshot { is_asked_for: true, ..of(gone) };
        assert!(matches!(plan(&asked_for, now()), Plan::Wait(_)), "{desired:?} {state:?}");
    }
}

/// Its account may be deleted by then.
#[test]
fn the_row_of_what_was_cleared_away_is_closed_without_asking_the_provider_again() {
    for machine in [None, Some(machine(Presence::Absent, machine::State::Gone, 1))] {
        let mut one = snapshot(Presence::Present, State::Failed, machine);
        one.image.deleted_at = Some(now());
        assert_eq!(plan(&one, now()), Plan::Rest);
        one.image.desired = Presence::Absent;
        assert_eq!(plan(&one, now()), Plan::Do(Op::Close));
    }
}

/// What an operation makes of the rows, if everybody does their part at once.
fn apply(snapshot: &mut Snapshot, op: &Op) {
    let image = &mut snapshot.image;
    let drop_it = |machine: &mut Option<Machine>| {
        if let Some(machine) = machine {
            (machine.desired, machine.state, machine.gone_at) = (Presence::Absent, machine::State::Gone, Some(now()));
        }
    };
    match op {
        Op::EnsureMachine => {
            snapshot.machine = Some(machine(Presence::Present, machine::State::Booting, 0));
        }
        Op::Capture(_) => {
            (image.state, image.reference) = (State::Ready, Some("4711".to_owned()));
            snapshot.bootable.push(Bootable { id: image.id, locations: image.locations.clone() });
            drop_it(&mut snapshot.machine);
        }
        Op::Fail(failure) => {
            (image.state, image.failure) = (State::Failed, Some((**failure).clone()));
            snapshot.bootable.retain(|one| one.id != image.id);
            drop_it(&mut snapshot.machine);
        }
        Op::DropMachine => drop_it(&mut snapshot.machine),
        Op::Retire(images) => {
            snapshot.bootable.retain(|one| !images.contains(&one.id));
            if images.contains(&image.id) {
                image.desired = Presence::Absent;
            }
        }
        Op::Remove | Op::Close => {
            image.deleted_at = Some(now());
            if image.desired == Presence::Absent {
                image.state = State::Gone;
            }
        }
    }
}

fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    let presence = || prop::sample::select(vec![Presence::Present, Presence::Absent]);
    let machines = (presence(), prop::sample::select(machine::State::ALL.to_vec()), 0..90_i64)
        .prop_map(|(desired, state, minutes)| machine(desired, state, minutes));
    let states = prop::sample::select(State::ALL.to_vec());
    let places = || prop::sample::select(vec![&[][..], &["fra1"], &["ams3"], &["ams3", "fra1"]]);
    let (others, newer) = (prop::collection::vec(places(), 0..3), prop::option::of(places()));
    (presence(), states, prop::option::of(machines), places(), others, newer, any::<bool>()).prop_map(
        |(desired, state, machine, own, others, newer, cleared)| {
            let make = |places: &[&str]| bootable(ImageId::generate(), places);
            let before: Vec<Bootable> = others.into_iter().map(make).collect();
            let mut one = snapshot(desired, state, machine);
            one.image.deleted_at = (cleared && state == State::Failed).then(now);
            one.image.locations = bootable(one.image.id, own).locations;
            one.bootable.iter_mut().for_each(|image| image.locations.clone_from(&one.image.locations));
            one.bootable.extend(before);
            one.bootable.extend(newer.map(make));
            one
        },
    )
}

proptest! {
    /// From wherever it begins: the machine is gone, and so is the image unless it is the newest that can be booted in one
    /// of its places.
    #[test]
    fn every_image_comes_to_rest_with_nothing_but_what_is_wanted(mut one in any_snapshot()) {
        let wanted = one.image.desired;
        let mut done = Vec::new();
        for _ in 0..MOST {
            match plan(&one, now()) {
                Plan::Do(op) => {
                    apply(&mut one, &op);
                    done.push(op);
                }
                // Others do their part, and nobody waits for ever.
                Plan::Wait(_) => {
                    let waited_for = one.machine.as_mut().expect("it waits for its machine");
                    if waited_for.desired == Presence::Present {
                        let placed = machine(Presence::Present, machine::State::Booting, 0);
                        *waited_for = Machine { id: waited_for.id, ..placed };
                    } else {
                        (waited_for.state, waited_for.gone_at) = (machine::State::Gone, Some(now()));
                    }
                }
                Plan::Rest => break,
            }
        }
        assert_eq!(plan(&one, now()), Plan::Rest, "{done:?}");
        if one.image.state == State::Gone && done.is_empty() {
            return Ok(());
        }
        assert!(one.machine.as_ref().is_none_or(|machine| machine.desired == Presence::Absent), "{done:?}");
        match one.image.state {
            State::Baking => panic!("it rests while it is baked: {done:?}"),
            State::Ready => {
                assert!(wanted == Presence::Present && one.bootable.iter().any(|image| image.id == one.image.id));
                let is_replaced = |image: &Bootable| one.bootable.iter().any(|newer| newer.replaces(image));
                assert!(!one.bootable.iter().any(is_replaced), "{:?}", one.bootable);
            }
            State::Failed => assert!(wanted == Presence::Present && one.image.deleted_at.is_some()),
            State::Gone => assert!(one.image.deleted_at.is_some()),
        }
        let distinct: BTreeSet<String> = done.iter().map(|op| format!("{op:?}")).collect();
        assert_eq!(distinct.len(), done.len(), "something is done twice: {done:?}");
    }
}
