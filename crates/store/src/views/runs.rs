//! Runs and their builds.

use chrono::{DateTime, Utc};
use stagely_domain::failure::Failure;
use stagely_domain::id::{BuildJobId, EnvironmentId, MachineId, RunId};
use stagely_domain::spec::Platform;
use stagely_domain::{build, run};

use crate::entity::{build_jobs, workflow_runs};
use crate::statement::Row;
use crate::{Result, Scope, Store, StoreError, word};

/// A run as people see it.
#[derive(Debug, Clone, PartialEq)]
pub struct RunView {
    /// Its id.
    pub id: RunId,
    /// Its environment.
    pub environment: EnvironmentId,
    /// The wish of the environment that it works towards.
    pub generation: i64,
    /// The commit.
    pub sha: String,
    /// What started it: `opened`, `push`, `redeploy` or `machine_lost`.
    pub cause: run::Cause,
    /// Where it stands.
    pub state: run::State,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// `{phase: {started_at, finished_at}}` as the orchestrator noted them.
    pub phases: serde_json::Value,
    /// When it was decided on.
    pub created_at: DateTime<Utc>,
    /// When its URL was proved.
    pub live_at: Option<DateTime<Utc>>,
    /// When it was over.
    pub finished_at: Option<DateTime<Utc>>,
}

/// A build job as people see it.
#[derive(Debug, Clone, PartialEq)]
pub struct BuildView {
    /// Its id.
    pub id: BuildJobId,
    /// Its run.
    pub run: RunId,
    /// The build's name in `stagely.yaml`.
    pub target: String,
    /// What it is built for.
    pub platform: Platform,
    /// Where it stands.
    pub state: build::State,
    /// The builder.
    pub machine: Option<MachineId>,
    /// `sha256:…` once the registry has it.
    pub image_digest: Option<String>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// How many machines were lost over it.
    pub attempt: i32,
    /// When it was asked for.
    pub queued_at: DateTime<Utc>,
    /// When it got a machine.
    pub assigned_at: Option<DateTime<Utc>>,
    /// When `BuildKit` began.
    pub building_at: Option<DateTime<Utc>>,
    /// When the push began.
    pub pushing_at: Option<DateTime<Utc>>,
    /// When it was over.
    pub finished_at: Option<DateTime<Utc>>,
}

impl Store {
    /// At most `limit` runs of an environment, newest first, older than `before`.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_run_views(
        &self,
        scope: &Scope,
        environment: EnvironmentId,
        before: Option<RunId>,
        limit: u32,
    ) -> Result<Vec<RunView>> {
        let sql = "SELECT * FROM workflow_runs WHERE ($1::uuid IS NULL OR team_id = $1) AND env_id = $2 \
                   AND ($3::uuid IS NULL OR id < $3) ORDER BY id DESC LIMIT $4";
        let values = [
            scope.team_uuid().into(),
            environment.uuid().into(),
            before.map(RunId::uuid).into(),
            i64::from(limit).into(),
        ];
        self.rows("list runs", sql, values).await?.iter().map(run_view).collect()
    }

    /// One run.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none, or it is another team's.
    pub async fn get_run_view(&self, scope: &Scope, id: RunId) -> Result<RunView> {
        let sql = "SELECT * FROM workflow_runs WHERE ($1::uuid IS NULL OR team_id = $1) AND id = $2";
        let found = self.row("read a run", sql, [scope.team_uuid().into(), id.uuid().into()]).await?;
        run_view(&found.ok_or(StoreError::NotFound("run"))?)
    }

    /// The builds of a run, by target and platform.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_build_views(&self, scope: &Scope, run: RunId) -> Result<Vec<BuildView>> {
        let sql = "SELECT * FROM build_jobs WHERE ($1::uuid IS NULL OR team_id = $1) AND run_id = $2 \
                   ORDER BY target, platform";
        let values = [scope.team_uuid().into(), run.uuid().into()];
        self.rows("list builds", sql, values).await?.iter().map(build_view).collect()
    }

    /// One build.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none, or it is another team's.
    pub async fn get_build_view(&self, scope: &Scope, id: BuildJobId) -> Result<BuildView> {
        let sql = "SELECT * FROM build_jobs WHERE ($1::uuid IS NULL OR team_id = $1) AND id = $2";
        let found = self.row("read a build", sql, [scope.team_uuid().into(), id.uuid().into()]).await?;
        build_view(&found.ok_or(StoreError::NotFound("build"))?)
    }
}

fn run_view(row: &Row) -> Result<RunView> {
    let row: workflow_runs::Model = row.model()?;
    Ok(RunView {
        id: RunId::from_uuid(row.id),
        environment: EnvironmentId::from_uuid(row.env_id),
        generation: row.generation,
        sha: row.sha,
        cause: word::parse("workflow_runs", row.id, "cause", &row.cause)?,
        state: word::parse("workflow_runs", row.id, "state", &row.state)?,
        failure: word::json("workflow_runs", row.id, "failure", row.failure)?,
        phases: row.phases,
        created_at: row.created_at,
        live_at: row.live_at,
        finished_at: row.finished_at,
    })
}

fn build_view(row: &Row) -> Result<BuildView> {
    let row: build_jobs::Model = row.model()?;
    Ok(BuildView {
        id: BuildJobId::from_uuid(row.id),
        run: RunId::from_uuid(row.run_id),
        target: row.target,
        platform: word::parse("build_jobs", row.id, "platform", &row.platform)?,
        state: word::parse("build_jobs", row.id, "state", &row.state)?,
        machine: row.machine_id.map(MachineId::from_uuid),
        image_digest: row.image_digest,
        failure: word::json("build_jobs", row.id, "failure", row.failure)?,
        attempt: row.attempt,
        queued_at: row.queued_at,
        assigned_at: row.assigned_at,
        building_at: row.building_at,
        pushing_at: row.pushing_at,
        finished_at: row.finished_at,
    })
}
