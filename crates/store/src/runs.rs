//! Runs: one attempt to bring one commit live. Updated by the orchestrator.

use chrono::{DateTime, Utc};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde::Serialize;
use serde::de::DeserializeOwned;
use stagely_domain::failure::Failure;
use stagely_domain::id::{EnvironmentId, RunId, TeamId};
use stagely_domain::run::{Cause, State};

use crate::entity::workflow_runs;
use crate::{Outcome, Result, Store, StoreError, Tx, word};

/// One run. `S` is what the orchestrator resolved from the commit, stored as JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct Run<S> {
    /// Its id.
    pub id: RunId,
    /// The environment.
    pub environment: EnvironmentId,
    /// The environment's generation that it serves.
    pub generation: i64,
    /// The commit.
    pub sha: String,
    /// Why it was begun.
    pub cause: Cause,
    /// Where it stands.
    pub state: State,
    /// What the commit asks for; `None` until it was read.
    pub spec: Option<S>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// When it was recorded.
    pub created_at: DateTime<Utc>,
    /// When the URL answered.
    pub live_at: Option<DateTime<Utc>>,
    /// When it was over.
    pub finished_at: Option<DateTime<Utc>>,
}

/// A run to be.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Its id, chosen by the caller.
    pub id: RunId,
    /// The team that owns it.
    pub team: TeamId,
    /// The environment.
    pub environment: EnvironmentId,
    /// The environment's generation that it serves.
    pub generation: i64,
    /// The commit.
    pub sha: String,
    /// Why it is begun.
    pub cause: Cause,
}

/// Which end of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PhaseEdge {
    /// It began.
    Started,
    /// It ended.
    Finished,
}

impl Store {
    /// The run of one generation of an environment; `None` when there is none.
    ///
    /// # Errors
    /// The database's error, or [`StoreError::Corrupt`] when the stored spec is of another version.
    pub async fn find_run<S: DeserializeOwned>(&self, env: EnvironmentId, generation: i64) -> Result<Option<Run<S>>> {
        let found = workflow_runs::Entity::find()
            .filter(workflow_runs::Column::EnvId.eq(env.uuid()))
            .filter(workflow_runs::Column::Generation.eq(generation))
            .one(&self.db)
            .await
            .map_err(reading)?;
        found.map(run).transpose()
    }

    /// The newest run of an environment that got as far as being live; `None` when none did.
    ///
    /// # Errors
    /// As [`Store::find_run`].
    pub async fn last_live_run<S: DeserializeOwned>(&self, env: EnvironmentId) -> Result<Option<Run<S>>> {
        let found = workflow_runs::Entity::find()
            .filter(workflow_runs::Column::EnvId.eq(env.uuid()))
            .filter(workflow_runs::Column::LiveAt.is_not_null())
            .order_by_desc(workflow_runs::Column::Generation)
            .one(&self.db)
            .await
            .map_err(reading)?;
        found.map(run).transpose()
    }

    /// When a commit of an environment went live last; `None` when none did.
    ///
    /// # Errors
    /// The database's error.
    pub async fn last_live_at(&self, env: EnvironmentId) -> Result<Option<DateTime<Utc>>> {
        workflow_runs::Entity::find()
            .select_only()
            .column(workflow_runs::Column::LiveAt)
            .filter(workflow_runs::Column::EnvId.eq(env.uuid()))
            .filter(workflow_runs::Column::LiveAt.is_not_null())
            .order_by_desc(workflow_runs::Column::Generation)
            .into_tuple()
            .one(&self.db)
            .await
            .map_err(reading)
    }
}

impl Tx {
    /// Adds a run; one of the same generation that is there already is kept as it is.
    ///
    /// # Errors
    /// The database's error.
    pub async fn insert_run(&self, new: &NewRun) -> Result<()> {
        self.run(
            "add a run",
            "INSERT INTO workflow_runs (id, team_id, env_id, generation, sha, cause, state) \
             VALUES ($1, $2, $3, $4, $5, $6, 'pending') ON CONFLICT (env_id, generation) DO NOTHING",
            [
                new.id.uuid().into(),
                new.team.uuid().into(),
                new.environment.uuid().into(),
                new.generation.into(),
                new.sha.clone().into(),
                word::text(new.cause).into(),
            ],
        )
        .await?;
        Ok(())
    }

    /// Ends every open run of an environment that is older than `generation`; the number of runs that it ended.
    ///
    /// # Errors
    /// The database's error.
    pub async fn end_older_runs(&self, env: EnvironmentId, generation: i64, state: State) -> Result<u64> {
        self.run(
            "end older runs",
            "UPDATE workflow_runs SET state = $3, finished_at = now() \
             WHERE env_id = $1 AND generation < $2 AND finished_at IS NULL",
            [env.uuid().into(), generation.into(), word::text(state).into()],
        )
        .await
    }

    /// Stores what the commit asks for, and that reading it is over. A run that is over is left as it is.
    ///
    /// # Errors
    /// The database's error.
    pub async fn set_run_spec<S: Serialize>(&self, id: RunId, spec: &S) -> Result<()> {
        let spec = word::encode("workflow_runs", id, "spec", spec)?;
        let sql = "UPDATE workflow_runs SET spec = $2, phases = phases || jsonb_build_object('read', \
                   jsonb_build_object('started_at', created_at, 'finished_at', now())) \
                   WHERE id = $1 AND finished_at IS NULL";
        self.run("store a run's spec", sql, [id.uuid().into(), spec.into()]).await?;
        Ok(())
    }

    /// Moves an open run on; final states close it, success stamps `live_at`. Stale when the run may not go from where
    /// it stands to `state`.
    ///
    /// # Errors
    /// The database's error.
    pub async fn set_run_state(&self, id: RunId, state: State, failure: Option<&Failure>) -> Result<Outcome> {
        let failure = failure.map(|failure| word::encode("workflow_runs", id, "failure", failure)).transpose()?;
        let sources = word::list(State::ALL.into_iter().filter(|from| from.may_become(state)));
        let rows = self
            .run(
                "record a run's state",
                "UPDATE workflow_runs SET state = $2, failure = $3, \
                 live_at = CASE WHEN $2 = 'succeeded' THEN now() ELSE live_at END, \
                 finished_at = CASE WHEN $4 THEN now() ELSE finished_at END \
                 WHERE id = $1 AND state = ANY(string_to_array($5, ','))",
                [id.uuid().into(), word::text(state).into(), failure.into(), state.is_final().into(), sources.into()],
            )
            .await?;
        Ok(Outcome::of(rows))
    }

    /// Notes that a phase of ours began or ended; the first note of each counts.
    ///
    /// # Errors
    /// The database's error.
    pub async fn note_phase(&self, id: RunId, phase: &str, edge: PhaseEdge) -> Result<()> {
        let key = match edge {
            PhaseEdge::Started => "started_at",
            PhaseEdge::Finished => "finished_at",
        };
        self.run(
            "note a phase",
            "UPDATE workflow_runs SET phases = jsonb_set(phases, ARRAY[$2], \
             jsonb_build_object($3::text, now()) || coalesce(phases -> $2, '{}')) WHERE id = $1",
            [id.uuid().into(), phase.into(), key.into()],
        )
        .await?;
        Ok(())
    }

    /// Adds phases with both their ends, as a JSON object of `{started_at, finished_at}` by name.
    ///
    /// # Errors
    /// The database's error.
    pub async fn merge_phases(&self, id: RunId, phases: serde_json::Value) -> Result<()> {
        let sql = "UPDATE workflow_runs SET phases = phases || $2 WHERE id = $1";
        self.run("note phases", sql, [id.uuid().into(), phases.into()]).await?;
        Ok(())
    }
}

fn reading(source: sea_orm::DbErr) -> StoreError {
    StoreError::query("read runs", source)
}

fn run<S: DeserializeOwned>(row: workflow_runs::Model) -> Result<Run<S>> {
    let id = RunId::from_uuid(row.id);
    Ok(Run {
        id,
        environment: EnvironmentId::from_uuid(row.env_id),
        generation: row.generation,
        sha: row.sha,
        cause: word::parse("workflow_runs", id, "cause", &row.cause)?,
        state: word::parse("workflow_runs", id, "state", &row.state)?,
        spec: word::json("workflow_runs", id, "spec", row.spec)?,
        failure: word::json("workflow_runs", id, "failure", row.failure)?,
        created_at: row.created_at,
        live_at: row.live_at,
        finished_at: row.finished_at,
    })
}
