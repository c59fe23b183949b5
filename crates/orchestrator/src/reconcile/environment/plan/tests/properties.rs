//! What holds for every snapshot, also for those that no story leads to.

use proptest::prelude::{Strategy, any, prop, proptest};
use stagely_domain::route;

use super::{
    Agent, BuildJob, Code, DateTime, Machine, Op, Phase, Power, Presence, Run, Snapshot, State, TimeDelta, Utc, agent,
    build, entry, failure, job, machine, now, plan, run, snapshot, spec,
};

/// Things done in one activation.
const MAX_OPS: usize = 16;

fn either<T: Clone + std::fmt::Debug + 'static>(of: &'static [T]) -> impl Strategy<Value = T> {
    prop::sample::select(of)
}

fn power() -> impl Strategy<Value = Power> {
    either(&[Power::Awake, Power::Asleep])
}

fn presence() -> impl Strategy<Value = Presence> {
    either(&[Presence::Present, Presence::Absent])
}

fn any_machine() -> impl Strategy<Value = Machine> {
    let states = either(&machine::State::ALL).prop_filter("not gone", |state| *state != machine::State::Gone);
    (states, presence(), power(), any::<bool>()).prop_map(|(state, desired, power, failed)| Machine {
        desired,
        power,
        failure: failed.then(|| failure(Code::MachineLost, "boot", "it died")),
        ..machine(&snapshot(), state)
    })
}

fn any_run() -> impl Strategy<Value = Run<super::Resolved>> {
    (either(&run::State::ALL), any::<bool>(), 0..90_i64).prop_map(|(state, was_read, age)| Run {
        spec: was_read.then(spec),
        created_at: now() - TimeDelta::minutes(age),
        live_at: (state == run::State::Succeeded).then(|| now() - TimeDelta::minutes(age)),
        ..super::run(&snapshot(), state)
    })
}

fn any_agent() -> impl Strategy<Value = Agent> {
    let phases = [Phase::Idle, Phase::Working, Phase::Running, Phase::Failed, Phase::Stopped];
    (0..=3_u64, 0..=3_u64, prop::sample::select(phases.to_vec()), 0..300_i64).prop_map(
        |(desired, observed, phase, silent)| Agent {
            last_seen_at: Some(now() - TimeDelta::seconds(silent)),
            ..agent(&snapshot(), desired, observed.min(desired), phase)
        },
    )
}

fn any_builds() -> impl Strategy<Value = Vec<BuildJob>> {
    prop::collection::vec(either(&build::State::ALL).prop_map(|state| job(&snapshot(), state)), 0..3)
}

fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    let routes = [route::State::Waiting, route::State::Ready, route::State::Asleep, route::State::Failed];
    let env = (presence(), power(), either(&State::ALL));
    let machines = prop::collection::vec(any_machine(), 0..3);
    let routes = prop::collection::vec(prop::sample::select(routes.to_vec()), 0..3);
    let was_live = any::<bool>();
    (env, prop::option::of(any_run()), was_live, any_builds(), machines, prop::option::of(any_agent()), routes)
        .prop_map(|((desired, power, state), run, was_live, builds, machines, agent, routes)| {
            let live_at = was_live.then(now);
            let mut all = Snapshot { run, live_at, builds, newest: machines.last().cloned(), machines, ..snapshot() };
            (all.env.desired, all.env.power, all.env.state) = (desired, power, state);
            all.agent = agent.filter(|_| all.machine().is_some());
            all.routes = routes.into_iter().map(|state| entry(&all, state)).collect();
            all
        })
}

/// What the rows say once `op` was done.
fn apply(mut after: Snapshot, op: Op, now: DateTime<Utc>) -> Snapshot {
    let generation = u64::try_from(after.env.generation).unwrap();
    match op {
        Op::BeginRun => {
            let begun = super::run(&after, run::State::Pending);
            after.run = Some(Run { spec: None, created_at: now, ..begun });
            after.builds.clear();
        }
        Op::ReadCommit => after.run.as_mut().unwrap().spec = Some(spec()),
        Op::EnsureMachine => {
            after.machines.push(Machine { intended_at: now, ..machine(&after, machine::State::Intended) });
            after.newest = after.machines.last().cloned();
        }
        Op::AskBuilds => after.builds = vec![job(&after, build::State::Queued)],
        Op::Deploy | Op::Stop => after.agent.as_mut().unwrap().desired_generation = generation,
        Op::OpenAndProve => {
            let proved = after.run.as_mut().unwrap();
            (proved.state, proved.live_at) = (run::State::Succeeded, Some(now));
            after.live_at = Some(now);
            after.routes = vec![entry(&after, route::State::Ready)];
        }
        Op::Fail(failure) => {
            let failed = after.run.as_mut().unwrap();
            (failed.state, failed.failure) = (run::State::Failed, Some(*failure));
            if !after.was_live() {
                after.machines.iter_mut().for_each(|machine| machine.desired = Presence::Absent);
            }
        }
        Op::SetPower(power) => {
            let id = after.machine().unwrap().id;
            after.machines.iter_mut().filter(|machine| machine.id == id).for_each(|machine| machine.power = power);
        }
        Op::CancelRuns => after.env.state = State::Destroying,
        Op::Replace => {
            after.env.generation += 1;
            let begun = super::run(&after, run::State::Pending);
            after.run = Some(Run { spec: None, created_at: now, ..begun });
            after.builds.clear();
        }
        Op::CloseRoutes => after.routes.iter_mut().for_each(|route| route.state = route::State::Gone),
        Op::DropMachines => after.machines.iter_mut().for_each(|machine| machine.desired = Presence::Absent),
        Op::Finish => after.env.state = State::Destroyed,
    }
    after
}

/// Carries plans out until there is nothing to do; the last plan's state, and everything that was done.
fn settle(mut snapshot: Snapshot, now: DateTime<Utc>) -> (Snapshot, State, Vec<Op>) {
    let mut done = Vec::new();
    loop {
        let next = plan(&snapshot, now);
        let Some(op) = next.op else { return (snapshot, next.state, done) };
        assert!(done.len() < MAX_OPS, "no end: {done:?}");
        done.push(op.clone());
        snapshot = apply(snapshot, op, now);
    }
}

/// What builders, clouds and agents make of it meanwhile.
fn meanwhile(mut world: Snapshot, now: DateTime<Utc>) -> Snapshot {
    world.machines.retain(|machine| machine.desired == Presence::Present);
    for job in world.builds.iter_mut().filter(|job| !job.state.is_final()) {
        job.state = build::State::Succeeded;
    }
    for machine in &mut world.machines {
        let up = matches!(machine.state, machine::State::Enrolled | machine::State::Hibernated);
        let sleeps = up && machine.power == Power::Asleep;
        machine.state = if sleeps { machine::State::Hibernated } else { machine::State::Enrolled };
    }
    let mut told = world.agent.take().unwrap_or_else(|| agent(&world, 0, 0, Phase::Idle));
    if told.desired_generation > told.observed_generation {
        let phase = if world.env.desired == Presence::Absent { Phase::Stopped } else { Phase::Running };
        told = agent(&world, told.desired_generation, told.desired_generation, phase);
    }
    told.last_seen_at = Some(now);
    world.agent = world.machine().is_some().then_some(told);
    world
}

proptest! {
    #[test]
    fn every_snapshot_has_a_plan_and_carrying_plans_out_ends(snapshot in any_snapshot()) {
        let (after, _, _) = settle(snapshot, now());
        assert_eq!(plan(&after, now()).op, None);
    }

    #[test]
    fn what_is_to_go_gets_nothing_new(mut snapshot in any_snapshot()) {
        snapshot.env.desired = Presence::Absent;
        let leaves =
            |op: &Op| matches!(op, Op::CancelRuns | Op::Stop | Op::CloseRoutes | Op::DropMachines | Op::Finish);
        for minutes in 0..5 {
            let at = now() + TimeDelta::minutes(minutes);
            let (after, _, done) = settle(snapshot, at);
            assert!(done.iter().all(leaves), "{done:?}");
            snapshot = meanwhile(after, at);
        }
    }

    #[test]
    fn everything_comes_to_rest_and_what_is_to_go_is_gone(snapshot in any_snapshot()) {
        let (mut snapshot, mut at) = (snapshot, now());
        let mut state = None;
        for _ in 0..90 {
            let (after, settled, _) = settle(snapshot, at);
            (snapshot, state, at) = (meanwhile(after, at), Some(settled), at + TimeDelta::minutes(1));
        }
        let state = state.unwrap();
        let rests: &[State] = match snapshot.env.desired {
            Presence::Absent => &[State::Destroyed],
            Presence::Present => &[State::Live, State::Failed, State::Asleep],
        };
        assert!(rests.contains(&state), "{state:?}: {snapshot:?}");
    }
}
