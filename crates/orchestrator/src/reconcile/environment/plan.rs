//! What is to be done next for an environment: a pure function of what the rows say. It looks at no event and
//! keeps no memory, so recovery, cancelling and superseding are the same code as the straight way.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use stagely_domain::build;
use stagely_domain::cost::Money;
use stagely_domain::environment::State;
use stagely_domain::failure::{Code, Failure};
use stagely_domain::machine::{self, Arch};
use stagely_domain::route;
use stagely_domain::run;
use stagely_domain::spec::Resolved;
use stagely_store::agents::{Agent, Phase};
use stagely_store::builds::BuildJob;
use stagely_store::environments::Environment;
use stagely_store::machines::Machine;
use stagely_store::runs::Run;
use stagely_store::{Power, Presence};

use crate::failures::failure;

/// Everything that a decision is made on.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub env: Environment,
    /// The run of the current generation.
    pub run: Option<Run<Resolved>>,
    /// When a commit was brought live last.
    pub live_at: Option<DateTime<Utc>>,
    pub builds: Vec<BuildJob>,
    /// Preview machines that are not gone, oldest first.
    pub machines: Vec<Machine>,
    /// The newest preview machine ever, gone or not.
    pub newest: Option<Machine>,
    /// The agent of the wanted machine.
    pub agent: Option<Agent>,
    /// Whether others of the account were heard all the time for which an agent has to be silent to be given up.
    pub hears_others: bool,
    pub routes: Vec<route::Entry>,
    /// What it has cost in all, by currency; known once it is to be absent and no machine is left.
    pub costs: Vec<Money>,
}

/// One thing to do. Each may be done twice.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Record the run of this generation and end older ones.
    BeginRun,
    /// Read `stagely.yaml` and the compose files at the commit.
    ReadCommit,
    /// Wish for a machine.
    EnsureMachine,
    /// Ask for the images.
    AskBuilds,
    /// Give the agent this generation's wish.
    Deploy,
    /// Write the routes and ask for the URL through the edge.
    OpenAndProve,
    /// End the run.
    Fail(Box<Failure>),
    /// Wish for the machine to run or sleep.
    SetPower(Power),
    /// End every run that is open.
    CancelRuns,
    /// Ask the agent to run the hooks and stop everything.
    Stop,
    /// Begin another run of the commit: what was live has lost its machine.
    Replace,
    /// Mark every route gone.
    CloseRoutes,
    /// Wish every machine away.
    DropMachines,
    /// Nothing is left.
    Finish,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What to do now.
    pub op: Option<Op>,
    /// Where the environment stands.
    pub state: State,
    /// When to look again without being woken.
    pub again: Duration,
}

/// How long stopping may take before the machine is removed all the same.
const STOP_GRACE: TimeDelta = TimeDelta::seconds(60);
/// How long an agent may be silent before the environment counts as unreachable.
const SILENCE: TimeDelta = TimeDelta::seconds(120);
/// How long the environment must have been unreachable for its machine to be given up.
pub const LOST: TimeDelta = TimeDelta::minutes(10);
/// How long a preview must have been live for its lost machine to be replaced.
const STEADY: TimeDelta = TimeDelta::minutes(5);
/// How soon to look again at an environment for which nothing is under way. Each look may compare it with its pull
/// request.
const RESTING: Duration = Duration::from_secs(300);
/// How soon to look again at one that waits for something outside.
const SOON: Duration = Duration::from_secs(5);

impl Snapshot {
    /// The machine that is wanted.
    pub fn machine(&self) -> Option<&Machine> {
        self.machines.iter().rev().find(|machine| machine.desired == Presence::Present)
    }

    /// Whether a commit was ever live on the machine that is wanted.
    pub fn was_live(&self) -> bool {
        self.machine().zip(self.live_at).is_some_and(|(machine, live)| machine.intended_at <= live)
    }

    /// Whether what was brought live last still stands behind the routes, awake or not: a machine that is wanted. Routes
    /// are open before the proof, and alone prove nothing.
    pub fn serves(&self) -> bool {
        let is_wanted = |target: &route::Target| {
            let of_target = self.machines.iter().find(|machine| machine.id == target.machine);
            of_target.is_some_and(|machine| machine.desired == Presence::Present)
        };
        let leads = |state| matches!(state, route::State::Ready | route::State::Asleep | route::State::Waiting);
        self.was_live()
            && self.routes.iter().any(|route| leads(route.state) && route.target.as_ref().is_some_and(is_wanted))
    }

    /// The number of the newest wish, as agents are told it.
    pub fn generation(&self) -> u64 {
        u64::try_from(self.env.generation).unwrap_or(0)
    }
}

/// The next step.
pub fn plan(snapshot: &Snapshot, now: DateTime<Utc>) -> Plan {
    match snapshot.env.desired {
        Presence::Absent => leave(snapshot, now),
        Presence::Present => match &snapshot.run {
            None => step(State::Queued, Op::BeginRun),
            Some(run) if run.state == run::State::Failed => keep(snapshot, State::Failed, now),
            Some(run) if run.state.is_final() => keep(snapshot, State::Live, now),
            Some(run) => advance(snapshot, run, now),
        },
    }
}

/// Towards a live commit.
fn advance(snapshot: &Snapshot, run: &Run<Resolved>, now: DateTime<Utc>) -> Plan {
    if now - run.created_at > run::LIMIT {
        let minutes = run::LIMIT.num_minutes();
        return fail(match run.spec {
            Some(_) => failure(Code::TimedOut, "deploy", format!("the run took longer than {minutes} minutes")),
            None => {
                let message = format!("the git host did not give the commit's files within {minutes} minutes");
                failure(Code::GitHostFailed, "read", message)
            }
        });
    }
    let Some(spec) = &run.spec else { return step(State::Queued, Op::ReadCommit) };
    let Some(machine) = snapshot.machine() else {
        // A machine of this run that could not be had ends the run; an older one's end is of no concern.
        let lost = snapshot.newest.as_ref().filter(|newest| newest.intended_at >= run.created_at);
        return match lost.and_then(|newest| newest.failure.clone()) {
            Some(failure) => fail(failure),
            None => step(State::Building, Op::EnsureMachine),
        };
    };
    if machine.arch != spec.spec.preview.arch {
        return other_arch(snapshot, machine, spec.spec.preview.arch);
    }
    if machine.power == Power::Asleep {
        return step(State::Building, Op::SetPower(Power::Awake));
    }
    let wanted: usize = spec.targets.iter().map(|target| target.platforms.len()).sum();
    if snapshot.builds.len() < wanted {
        return step(State::Building, Op::AskBuilds);
    }
    if let Some(job) = snapshot.builds.iter().find(|job| job.state == build::State::Failed) {
        let unknown = || failure(Code::BuildFailed, "build", "the image did not build");
        let mut failure = job.failure.clone().unwrap_or_else(unknown);
        failure.service.get_or_insert_with(|| job.target.clone());
        return fail(failure);
    }
    if snapshot.builds.iter().any(|job| job.state != build::State::Succeeded) {
        return wait(State::Building, SOON);
    }
    if machine.state != machine::State::Enrolled {
        return wait(State::Provisioning, SOON);
    }
    let Some(agent) = &snapshot.agent else { return wait(State::Provisioning, SOON) };
    if agent.desired_generation < snapshot.generation() {
        return step(State::Deploying, Op::Deploy);
    }
    let current = agent.observed.as_ref().filter(|observed| observed.generation >= snapshot.generation());
    match current {
        Some(observed) if observed.phase == Phase::Failed => {
            let unknown = || failure(Code::Internal, "deploy", "the agent gave up without a reason");
            fail(observed.failure.clone().unwrap_or_else(unknown))
        }
        Some(observed) if observed.phase == Phase::Running => step(State::Deploying, Op::OpenAndProve),
        _ => wait(State::Deploying, SOON),
    }
}

/// A commit that asks for another processor than the machine of an earlier one has.
fn other_arch(snapshot: &Snapshot, machine: &Machine, wanted: Arch) -> Plan {
    // Nothing is lost with a machine on which nothing was ever live.
    if !snapshot.was_live() {
        return step(State::Building, Op::DropMachines);
    }
    let message = format!(
        "preview.arch is {wanted} now, and the machine that holds the preview's data is {}: close the pull request and open it \
         again for a new one",
        machine.arch
    );
    fail(failure(Code::ConfigInvalid, "boot", message))
}

/// Keeping what there is, awake or asleep.
fn keep(snapshot: &Snapshot, settled: State, now: DateTime<Utc>) -> Plan {
    let Some(machine) = snapshot.machine() else {
        let live = snapshot.run.as_ref().and_then(|run| run.live_at);
        let lost = snapshot.newest.as_ref().and_then(|newest| newest.drop_at);
        let steady = live.zip(lost).is_some_and(|(live, lost)| lost - live > STEADY);
        // One that is lost within minutes is left to its author. The others cost time that is not given anew.
        if settled != State::Live || !steady {
            return wait(State::Failed, RESTING);
        }
        return match snapshot.env.power {
            // Nobody misses it before the next visit.
            Power::Asleep => wait(State::Asleep, RESTING),
            Power::Awake => step(State::Queued, Op::Replace),
        };
    };
    if machine.power != snapshot.env.power {
        let state = if snapshot.env.power == Power::Asleep { State::Sleeping } else { State::Waking };
        return step(state, Op::SetPower(snapshot.env.power));
    }
    match (snapshot.env.power, machine.state) {
        (Power::Asleep, machine::State::Hibernated) => wait(State::Asleep, RESTING),
        (Power::Asleep, _) => wait(State::Sleeping, SOON),
        (Power::Awake, machine::State::Hibernated) => wait(State::Waking, SOON),
        (Power::Awake, _) if settled == State::Failed && !snapshot.serves() => wait(State::Failed, RESTING),
        (Power::Awake, _) => {
            let heard = snapshot.agent.as_ref().and_then(|agent| agent.last_seen_at);
            if heard.is_some_and(|heard| now - heard < SILENCE) {
                wait(settled, Duration::from_secs(60))
            } else if machine.sleep_asked_at.is_some() {
                // It was woken on its way to sleep: first it gets there, or comes back from there.
                wait(State::Waking, SOON)
            } else if settled == State::Live && is_lost(snapshot, now) {
                step(State::Unreachable, Op::DropMachines)
            } else {
                wait(State::Unreachable, SOON)
            }
        }
    }
}

/// Whether the agent has died for good, as far as can be known: a hub that is away silences all of them, and what wakes
/// needs a moment to be heard.
fn is_lost(snapshot: &Snapshot, now: DateTime<Utc>) -> bool {
    let is_unreachable = snapshot.env.state == State::Unreachable && now - snapshot.env.updated_at > LOST;
    is_unreachable && snapshot.hears_others
}

/// Towards nothing: hooks and SIGTERM, then routes, then machines, whose address may be another's soon after.
fn leave(snapshot: &Snapshot, now: DateTime<Utc>) -> Plan {
    let state = State::Destroying;
    if snapshot.env.state == State::Destroyed {
        return Plan { op: None, state: State::Destroyed, again: RESTING };
    }
    if snapshot.env.state != State::Destroying {
        return step(state, Op::CancelRuns);
    }
    if let (Some(machine), Some(agent)) = (snapshot.machine(), &snapshot.agent)
        && machine.state == machine::State::Enrolled
        && agent.last_seen_at.is_some_and(|heard| now - heard < SILENCE)
        && agent.desired_generation > 0
    {
        if agent.desired_generation < snapshot.generation() {
            return step(state, Op::Stop);
        }
        let told = agent.observed.as_ref().filter(|observed| observed.generation >= snapshot.generation());
        let stopped = told.is_some_and(|observed| matches!(observed.phase, Phase::Stopped | Phase::Failed));
        if !stopped && now - snapshot.env.updated_at < STOP_GRACE {
            return wait(state, Duration::from_secs(2));
        }
    }
    if snapshot.routes.iter().any(|route| route.state != route::State::Gone) {
        return step(state, Op::CloseRoutes);
    }
    if snapshot.machines.iter().any(|machine| machine.desired == Presence::Present) {
        return step(state, Op::DropMachines);
    }
    if !snapshot.machines.is_empty() {
        return wait(state, SOON);
    }
    step(state, Op::Finish)
}

fn step(state: State, op: Op) -> Plan {
    Plan { op: Some(op), state, again: SOON }
}

fn wait(state: State, again: Duration) -> Plan {
    Plan { op: None, state, again }
}

fn fail(failure: Failure) -> Plan {
    step(State::Failed, Op::Fail(Box::new(failure)))
}

#[cfg(test)]
mod tests;
