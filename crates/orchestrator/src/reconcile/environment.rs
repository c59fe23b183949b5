//! Environments: look at the rows, do the next thing, say where it stands.

pub mod account;
mod deploy;
mod execute;
pub mod plan;
mod prove;
mod read;
mod sources;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use stagely_domain::environment::State;
use stagely_domain::id::EnvironmentId;
use stagely_reconcile::{Claim, ErrorClass, Fence, Reconciler, Step, StepError};
use stagely_store::environments::Environment;
use stagely_store::work::kind;
use stagely_store::{Presence, Scope, StoreError};
use tokio::sync::Mutex;

use crate::context::{Context, store_error};
use crate::pulls::{self, Decision};
use crate::surface;
use plan::{Plan, Snapshot};

/// Key: the environment's id.
pub struct Environments {
    pub context: Arc<Context>,
    /// When each was last compared with its pull request. Memory is enough: forgetting only compares sooner.
    pub compared: Mutex<HashMap<EnvironmentId, DateTime<Utc>>>,
}

/// Things done in one activation before others get their turn.
const MAX_OPS: usize = 16;
/// How long an environment at rest is left alone after it was compared with its pull request.
const COMPARE: TimeDelta = TimeDelta::minutes(5);

#[async_trait]
impl Reconciler for Environments {
    const KIND: &'static str = kind::ENVIRONMENT;

    async fn reconcile(&self, claim: &Claim) -> Result<Step, StepError> {
        let id = EnvironmentId::from_uuid(claim.fence.key);
        let outcome = self.converge(id, &claim.fence).await;
        match outcome {
            // Whatever is on its way out is tried for ever.
            Err(error) => match self.context.store.get_environment(&Scope::system("reconcile"), id).await {
                Ok(env) if env.desired == Presence::Absent => Err(error.never_parks()),
                _ => Err(error),
            },
            done => done,
        }
    }
}

impl Environments {
    async fn converge(&self, id: EnvironmentId, fence: &Fence) -> Result<Step, StepError> {
        let context = &self.context;
        for _ in 0..MAX_OPS {
            let Some(snapshot) = load_snapshot(context, id).await? else { return Ok(Step::Done) };
            let plan = plan::plan(&snapshot, context.clock.now());
            if let Some(op) = &plan.op {
                tracing::debug!(env.id = %id, ?op, "next for {id}");
                execute::execute(context, fence, &snapshot, op).await?;
                continue;
            }
            self.settle(fence, &snapshot, &plan).await?;
            if snapshot.env.gone_at.is_some() {
                self.compared.lock().await.remove(&id);
                return Ok(Step::Done);
            }
            if matches!(plan.state, State::Live | State::Unreachable | State::Failed | State::Asleep) {
                self.compare_with_pull_request(&snapshot).await;
            }
            return Ok(Step::Again(plan.again));
        }
        Ok(Step::Again(std::time::Duration::ZERO))
    }

    /// Records the state, and what people see of it.
    async fn settle(&self, fence: &Fence, snapshot: &Snapshot, plan: &Plan) -> Result<(), StepError> {
        let doing = "record where an environment stands";
        let tx = self.context.store.fenced(fence).await.map_err(store_error(doing))?;
        let env = &snapshot.env;
        let reason = surface::reason(snapshot);
        // A newer wish will find the row due and do it again.
        let _ = tx
            .set_environment_state(env.id, env.generation, plan.state, reason.as_deref())
            .await
            .map_err(store_error(doing))?;
        surface::write(&self.context, &tx, snapshot, plan.state).await?;
        tx.commit().await.map_err(store_error(doing))
    }

    /// A webhook may be lost, or come while another one is being looked at: an environment at rest asks the git host
    /// itself, at once and then every five minutes. A git host that does not answer is no reason not to look after the rest.
    async fn compare_with_pull_request(&self, snapshot: &Snapshot) {
        let (id, now) = (snapshot.env.id, self.context.clock.now());
        if self.compared.lock().await.get(&id).is_some_and(|last| now - *last < COMPARE) {
            return;
        }
        self.compared.lock().await.insert(id, now);
        if let Err(error) = self.compare(&snapshot.env).await {
            tracing::warn!(env.id = %id, error = error.chain(), "{id} was not compared");
        }
    }

    async fn compare(&self, env: &Environment) -> Result<(), StepError> {
        let doing = "compare with the pull request";
        let context = &self.context;
        let project =
            context.store.get_project(&Scope::system(doing), env.project).await.map_err(store_error(doing))?;
        let seen = pulls::read(context, &project, env.pr.number).await?;
        let tx = context.store.begin().await.map_err(store_error(doing))?;
        let verdict = pulls::apply(context, &tx, &project, env.pr.number, seen).await?;
        if verdict.decision == Decision::Applied {
            tracing::info!(env.id = %env.id, "{} was not told of: {}", env.id, verdict.reason);
        }
        tx.commit().await.map_err(store_error(doing))
    }
}

/// Everything that a decision is made on; `None` when there is no such environment or nothing is left of it.
pub async fn load_snapshot(context: &Context, id: EnvironmentId) -> Result<Option<Snapshot>, StepError> {
    let doing = "look at an environment";
    let store = &context.store;
    let env = match store.get_environment(&Scope::system(doing), id).await {
        Ok(env) => env,
        Err(StoreError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(store_error(doing)(error)),
    };
    let run = store.find_run(id, env.generation).await.map_err(store_error(doing))?;
    let builds = match &run {
        Some(run) => store.list_run_builds(run.id).await.map_err(store_error(doing))?,
        None => Vec::new(),
    };
    let machines = store.list_environment_machines(id).await.map_err(store_error(doing))?;
    let newest = store.newest_environment_machine(id).await.map_err(store_error(doing))?;
    let routes = store.list_environment_routes(id).await.map_err(store_error(doing))?;
    let live_at = store.last_live_at(id).await.map_err(store_error(doing))?;
    let (agent, hears_others, costs) = (None, false, Vec::new());
    let mut snapshot = Snapshot { env, run, live_at, builds, machines, newest, agent, hears_others, routes, costs };
    if snapshot.env.desired == Presence::Absent && snapshot.machines.is_empty() {
        let costs = store.list_environment_costs(&Scope::system(doing), &[id]).await.map_err(store_error(doing))?;
        snapshot.costs = costs.into_values().flatten().collect();
    }
    if let Some(machine) = snapshot.machine().map(|machine| machine.id) {
        snapshot.agent = store.find_agent(machine).await.map_err(store_error(doing))?;
        if snapshot.env.state == State::Unreachable {
            snapshot.hears_others = store.hears_others(machine, plan::LOST).await.map_err(store_error(doing))?;
        }
    }
    Ok(Some(snapshot))
}

/// A failure that is a bug of ours.
fn bug(doing: &'static str, message: &'static str) -> StepError {
    StepError::new(ErrorClass::Transient, doing, message)
}
