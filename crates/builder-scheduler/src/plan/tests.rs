use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::{Strategy, any, prop, proptest};
use stagely_domain::build::State;
use stagely_domain::failure::{Code, Failure};
use stagely_domain::id::{BuildJobId, EnvironmentId, MachineId};
use stagely_domain::machine::{Arch, Size};
use stagely_store::agents::BuildFact;

use super::{Builder, Job, MAX_LOST, Op, Snapshot, plan};

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn job(state: State, machine: Option<MachineId>) -> Job {
    Job {
        id: BuildJobId::generate(),
        environment: EnvironmentId::generate(),
        target: "backend".to_owned(),
        arch: Arch::Amd64,
        size: Size::Medium,
        state,
        machine,
        attempt: 0,
        wanted: true,
        assigned_at: machine.map(|_| now()),
        building_at: (state == State::Building).then(now),
        timeout_secs: 600,
    }
}

fn builder() -> Builder {
    Builder {
        id: MachineId::generate(),
        arch: Arch::Amd64,
        alive: true,
        failure: None,
        enrolled_at: Some(now()),
        used_at: now(),
        reachable: true,
        sent: Some(BTreeSet::new()),
        facts: Vec::new(),
    }
}

fn snapshot(jobs: Vec<Job>, builders: Vec<Builder>) -> Snapshot {
    Snapshot {
        jobs,
        builders,
        wanted: true,
        fresh: (0..4).map(|_| MachineId::generate()).collect(),
        builds_per_builder: 4,
        max_builders: 1,
        idle: TimeDelta::seconds(600),
    }
}

fn fact(job: &Job, state: State) -> BuildFact {
    BuildFact { job: job.id, state, digest: None, failure: None, cached_steps: 0, total_steps: 0 }
}

fn moves(ops: &[Op]) -> Vec<(State, Option<Code>)> {
    ops.iter()
        .filter_map(|op| match op {
            Op::Move { to, failure, .. } => Some((*to, failure.as_ref().map(|failure| failure.code))),
            _ => None,
        })
        .collect()
}

#[test]
fn one_builder_of_the_largest_size_is_acquired_for_all_targets() {
    let jobs = vec![job(State::Queued, None), Job { size: Size::Large, ..job(State::Queued, None) }];
    let snapshot = snapshot(jobs, Vec::new());
    let fresh = snapshot.fresh[0];
    let expected = vec![
        Op::Acquire { machine: fresh, arch: Arch::Amd64, size: Size::Large },
        Op::Assign { job: snapshot.jobs[0].id, machine: fresh },
        Op::Assign { job: snapshot.jobs[1].id, machine: fresh },
    ];
    assert_eq!(plan(&snapshot, now()), expected);
}

#[test]
fn a_live_builder_is_used_and_told_at_once() {
    let (queued, builder) = (job(State::Queued, None), builder());
    let expected = vec![
        Op::Assign { job: queued.id, machine: builder.id },
        Op::Send { machine: builder.id, jobs: BTreeSet::from([queued.id]) },
    ];
    assert_eq!(plan(&snapshot(vec![queued], vec![builder]), now()), expected);
}

#[test]
fn more_jobs_than_room_wait() {
    let jobs: Vec<_> = (0..6).map(|_| job(State::Queued, None)).collect();
    let ops = plan(&snapshot(jobs, vec![builder()]), now());
    assert_eq!(ops.iter().filter(|op| matches!(op, Op::Assign { .. })).count(), 4);
    assert!(!ops.iter().any(|op| matches!(op, Op::Acquire { .. })));
}

#[test]
fn facts_become_states_and_old_facts_are_passed_over() {
    for (stored, told, expected) in [
        (State::Assigned, State::Queued, None),
        (State::Assigned, State::Building, Some((State::Building, None))),
        (State::Building, State::Pushing, Some((State::Pushing, None))),
        (State::Pushing, State::Building, None),
        (State::Building, State::Succeeded, Some((State::Failed, Some(Code::RegistryFailed)))),
        (State::Building, State::Failed, Some((State::Failed, Some(Code::BuildFailed)))),
    ] {
        let mut builder = builder();
        let job = job(stored, Some(builder.id));
        builder.facts.push(fact(&job, told));
        builder.sent = Some(BTreeSet::from([job.id]));
        let ops = plan(&snapshot(vec![job], vec![builder]), now());
        assert_eq!(moves(&ops), expected.into_iter().collect::<Vec<_>>(), "{stored:?} and {told:?}");
    }
}

#[test]
fn a_lost_builder_gives_its_jobs_back_three_times() {
    let mut lost = builder();
    lost.alive = false;
    let first = job(State::Building, Some(lost.id));
    let ops = plan(&snapshot(vec![first.clone()], vec![lost.clone()]), now());
    assert!(matches!(ops[..], [Op::Requeue(_), Op::Acquire { .. }, Op::Assign { .. }]), "{ops:?}");
    let last = Job { attempt: MAX_LOST, ..first };
    let ops = plan(&snapshot(vec![last.clone()], vec![lost.clone()]), now());
    assert_eq!(moves(&ops), [(State::Failed, Some(Code::MachineLost))]);
    lost.failure = Some(Failure {
        code: Code::MachineFailed,
        phase: "boot".to_owned(),
        service: None,
        exit_code: None,
        message: "no capacity".to_owned(),
        log_tail: String::new(),
    });
    let ops = plan(&snapshot(vec![last], vec![lost]), now());
    assert_eq!(moves(&ops), [(State::Failed, Some(Code::MachineFailed))]);
}

#[test]
fn a_superseded_build_is_cancelled_and_stopped_and_the_builder_kept() {
    let mut builder = builder();
    let job = Job { wanted: false, ..job(State::Building, Some(builder.id)) };
    builder.facts.push(fact(&job, State::Building));
    builder.sent = Some(BTreeSet::from([job.id]));
    let machine = builder.id;
    let ops = plan(&snapshot(vec![job], vec![builder]), now());
    assert_eq!(moves(&ops), [(State::Cancelled, None)]);
    assert_eq!(ops[1..], [Op::Send { machine, jobs: BTreeSet::new() }]);
}

#[test]
fn a_late_build_fails_but_neither_boot_nor_a_turn_in_the_queue_counts() {
    let mut builder = builder();
    let late = now() + TimeDelta::seconds(901);
    let running = job(State::Building, Some(builder.id));
    let waiting = job(State::Assigned, Some(builder.id));
    let one = snapshot(vec![running.clone()], vec![builder.clone()]);
    assert_eq!(moves(&plan(&one, late)), [(State::Failed, Some(Code::TimedOut))]);
    let fresh = Job { building_at: Some(late), ..running };
    assert_eq!(moves(&plan(&snapshot(vec![fresh, waiting.clone()], vec![builder.clone()]), late)), []);
    builder.enrolled_at = None;
    assert_eq!(moves(&plan(&snapshot(vec![waiting], vec![builder]), late)), []);
}

#[test]
fn an_idle_builder_is_released_in_time_or_at_once_when_nobody_is_left() {
    let mut one = snapshot(Vec::new(), vec![builder()]);
    let release = vec![Op::Release(one.builders[0].id)];
    assert_eq!(plan(&one, now() + TimeDelta::seconds(599)), []);
    assert_eq!(plan(&one, now() + TimeDelta::seconds(600)), release);
    one.wanted = false;
    assert_eq!(plan(&one, now()), release);
}

/// What carrying the plan out makes of the snapshot.
fn apply(mut snapshot: Snapshot, ops: &[Op]) -> Snapshot {
    for op in ops {
        match op {
            Op::Move { job, from, to, .. } => {
                let job = snapshot.jobs.iter_mut().find(|own| own.id == *job).unwrap();
                assert_eq!(job.state, *from);
                job.state = *to;
                job.building_at = job.building_at.or(Some(now()));
            }
            Op::Requeue(job) => {
                let job = snapshot.jobs.iter_mut().find(|own| own.id == *job).unwrap();
                (job.state, job.machine, job.building_at) = (State::Queued, None, None);
                job.attempt += 1;
            }
            Op::Acquire { machine, arch, .. } => snapshot.builders.push(Builder {
                id: *machine,
                arch: *arch,
                enrolled_at: None,
                reachable: false,
                sent: None,
                ..builder()
            }),
            Op::Assign { job, machine } => {
                assert!(snapshot.builders.iter().any(|builder| builder.id == *machine && builder.alive));
                let job = snapshot.jobs.iter_mut().find(|own| own.id == *job).unwrap();
                assert_eq!(job.state, State::Queued);
                (job.state, job.machine, job.assigned_at) = (State::Assigned, Some(*machine), Some(now()));
            }
            Op::Send { machine, jobs } => {
                let builder = snapshot.builders.iter_mut().find(|builder| builder.id == *machine).unwrap();
                builder.sent = Some(jobs.clone());
                // The agent starts afresh with what it is sent, and ends the rest.
                builder.facts.retain(|fact| jobs.contains(&fact.job) && fact.state != State::Cancelled);
            }
            Op::Release(machine) => {
                snapshot.builders.iter_mut().find(|builder| builder.id == *machine).unwrap().alive = false;
            }
        }
    }
    snapshot.jobs.retain(|job| !job.state.is_final());
    snapshot.fresh = (0..4).map(|_| MachineId::generate()).collect();
    snapshot
}

type Shape = (usize, usize, i32, bool, bool, i64);

fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    let machines = prop::collection::vec((any::<bool>(), any::<bool>(), any::<bool>(), 0_i64..1200), 0..3);
    let jobs =
        prop::collection::vec((0_usize..4, 0_usize..7, 0_i32..5, any::<bool>(), any::<bool>(), 0_i64..2000), 0..8);
    (machines, jobs, any::<bool>(), 1_usize..5, 1_usize..3).prop_map(|(machines, jobs, wanted, room, max)| {
        let mut builders: Vec<_> = machines
            .into_iter()
            .map(|(alive, reachable, arm, idle)| Builder {
                alive,
                reachable,
                arch: if arm { Arch::Arm64 } else { Arch::Amd64 },
                used_at: now() - TimeDelta::seconds(idle),
                sent: None,
                ..builder()
            })
            .collect();
        let jobs = jobs.into_iter().map(|shape| shaped(shape, &mut builders)).collect();
        Snapshot { wanted, builds_per_builder: room, max_builders: max, ..snapshot(jobs, builders) }
    })
}

fn shaped((state, told, attempt, wanted, arch, age): Shape, builders: &mut [Builder]) -> Job {
    let state = State::ALL[state];
    let count = builders.len().max(1);
    let owner = builders.get_mut(told % count).filter(|_| state != State::Queued);
    let machine = owner.as_ref().map(|owner| owner.id);
    let state = if machine.is_none() { State::Queued } else { state };
    let at = Some(now() - TimeDelta::seconds(age));
    let arch = if arch { Arch::Arm64 } else { Arch::Amd64 };
    let job = Job { attempt, wanted, arch, assigned_at: at, building_at: at, ..job(state, machine) };
    // Only an agent that can be reached has ever said anything.
    if let Some(owner) = owner.filter(|owner| owner.reachable) {
        owner.facts.push(fact(&job, State::ALL[told]));
    }
    job
}

proptest! {
    #[test]
    fn a_plan_carried_out_leaves_nothing_to_plan(snapshot in any_snapshot()) {
        let ops = plan(&snapshot, now());
        let after = apply(snapshot, &ops);
        assert_eq!(plan(&after, now()), [], "after {ops:?}");
    }

    #[test]
    fn nothing_open_acquires_nothing(snapshot in any_snapshot()) {
        let ops = plan(&Snapshot { jobs: Vec::new(), ..snapshot }, now());
        let idle = ops.iter().all(|op| matches!(op, Op::Release(_) | Op::Send { .. }));
        assert!(idle, "{ops:?}");
    }
}
