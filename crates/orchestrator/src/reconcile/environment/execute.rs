//! Doing one thing. Outside calls first, then one short transaction behind the fence.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, json};
use stagely_domain::build::Job;
use stagely_domain::environment::State;
use stagely_domain::failure::Failure;
use stagely_domain::id::{BuildJobId, MachineId, RunId};
use stagely_domain::machine::Role;
use stagely_domain::run::{self, Cause};
use stagely_domain::spec::Resolved;
use stagely_proto::{agent, hub};
use stagely_reconcile::{ErrorClass, Fence, StepError};
use stagely_store::agents::Step;
use stagely_store::builds::NewBuildJob;
use stagely_store::environments::Environment;
use stagely_store::machines::NewMachine;
use stagely_store::runs::{NewRun, PhaseEdge, Run};
use stagely_store::work::kind;
use stagely_store::{Outcome, Presence, Tx};

use super::plan::{Op, Snapshot};
use super::{account, bug, deploy, prove, read, sources};
use crate::context::{Context, forge_error, rpc_error, store_error};
use crate::reconcile::route;
use crate::surface::{self, routes};

pub async fn execute(context: &Context, fence: &Fence, snapshot: &Snapshot, op: &Op) -> Result<(), StepError> {
    match op {
        Op::BeginRun => begin_run(context, fence, snapshot).await,
        Op::ReadCommit => read_commit(context, fence, snapshot).await,
        Op::EnsureMachine => ensure_machine(context, fence, snapshot).await,
        Op::AskBuilds => ask_builds(context, fence, snapshot).await,
        Op::Deploy => deploy(context, fence, snapshot).await,
        Op::OpenAndProve => open_and_prove(context, fence, snapshot).await,
        Op::Fail(failure) => fail(context, fence, snapshot, failure).await,
        Op::SetPower(power) => {
            let machine = snapshot.machine().ok_or_else(|| bug("set power", "there is no machine"))?.id;
            write(context, fence, "set power", async |tx| {
                let _ = tx.wish_machine_power(machine, *power).await?;
                tx.wake(kind::MACHINE, machine.uuid()).await
            })
            .await
        }
        Op::CancelRuns => cancel_runs(context, fence, snapshot).await,
        Op::Stop => stop(context, snapshot).await,
        Op::Replace => replace(context, fence, snapshot).await,
        Op::CloseRoutes => close_routes(context, fence, snapshot).await,
        Op::DropMachines => drop_machines(context, fence, snapshot).await,
        Op::Finish => finish(context, fence, snapshot).await,
    }
}

/// One short transaction behind the fence.
async fn write(
    context: &Context,
    fence: &Fence,
    doing: &'static str,
    change: impl AsyncFnOnce(&Tx) -> stagely_store::Result<()>,
) -> Result<(), StepError> {
    let tx = context.store.fenced(fence).await.map_err(store_error(doing))?;
    change(&tx).await.map_err(store_error(doing))?;
    tx.commit().await.map_err(store_error(doing))
}

async fn begin_run(context: &Context, fence: &Fence, snapshot: &Snapshot) -> Result<(), StepError> {
    let env = &snapshot.env;
    let doing = "begin a run";
    let before = context.store.find_run::<Resolved>(env.id, env.generation - 1).await.map_err(store_error(doing))?;
    let cause = match before {
        _ if env.generation == 1 => Cause::Opened,
        Some(before) if before.sha == env.pr.sha => Cause::Redeploy,
        _ => Cause::Push,
    };
    let run = new_run(env, env.generation, cause);
    write(context, fence, doing, async |tx| {
        tx.end_older_runs(env.id, env.generation, run::State::Superseded).await?;
        tx.insert_run(&run).await?;
        tx.wake(kind::FLEET, env.project.uuid()).await?;
        let _ = tx.set_environment_state(env.id, env.generation, State::Queued, None).await?;
        Ok(())
    })
    .await?;
    show(context, fence, snapshot, State::Queued).await
}

/// Another run of the same commit, on another machine.
async fn replace(context: &Context, fence: &Fence, snapshot: &Snapshot) -> Result<(), StepError> {
    let env = &snapshot.env;
    tracing::warn!(env.id = %env.id, "{} lost its machine and gets another", env.id);
    let run = new_run(env, env.generation + 1, Cause::MachineLost);
    write(context, fence, "replace a lost machine", async |tx| {
        if tx.wish_again(env.id, env.generation).await? == Outcome::Written {
            tx.insert_run(&run).await?;
            tx.wake(kind::FLEET, env.project.uuid()).await?;
        }
        Ok(())
    })
    .await
}

fn new_run(env: &Environment, generation: i64, cause: Cause) -> NewRun {
    NewRun { id: RunId::generate(), team: env.team, environment: env.id, generation, sha: env.pr.sha.clone(), cause }
}

/// What people see, before a step that takes its time.
async fn show(context: &Context, fence: &Fence, snapshot: &Snapshot, state: State) -> Result<(), StepError> {
    let doing = "show where an environment stands";
    let tx = context.store.fenced(fence).await.map_err(store_error(doing))?;
    surface::write(context, &tx, snapshot, state).await?;
    tx.commit().await.map_err(store_error(doing))
}

async fn read_commit(context: &Context, fence: &Fence, snapshot: &Snapshot) -> Result<(), StepError> {
    let run = the_run(snapshot)?;
    let repo = context.repo(snapshot.env.project).await?;
    match read::commit(context, &repo, &run.sha).await? {
        Ok(resolved) => {
            write(context, fence, "store what the commit asks for", async |tx| tx.set_run_spec(run.id, &resolved).await)
                .await
        }
        Err(failure) => fail(context, fence, snapshot, &failure).await,
    }
}

async fn ensure_machine(context: &Context, fence: &Fence, snapshot: &Snapshot) -> Result<(), StepError> {
    let doing = "wish for a machine";
    let (env, spec) = (&snapshot.env, the_spec(snapshot)?);
    let account = match account::of(context, env, &spec.spec.preview).await? {
        Ok(account) => account,
        Err(failure) => return fail(context, fence, snapshot, &failure).await,
    };
    let machine = NewMachine {
        id: MachineId::generate(),
        team: env.team,
        project: Some(env.project),
        environment: Some(env.id),
        account,
        role: Role::Preview,
        size: spec.spec.preview.size,
        arch: spec.spec.preview.arch,
        locations: spec.spec.preview.region.clone(),
        lifetime: TimeDelta::hours(context.config.machine_lifetime_hours),
    };
    write(context, fence, doing, async |tx| {
        let _ = tx.insert_machine(&machine).await?;
        tx.wake(kind::MACHINE, machine.id.uuid()).await
    })
    .await
}

async fn ask_builds(context: &Context, fence: &Fence, snapshot: &Snapshot) -> Result<(), StepError> {
    let (env, run, spec) = (&snapshot.env, the_run(snapshot)?, the_spec(snapshot)?);
    let doing = "ask for builds";
    let short = run.sha.get(..12).unwrap_or(&run.sha);
    let repo = context.repo(env.project).await?;
    let sources = sources::of_targets(context, &repo, &run.sha, &spec.targets).await;
    let earlier = context.store.list_newest_images(env.id).await.map_err(store_error(doing))?;
    let mut jobs = Vec::new();
    for (target, source) in spec.targets.iter().zip(sources) {
        for platform in &target.platforms {
            // Repository names are lower case (OCI distribution specification, "pulling manifests").
            let name: String = target.name.to_lowercase();
            let image = format!("{}/{name}:{}-{short}-{}", env.project.label(), env.hash, platform.arch());
            let wanted = Job {
                sha: run.sha.clone(),
                source: source.clone(),
                context: target.context.to_string(),
                dockerfile: target.dockerfile.clone(),
                stage: target.stage.clone(),
                args: target.args.clone(),
                secrets: target.secrets.clone(),
                size: target.size,
                image,
                timeout_secs: target.timeout_secs,
            };
            let same = earlier.iter().find(|job| {
                (&job.target, job.platform) == (&target.name, *platform) && wanted.reads_the_same_as(&job.spec)
            });
            jobs.push(NewBuildJob {
                id: BuildJobId::generate(),
                team: env.team,
                project: env.project,
                environment: env.id,
                run: run.id,
                target: target.name.clone(),
                platform: *platform,
                reused: same.and_then(|job| job.image_digest.clone()),
                spec: same.map_or(wanted, |job| job.spec.clone()),
            });
        }
    }
    write(context, fence, doing, async |tx| {
        for job in &jobs {
            tx.insert_build_job(job).await?;
        }
        let _ = tx.set_run_state(run.id, run::State::Building, None).await?;
        tx.wake(kind::FLEET, env.project.uuid()).await
    })
    .await
}

async fn deploy(context: &Context, fence: &Fence, snapshot: &Snapshot) -> Result<(), StepError> {
    let doing = "give the agent its wish";
    let (env, run, spec) = (&snapshot.env, the_run(snapshot)?, the_spec(snapshot)?);
    let repo = context.repo(env.project).await?;
    let clone = context.forge.clone_access(&repo).await.map_err(forge_error(doing))?;
    let preview = deploy::running(context, env, spec, &snapshot.builds, &clone);
    set_desired(context, snapshot, preview).await?;
    write(context, fence, doing, async |tx| {
        tx.note_phase(run.id, "deploy", PhaseEdge::Started).await?;
        let _ = tx.set_run_state(run.id, run::State::Deploying, None).await?;
        Ok(())
    })
    .await
}

async fn stop(context: &Context, snapshot: &Snapshot) -> Result<(), StepError> {
    let last = context.store.last_live_run::<Resolved>(snapshot.env.id).await.map_err(store_error("stop a preview"))?;
    let spec = last.and_then(|run| run.spec);
    set_desired(context, snapshot, deploy::stopped(context, &snapshot.env, spec.as_ref())).await
}

async fn set_desired(context: &Context, snapshot: &Snapshot, preview: agent::Preview) -> Result<(), StepError> {
    let doing = "give the agent its wish";
    let machine = snapshot.machine().ok_or_else(|| bug(doing, "there is no machine"))?;
    let desired =
        agent::Desired { generation: snapshot.generation(), spec: Some(agent::desired::Spec::Preview(preview)) };
    let request = hub::SetDesiredRequest { machine_id: machine.id.to_string(), desired: Some(desired) };
    context.hub.clone().set_desired(request).await.map_err(rpc_error(doing)).map(drop)
}

/// Writes the routes, copies them at once, and asks for the URL as a visitor would.
async fn open_and_prove(context: &Context, fence: &Fence, snapshot: &Snapshot) -> Result<(), StepError> {
    let doing = "open the routes";
    let (env, run, spec) = (&snapshot.env, the_run(snapshot)?, the_spec(snapshot)?);
    let entries = routes::open(context, snapshot, spec).ok_or_else(|| bug(doing, "the machine has no address"))?;
    write(context, fence, doing, async |tx| {
        if matches!(run.state, run::State::Pending | run::State::Building) {
            // The agent had its wish, and we were stopped before we could write that down.
            tx.note_phase(run.id, "deploy", PhaseEdge::Started).await?;
            let _ = tx.set_run_state(run.id, run::State::Deploying, None).await?;
        }
        let _ = tx.set_run_state(run.id, run::State::Verifying, None).await?;
        tx.note_phase(run.id, "deploy", PhaseEdge::Finished).await?;
        tx.merge_phases(run.id, agent_phases(snapshot, context.clock.now())).await?;
        tx.note_phase(run.id, "route", PhaseEdge::Started).await?;
        for entry in &entries {
            tx.write_route(env.team, env.generation, entry).await?;
        }
        tx.wake(kind::ROUTE, env.id.uuid()).await
    })
    .await?;
    route::publish(context, env.id).await?;
    write(context, fence, doing, async |tx| {
        tx.note_phase(run.id, "route", PhaseEdge::Finished).await?;
        tx.note_phase(run.id, "prove", PhaseEdge::Started).await
    })
    .await?;
    let host = surface::root_host(context, env);
    let proof = tokio::select! {
        proof = prove::through_the_edge(context, &host) => proof,
        // What was begun by the older wish ends as everything of it does.
        () = prove::overtaken(context, env) => return Ok(()),
    };
    match proof {
        Ok(()) => succeed(context, fence, snapshot, run, spec).await,
        Err(failure) => fail(context, fence, snapshot, &failure).await,
    }
}

async fn succeed(
    context: &Context,
    fence: &Fence,
    snapshot: &Snapshot,
    run: &Run<Resolved>,
    spec: &Resolved,
) -> Result<(), StepError> {
    let env = &snapshot.env;
    let span = |secs: u64| TimeDelta::seconds(i64::try_from(secs).unwrap_or(i64::MAX / 1000));
    let (ttl, sleep_after) = (spec.spec.preview.ttl, spec.spec.preview.sleep_after);
    write(context, fence, "record that it is live", async |tx| {
        tx.note_phase(run.id, "prove", PhaseEdge::Finished).await?;
        let _ = tx.set_run_state(run.id, run::State::Succeeded, None).await?;
        // A replacement is no new commit: what was promised to its author stays as it is.
        if run.cause == Cause::MachineLost {
            return Ok(());
        }
        tx.renew_environment(env.id, span(ttl.as_secs()), sleep_after.map(|after| span(after.as_secs()))).await
    })
    .await?;
    tracing::info!(env.id = %env.id, run.id = %run.id, "{} is live at {}", env.id, env.pr.sha);
    Ok(())
}

async fn fail(context: &Context, fence: &Fence, snapshot: &Snapshot, failure: &Failure) -> Result<(), StepError> {
    let (env, run) = (&snapshot.env, the_run(snapshot)?);
    tracing::info!(env.id = %env.id, run.id = %run.id, code = failure.code.as_str(), "{} failed: {}", env.id, failure.message);
    write(context, fence, "record a failure", async |tx| {
        let _ = tx.set_run_state(run.id, run::State::Failed, Some(failure)).await?;
        tx.merge_phases(run.id, agent_phases(snapshot, context.clock.now())).await?;
        tx.wake(kind::FLEET, env.project.uuid()).await?;
        // Nothing was ever live on it: a machine without anything on it is not kept.
        if !snapshot.was_live() {
            for machine in snapshot.machines.iter().filter(|machine| machine.desired == Presence::Present) {
                wish_away(tx, machine.id).await?;
            }
        }
        Ok(())
    })
    .await
}

async fn cancel_runs(context: &Context, fence: &Fence, snapshot: &Snapshot) -> Result<(), StepError> {
    let env = &snapshot.env;
    write(context, fence, "end the runs", async |tx| {
        tx.end_older_runs(env.id, env.generation + 1, run::State::Cancelled).await?;
        tx.wake(kind::FLEET, env.project.uuid()).await?;
        let _ = tx.set_environment_state(env.id, env.generation, State::Destroying, env.reason.as_deref()).await?;
        Ok(())
    })
    .await
}

async fn close_routes(context: &Context, fence: &Fence, snapshot: &Snapshot) -> Result<(), StepError> {
    let (env, entries) = (&snapshot.env, routes::closed(snapshot));
    write(context, fence, "close the routes", async |tx| {
        for entry in &entries {
            tx.write_route(env.team, env.generation, entry).await?;
        }
        tx.wake(kind::ROUTE, env.id.uuid()).await
    })
    .await?;
    // The machine's address may be another's soon: the edge must know before that.
    route::publish(context, env.id).await
}

async fn drop_machines(context: &Context, fence: &Fence, snapshot: &Snapshot) -> Result<(), StepError> {
    write(context, fence, "drop the machines", async |tx| {
        for machine in &snapshot.machines {
            wish_away(tx, machine.id).await?;
        }
        Ok(())
    })
    .await
}

/// Wishes a machine away and wakes it, also when it was wished away before.
async fn wish_away(tx: &Tx, machine: MachineId) -> stagely_store::Result<()> {
    let _ = tx.drop_machine(machine, None).await?;
    tx.wake(kind::MACHINE, machine.uuid()).await
}

async fn finish(context: &Context, fence: &Fence, snapshot: &Snapshot) -> Result<(), StepError> {
    let doing = "finish an environment";
    let env = &snapshot.env;
    let tx = context.store.fenced(fence).await.map_err(store_error(doing))?;
    let reason = env.reason.as_deref();
    let _ =
        tx.set_environment_state(env.id, env.generation, State::Destroyed, reason).await.map_err(store_error(doing))?;
    surface::write(context, &tx, snapshot, State::Destroyed).await?;
    tx.wake(kind::FLEET, env.project.uuid()).await.map_err(store_error(doing))?;
    tx.wake_deliveries(env).await.map_err(store_error(doing))?;
    tx.commit().await.map_err(store_error(doing))?;
    tracing::info!(env.id = %env.id, "{} is gone", env.id);
    Ok(())
}

/// The agent's own steps as phases. Its clock is not trusted: only lengths are taken, counted back from `now`.
fn agent_phases(snapshot: &Snapshot, now: DateTime<Utc>) -> serde_json::Value {
    let generation = snapshot.generation();
    let observed = snapshot.agent.as_ref().and_then(|agent| agent.observed.as_ref());
    let mut phases = Map::new();
    if let Some(observed) = observed.filter(|observed| observed.generation == generation) {
        let end = observed.steps.iter().filter_map(|step: &Step| step.finished_ms).max().unwrap_or(0);
        let at = |ms: u64| now - TimeDelta::milliseconds(i64::try_from(end.saturating_sub(ms)).unwrap_or(0));
        for step in &observed.steps {
            let Some(finished) = step.finished_ms else { continue };
            phases.insert(step.name.clone(), json!({"started_at": at(step.started_ms), "finished_at": at(finished)}));
        }
    }
    phases.into()
}

fn the_run(snapshot: &Snapshot) -> Result<&Run<Resolved>, StepError> {
    snapshot.run.as_ref().ok_or_else(|| StepError::new(ErrorClass::Transient, "go on with a run", "there is none"))
}

fn the_spec(snapshot: &Snapshot) -> Result<&Resolved, StepError> {
    the_run(snapshot)?.spec.as_ref().ok_or_else(|| bug("go on with a run", "its commit was not read"))
}
