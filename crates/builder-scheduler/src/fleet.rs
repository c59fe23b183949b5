//! The reconciler of one project's builds and builders: reads the rows, plans, and carries the plan out.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use stagely_domain::build::State;
use stagely_domain::clock::Clock;
use stagely_domain::error_chain::chain;
use stagely_domain::failure::Code;
use stagely_domain::id::{BuildJobId, EnvironmentId, MachineId, ProjectId, RunId};
use stagely_domain::machine::{self, Arch};
use stagely_proto::hub::hub_client::HubClient;
use stagely_proto::orchestrator::orchestrator_client::OrchestratorClient;
use stagely_proto::orchestrator::{AcquireMachineRequest, ReleaseMachineRequest};
use stagely_reconcile::{Claim, ErrorClass, Reconciler, Step, StepError};
use stagely_runtime::grpc::Channel;
use stagely_store::builds::{BuildJob, LeftImages};
use stagely_store::machines::Machine;
use stagely_store::work::kind;
use stagely_store::{Presence, Store, StoreError};
use tonic::Code as GrpcCode;

use crate::plan::{self, Builder, Job, Op, Snapshot};
use crate::registry::RegistryClient;
use crate::wish::Wishes;

/// How soon to look again after something was done.
const SOON: Duration = Duration::from_secs(1);

/// How long after an environment's end a builder may still push an image for it.
const LATE: TimeDelta = TimeDelta::minutes(10);

/// The newest wish that this process sent to a machine.
#[derive(Debug, Clone)]
struct Sent {
    generation: u64,
    jobs: BTreeSet<BuildJobId>,
}

/// Reconciles fleets.
pub struct Fleet {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) orchestrator: OrchestratorClient<Channel>,
    pub(crate) hub: HubClient<Channel>,
    pub(crate) wishes: Wishes,
    pub(crate) registry: Option<RegistryClient>,
    pub(crate) limits: Limits,
    pub(crate) memory: Memory,
}

/// The configured limits of every project's fleet.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Jobs that a builder is given at once.
    pub builds_per_builder: usize,
    /// Builders per architecture.
    pub max_builders: usize,
    /// How long a builder is kept without work.
    pub idle: TimeDelta,
}

/// Guesses that save work; losing them costs one more wish and one more look at the registry.
#[derive(Default)]
pub struct Memory {
    sent: Mutex<HashMap<MachineId, Sent>>,
    /// Environments of which the registry has nothing more.
    cleaned: Mutex<HashSet<EnvironmentId>>,
    /// The others that had their turn: each has one before any has another.
    tried: Mutex<HashSet<EnvironmentId>>,
}

#[async_trait]
impl Reconciler for Fleet {
    const KIND: &'static str = kind::FLEET;

    async fn reconcile(&self, claim: &Claim) -> Result<Step, StepError> {
        let project = ProjectId::from_uuid(claim.fence.key);
        let rows =
            self.store.list_open_builds(project).await.map_err(|error| error.into_step_error("read build jobs"))?;
        let snapshot = self.snapshot(project, &rows).await.map_err(|error| error.into_step_error("read the fleet"))?;
        let now = self.clock.now();
        let ops = plan::plan(&snapshot, now);
        for op in &ops {
            self.execute(claim, project, &snapshot, &rows, op).await?;
        }
        if !ops.is_empty() {
            return Ok(Step::Again(SOON));
        }
        self.drop_left_tags(project).await?;
        Ok(match plan::look_again(&snapshot, now) {
            Some(wait) => Step::Again(wait.to_std().unwrap_or(SOON)),
            None => Step::Done,
        })
    }
}

impl Fleet {
    async fn snapshot(&self, project: ProjectId, rows: &[BuildJob]) -> Result<Snapshot, StoreError> {
        let ended: HashSet<RunId> = self.store.list_ended_runs(project).await?.into_iter().collect();
        let starts = self.store.list_build_starts(project).await?;
        let mut machines = self.store.list_project_builders(project).await?;
        for id in rows.iter().filter_map(|job| job.machine) {
            if !machines.iter().any(|machine| machine.id == id) {
                machines.push(self.store.get_machine(id).await?);
            }
        }
        let mut builders = Vec::with_capacity(machines.len());
        for machine in machines {
            builders.push(self.builder(machine).await?);
        }
        Ok(Snapshot {
            jobs: rows.iter().map(|row| job(row, !ended.contains(&row.run), starts.get(&row.id).copied())).collect(),
            builders,
            wanted: self.store.wants_builders(project).await?,
            fresh: (0..2 * self.limits.max_builders).map(|_| MachineId::generate()).collect(),
            builds_per_builder: self.limits.builds_per_builder,
            max_builders: self.limits.max_builders,
            idle: self.limits.idle,
        })
    }

    async fn builder(&self, machine: Machine) -> Result<Builder, StoreError> {
        let agent = self.store.find_agent(machine.id).await?;
        let builds = self.store.list_machine_builds(machine.id).await?;
        let last_end = builds.iter().filter_map(|job| job.finished_at).max();
        let gone = matches!(machine.state, machine::State::Deleting | machine::State::Gone);
        let revoked = agent.as_ref().is_some_and(|agent| agent.revoked_at.is_some());
        // What was sent is known only while nobody else has sent something since.
        let sent = agent.as_ref().and_then(|agent| {
            let memory = self.memory.sent.lock().unwrap_or_else(PoisonError::into_inner);
            memory.get(&machine.id).filter(|sent| sent.generation == agent.desired_generation).cloned()
        });
        Ok(Builder {
            id: machine.id,
            arch: machine.arch,
            alive: machine.desired == Presence::Present && !gone && !revoked,
            failure: machine.failure,
            enrolled_at: machine.enrolled_at,
            used_at: machine
                .intended_at
                .max(machine.enrolled_at.unwrap_or(machine.intended_at))
                .max(last_end.unwrap_or(machine.intended_at)),
            reachable: agent.as_ref().is_some_and(|agent| agent.revoked_at.is_none()),
            sent: sent.map(|sent| sent.jobs),
            facts: agent.and_then(|agent| agent.observed).map(|observed| observed.builds).unwrap_or_default(),
        })
    }

    async fn execute(
        &self,
        claim: &Claim,
        project: ProjectId,
        snapshot: &Snapshot,
        rows: &[BuildJob],
        op: &Op,
    ) -> Result<(), StepError> {
        match op {
            Op::Move { .. } | Op::Requeue(_) | Op::Assign { .. } => {
                self.write(claim, snapshot, op).await.map_err(|error| error.into_step_error("write a build job"))
            }
            Op::Acquire { machine, arch, size } => {
                let request = AcquireMachineRequest {
                    machine_id: machine.to_string(),
                    project_id: project.to_string(),
                    size: size.to_string(),
                    arch: arch.to_string(),
                };
                match self.orchestrator.clone().acquire_machine(request).await {
                    Ok(_) => {
                        tracing::info!(machine.id = %machine, "asked for builder {machine} ({arch}, {size}) for {project}");
                        Ok(())
                    }
                    Err(status) if is_refusal(status.code()) => {
                        self.refuse(claim, snapshot, *arch, status.message()).await?;
                        Err(refused("acquire a builder", status))
                    }
                    Err(status) => Err(refused("acquire a builder", status)),
                }
            }
            Op::Send { machine, jobs } => self.send(project, *machine, jobs, rows).await,
            Op::Release(machine) => {
                let request = ReleaseMachineRequest { machine_id: machine.to_string() };
                let answer = self.orchestrator.clone().release_machine(request).await;
                answer.map_err(|status| refused("release a builder", status))?;
                self.memory.sent.lock().unwrap_or_else(PoisonError::into_inner).remove(machine);
                tracing::info!(machine.id = %machine, "released builder {machine} of {project}");
                Ok(())
            }
        }
    }

    /// One job's change and the wake-up of its environment, behind the fence. A stale write changes nothing: the
    /// next look sees why.
    async fn write(&self, claim: &Claim, snapshot: &Snapshot, op: &Op) -> Result<(), StoreError> {
        let tx = self.store.fenced(&claim.fence).await?;
        let (id, _outcome) = match op {
            Op::Move { job, from, to, digest, failure } => {
                tracing::info!(build.id = %job, "build {job}: {from:?} to {to:?}");
                (job, tx.set_build_state(*job, *from, *to, digest.as_deref(), failure.as_ref()).await?)
            }
            Op::Requeue(job) => {
                tracing::warn!(build.id = %job, "build {job} lost its builder and waits for another");
                (job, tx.requeue_build(*job).await?)
            }
            Op::Assign { job, machine } => (job, tx.assign_build(*job, *machine).await?),
            Op::Acquire { .. } | Op::Send { .. } | Op::Release(_) => return Ok(()),
        };
        if let Some(job) = snapshot.jobs.iter().find(|job| job.id == *id) {
            tx.wake(kind::ENVIRONMENT, job.environment.uuid()).await?;
        }
        tx.commit().await
    }

    /// No builder can be had as things are: the jobs that wait for one say so.
    async fn refuse(&self, claim: &Claim, snapshot: &Snapshot, arch: Arch, why: &str) -> Result<(), StepError> {
        for job in snapshot.jobs.iter().filter(|job| job.state == State::Queued && job.arch == arch) {
            let message = format!("no builder can be had: {why}");
            let op = Op::Move {
                job: job.id,
                from: State::Queued,
                to: State::Failed,
                digest: None,
                failure: Some(plan::failure(job, Code::MachineFailed, &message)),
            };
            self.write(claim, snapshot, &op).await.map_err(|error| error.into_step_error("write a build job"))?;
        }
        Ok(())
    }

    async fn send(
        &self,
        project: ProjectId,
        machine: MachineId,
        jobs: &BTreeSet<BuildJobId>,
        rows: &[BuildJob],
    ) -> Result<(), StepError> {
        let agent = self.store.find_agent(machine).await.map_err(|error| error.into_step_error("read an agent"))?;
        let Some(agent) = agent else { return Ok(()) };
        let generation = agent.desired_generation + 1;
        let builds: Vec<_> = rows.iter().filter(|row| jobs.contains(&row.id)).collect();
        let wish = self.wishes.builder(project, machine, generation, &builds, self.clock.now()).await?;
        let answer = self.hub.clone().set_desired(wish).await.map_err(|status| refused("send builds", status))?;
        if answer.into_inner().accepted {
            let sent = Sent { generation, jobs: jobs.clone() };
            self.memory.sent.lock().unwrap_or_else(PoisonError::into_inner).insert(machine, sent);
        }
        Ok(())
    }

    /// Deletes tags of one environment that is gone; the next look takes the next. It counts as cleaned once there was
    /// nothing to delete and nothing can come any more.
    async fn drop_left_tags(&self, project: ProjectId) -> Result<(), StepError> {
        let Some(registry) = &self.registry else { return Ok(()) };
        let left = self.store.list_left_images(Some(project)).await;
        let left = left.map_err(|error| error.into_step_error("list images left behind"))?;
        let Some(next) = self.memory.next_to_clean(&left) else { return Ok(()) };
        let now = self.clock.now();
        match registry.drop_images(project, &next.hash, &next.images, now).await {
            Ok(0) if now - next.gone_at > LATE => {
                self.memory.cleaned.lock().unwrap_or_else(PoisonError::into_inner).insert(next.environment);
            }
            Ok(0) => {}
            Ok(dropped) => {
                tracing::info!(env.id = %next.environment, dropped, "images of {} are removed", next.environment);
            }
            Err(error) => {
                let env = next.environment;
                tracing::warn!(env.id = %env, error = %chain(&error), "images of {env} stay");
            }
        }
        Ok(())
    }
}

impl Memory {
    /// Whose turn it is.
    fn next_to_clean<'l>(&self, left: &'l [LeftImages]) -> Option<&'l LeftImages> {
        let cleaned = self.cleaned.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        let open: Vec<_> = left.iter().filter(|left| !cleaned.contains(&left.environment)).collect();
        if open.iter().all(|left| tried.contains(&left.environment)) {
            tried.retain(|id| open.iter().all(|left| left.environment != *id));
        }
        let next = open.into_iter().find(|left| !tried.contains(&left.environment))?;
        tried.insert(next.environment);
        Some(next)
    }
}

fn job(row: &BuildJob, wanted: bool, building_at: Option<chrono::DateTime<chrono::Utc>>) -> Job {
    Job {
        id: row.id,
        environment: row.environment,
        target: row.target.clone(),
        arch: row.platform.arch(),
        size: row.spec.size,
        state: row.state,
        machine: row.machine,
        attempt: row.attempt,
        wanted,
        assigned_at: row.assigned_at,
        building_at,
        timeout_secs: row.spec.timeout_secs,
    }
}

const fn is_refusal(code: GrpcCode) -> bool {
    matches!(code, GrpcCode::InvalidArgument | GrpcCode::FailedPrecondition | GrpcCode::NotFound)
}

/// Peers come back, and jobs must not wait for a person meanwhile: nothing that a peer says parks a fleet.
pub(crate) fn refused(doing: &'static str, status: tonic::Status) -> StepError {
    StepError::new(ErrorClass::Transient, doing, status).never_parks()
}
