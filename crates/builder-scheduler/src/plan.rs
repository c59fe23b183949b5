//! What to do next for one project's builds and builders: a pure function of what was read.
//!
//! Effects are worked into a copy as they are planned, so one plan goes as far as it can, and planning again
//! after it was carried out gives nothing.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use stagely_domain::build::{Event, State};
use stagely_domain::failure::{Code, Failure};
use stagely_domain::id::{BuildJobId, EnvironmentId, MachineId};
use stagely_domain::machine::{Arch, Size};
use stagely_store::agents::BuildFact;

/// How many builders may be lost over one job.
pub const MAX_LOST: i32 = 3;

/// What is granted beyond a job's own time-out, which the agent enforces itself.
const GRACE_SECS: i64 = 300;

/// One open job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: BuildJobId,
    /// Whom its end is told.
    pub environment: EnvironmentId,
    /// Its name.
    pub target: String,
    /// The processor that it needs.
    pub arch: Arch,
    /// The builder's size that it asks for.
    pub size: Size,
    /// Where it stands.
    pub state: State,
    /// Its builder.
    pub machine: Option<MachineId>,
    /// Builders lost over it.
    pub attempt: i32,
    /// Whether its run is not over.
    pub wanted: bool,
    /// When it was given to its builder.
    pub assigned_at: Option<DateTime<Utc>>,
    /// When the builder began with it.
    pub building_at: Option<DateTime<Utc>>,
    /// The longest that it may take.
    pub timeout_secs: u32,
}

/// One builder, or what is left of one that open jobs name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builder {
    /// Its id.
    pub id: MachineId,
    /// Its processor.
    pub arch: Arch,
    /// Whether it is to exist and, as far as is known, does.
    pub alive: bool,
    /// Why it is not.
    pub failure: Option<Failure>,
    /// When its agent enrolled.
    pub enrolled_at: Option<DateTime<Utc>>,
    /// When it was last of use.
    pub used_at: DateTime<Utc>,
    /// Whether the hub takes wishes for it.
    pub reachable: bool,
    /// The builds in the newest wish, if it is known.
    pub sent: Option<BTreeSet<BuildJobId>>,
    /// What its agent says.
    pub facts: Vec<BuildFact>,
}

/// All that a plan depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The open jobs, oldest first.
    pub jobs: Vec<Job>,
    /// The builders, oldest first.
    pub builders: Vec<Builder>,
    /// Whether the project has an environment that is to exist.
    pub wanted: bool,
    /// Ids for builders to be; when they run out, jobs wait for the next look.
    pub fresh: Vec<MachineId>,
    /// Jobs that a builder is given at once.
    pub builds_per_builder: usize,
    /// Builders per architecture.
    pub max_builders: usize,
    /// How long a builder is kept without work.
    pub idle: TimeDelta,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Record a job's next state.
    Move {
        /// The job.
        job: BuildJobId,
        /// Where it stands.
        from: State,
        /// Where it goes.
        to: State,
        /// The image, once pushed.
        digest: Option<String>,
        /// Why it failed.
        failure: Option<Failure>,
    },
    /// Take a job back from a lost builder.
    Requeue(BuildJobId),
    /// Ask for a builder.
    Acquire {
        /// Its id.
        machine: MachineId,
        /// Its processor.
        arch: Arch,
        /// Its size.
        size: Size,
    },
    /// Give a job to a builder.
    Assign {
        /// The job.
        job: BuildJobId,
        /// The builder.
        machine: MachineId,
    },
    /// Tell a builder which builds are wanted: it stops every other.
    Send {
        /// The builder.
        machine: MachineId,
        /// All of its builds.
        jobs: BTreeSet<BuildJobId>,
    },
    /// Give a builder up.
    Release(MachineId),
}

/// What to do, in order.
#[must_use]
pub fn plan(snapshot: &Snapshot, now: DateTime<Utc>) -> Vec<Op> {
    let mut ops = Vec::new();
    let mut jobs = snapshot.jobs.clone();
    for index in 0..jobs.len() {
        if let Some(op) = next_of_job(&jobs[index], &jobs, snapshot, now) {
            match &op {
                Op::Move { to, .. } => jobs[index].state = *to,
                _ => (jobs[index].state, jobs[index].machine) = (State::Queued, None),
            }
            ops.push(op);
        }
    }
    jobs.retain(|job| !job.state.is_final());
    assign(snapshot, &mut jobs, &mut ops);
    for builder in snapshot.builders.iter().filter(|builder| builder.alive) {
        let own: BTreeSet<_> = jobs.iter().filter(|job| job.machine == Some(builder.id)).map(|job| job.id).collect();
        if own.is_empty() && is_spare(snapshot, builder, &jobs, now) {
            ops.push(Op::Release(builder.id));
        } else if builder.reachable && must_hear(builder, &own) {
            ops.push(Op::Send { machine: builder.id, jobs: own });
        }
    }
    ops
}

/// When to look again by itself; `None` when only an event can change anything.
#[must_use]
pub fn look_again(snapshot: &Snapshot, now: DateTime<Utc>) -> Option<TimeDelta> {
    let released = snapshot.builders.iter().filter(|builder| builder.alive).map(|builder| {
        let waits = snapshot.jobs.iter().any(|job| job.machine == Some(builder.id));
        // Nothing tells when the hub begins to take wishes for a new machine.
        if waits && !builder.reachable { TimeDelta::seconds(2) } else { builder.used_at + snapshot.idle - now }
    });
    let ended = snapshot.jobs.iter().map(|_| TimeDelta::seconds(30));
    released.chain(ended).min().map(|wait| wait.clamp(TimeDelta::seconds(1), TimeDelta::seconds(600)))
}

fn next_of_job(job: &Job, jobs: &[Job], snapshot: &Snapshot, now: DateTime<Utc>) -> Option<Op> {
    if !job.wanted {
        return step(job, Event::Cancelled, None, None);
    }
    let machine = job.machine?;
    let Some(builder) = snapshot.builders.iter().find(|builder| builder.id == machine && builder.alive) else {
        let lost = snapshot.builders.iter().find(|builder| builder.id == machine);
        return Some(lose(job, lost.and_then(|builder| builder.failure.as_ref())));
    };
    if let Some(fact) = builder.facts.iter().find(|fact| fact.job == job.id) {
        let op = match fact.state {
            State::Queued | State::Assigned => None,
            State::Building => step(job, Event::Started, None, None),
            State::Pushing => step(job, Event::PushStarted, None, None),
            State::Succeeded => match &fact.digest {
                Some(digest) => step(job, Event::Pushed, Some(digest.clone()), None),
                None => {
                    let why = failure(job, Code::RegistryFailed, "the registry named no digest for the image");
                    step(job, Event::Failed, None, Some(why))
                }
            },
            State::Failed => step(job, Event::Failed, None, Some(told(job, fact))),
            // Its agent was stopped: the machine may live, this build does not.
            State::Cancelled => Some(lose(job, None)),
        };
        if op.is_some() {
            return op;
        }
    }
    if is_late(job, jobs, builder, now) {
        let message = format!("the build took longer than its {} s and was stopped", job.timeout_secs);
        return step(job, Event::Failed, None, Some(failure(job, Code::TimedOut, &message)));
    }
    None
}

fn step(job: &Job, event: Event, digest: Option<String>, failure: Option<Failure>) -> Option<Op> {
    // An event that cannot happen here is old news.
    let to = job.state.next(event).ok()?;
    (to != job.state).then_some(Op::Move { job: job.id, from: job.state, to, digest, failure })
}

fn lose(job: &Job, cause: Option<&Failure>) -> Op {
    if job.attempt < MAX_LOST {
        return Op::Requeue(job.id);
    }
    let why = match cause {
        Some(cause) => Failure { code: Code::MachineFailed, ..cause.clone() },
        None => failure(job, Code::MachineLost, "every builder that worked on it was lost before the end"),
    };
    Op::Move { job: job.id, from: job.state, to: State::Failed, digest: None, failure: Some(why) }
}

fn told(job: &Job, fact: &BuildFact) -> Failure {
    let mut why = fact
        .failure
        .clone()
        .unwrap_or_else(|| failure(job, Code::BuildFailed, "the builder did not say why it failed"));
    why.service.get_or_insert_with(|| job.target.clone());
    why
}

pub(crate) fn failure(job: &Job, code: Code, message: &str) -> Failure {
    Failure {
        code,
        phase: "build".to_owned(),
        service: Some(job.target.clone()),
        exit_code: None,
        message: message.to_owned(),
        log_tail: String::new(),
    }
}

/// A job in the agent's own queue is only late when nothing before it runs.
fn is_late(job: &Job, jobs: &[Job], builder: &Builder, now: DateTime<Utc>) -> bool {
    // The boot is timed by whoever makes machines.
    let Some(enrolled_at) = builder.enrolled_at else { return false };
    let started = if job.state == State::Assigned {
        let runs = |other: &&Job| matches!(other.state, State::Building | State::Pushing);
        if jobs.iter().filter(|other| other.machine == job.machine).any(|other| runs(&other)) {
            return false;
        }
        job.assigned_at
    } else {
        job.building_at.or(job.assigned_at)
    };
    let since = started.map_or(enrolled_at, |at| at.max(enrolled_at));
    now - since > TimeDelta::seconds(i64::from(job.timeout_secs) + GRACE_SECS)
}

fn assign(snapshot: &Snapshot, jobs: &mut [Job], ops: &mut Vec<Op>) {
    let mut fresh = snapshot.fresh.iter().copied();
    for arch in [Arch::Amd64, Arch::Arm64] {
        let mut builders: Vec<MachineId> = snapshot
            .builders
            .iter()
            .filter(|builder| builder.alive && builder.arch == arch)
            .map(|builder| builder.id)
            .collect();
        for index in 0..jobs.len() {
            if jobs[index].state != State::Queued || jobs[index].arch != arch {
                continue;
            }
            let load = |machine: MachineId| jobs.iter().filter(|job| job.machine == Some(machine)).count();
            let roomy = builders.iter().copied().filter(|id| load(*id) < snapshot.builds_per_builder);
            let machine = match roomy.min_by_key(|id| load(*id)) {
                Some(machine) => machine,
                None if builders.len() < snapshot.max_builders => {
                    let Some(machine) = fresh.next() else { break };
                    let waiting = jobs.iter().filter(|job| job.state == State::Queued && job.arch == arch);
                    let size = waiting.map(|job| job.size).max().unwrap_or_default();
                    ops.push(Op::Acquire { machine, arch, size });
                    builders.push(machine);
                    machine
                }
                None => break,
            };
            (jobs[index].state, jobs[index].machine) = (State::Assigned, Some(machine));
            ops.push(Op::Assign { job: jobs[index].id, machine });
        }
    }
}

fn is_spare(snapshot: &Snapshot, builder: &Builder, jobs: &[Job], now: DateTime<Utc>) -> bool {
    (!snapshot.wanted && jobs.is_empty()) || now - builder.used_at >= snapshot.idle
}

/// Whether the wish that the builder has differs in a way that matters: a build that it does not know, or one
/// that goes on although nobody wants it.
fn must_hear(builder: &Builder, own: &BTreeSet<BuildJobId>) -> bool {
    let ended = |id: &BuildJobId| builder.facts.iter().any(|fact| fact.job == *id && fact.state.is_final());
    match &builder.sent {
        Some(sent) => !own.is_subset(sent) || sent.difference(own).any(|id| !ended(id)),
        None => !own.is_empty() || builder.facts.iter().any(|fact| !fact.state.is_final()),
    }
}

#[cfg(test)]
mod tests;
