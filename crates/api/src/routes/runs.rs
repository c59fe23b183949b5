//! Runs with their timeline, and their builds.

use axum::extract::State;
use serde::Serialize;
use stagely_domain::failure::Failure;
use stagely_domain::id::{BuildJobId, EnvironmentId, MachineId, RunId};
use stagely_domain::{build, run};
use stagely_store::{BuildView, RunView};

use crate::App;
use crate::auth::permission::Viewer;
use crate::error::Result;
use crate::extract::{Path, Query};
use crate::json::{Page, PageQuery, Timestamp};
use crate::timeline::{self, Phase};

/// One attempt to bring one commit live.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct RunSummary {
    /// Its id.
    pub id: RunId,
    /// Its environment.
    pub environment: EnvironmentId,
    /// The wish that it works towards.
    pub generation: i64,
    /// The commit.
    pub sha: String,
    /// What started it.
    pub cause: run::Cause,
    /// Where it stands.
    pub state: run::State,
    /// Why it failed: code, phase, service, exit code, sentence, last log lines.
    pub failure: Option<Failure>,
    /// When it was decided on.
    pub created_at: Timestamp,
    /// When its URL was proved.
    pub live_at: Option<Timestamp>,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
    /// From the decision to the proved URL, in milliseconds.
    pub time_to_live_ms: Option<i64>,
}

/// A run with its timeline and builds.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct RunDetail {
    /// The same as in the list.
    #[serde(flatten)]
    pub run: RunSummary,
    /// The phases that have begun, in order. They may overlap.
    pub timeline: Vec<Phase>,
    /// Its builds.
    pub builds: Vec<Build>,
}

/// One image for one platform.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Build {
    /// Its id.
    pub id: BuildJobId,
    /// Its run.
    pub run: RunId,
    /// The build's name in `stagely.yaml`.
    pub target: String,
    /// `linux/amd64`, say.
    pub platform: String,
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
    pub queued_at: Timestamp,
    /// When it got a machine.
    pub assigned_at: Option<Timestamp>,
    /// When the build began.
    pub building_at: Option<Timestamp>,
    /// When the push began.
    pub pushing_at: Option<Timestamp>,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
}

/// `GET /api/v1/environments/{id}/runs`
pub async fn list(
    Viewer(caller): Viewer,
    State(app): State<App>,
    Path(id): Path<EnvironmentId>,
    Query(page): Query<PageQuery>,
) -> Result<axum::Json<Page<RunSummary>>> {
    app.store.get_environment_view(caller.scope(), id).await?;
    let limit = page.limit()?;
    let rows = app.store.list_run_views(caller.scope(), id, page.cursor()?, limit + 1).await?;
    Ok(axum::Json(Page::cut(rows, limit, |row| row.id.to_string(), RunSummary::from)))
}

/// `GET /api/v1/runs/{id}`
pub async fn get(
    Viewer(caller): Viewer,
    State(app): State<App>,
    Path(id): Path<RunId>,
) -> Result<axum::Json<RunDetail>> {
    let run = app.store.get_run_view(caller.scope(), id).await?;
    let builds = app.store.list_build_views(caller.scope(), id).await?;
    let machine = app.store.find_machine_view(caller.scope(), run.environment).await?;
    Ok(axum::Json(RunDetail {
        timeline: timeline::phases(&run, &builds, machine.as_ref()),
        run: run.into(),
        builds: builds.into_iter().map(Build::from).collect(),
    }))
}

/// `GET /api/v1/runs/{id}/builds`
pub async fn builds(
    Viewer(caller): Viewer,
    State(app): State<App>,
    Path(id): Path<RunId>,
) -> Result<axum::Json<Page<Build>>> {
    app.store.get_run_view(caller.scope(), id).await?;
    let rows = app.store.list_build_views(caller.scope(), id).await?;
    Ok(axum::Json(Page { items: rows.into_iter().map(Build::from).collect(), next_cursor: None }))
}

/// `GET /api/v1/builds/{id}`
pub async fn build(
    Viewer(caller): Viewer,
    State(app): State<App>,
    Path(id): Path<BuildJobId>,
) -> Result<axum::Json<Build>> {
    Ok(axum::Json(app.store.get_build_view(caller.scope(), id).await?.into()))
}

impl From<RunView> for RunSummary {
    fn from(row: RunView) -> Self {
        Self {
            id: row.id,
            environment: row.environment,
            generation: row.generation,
            sha: row.sha,
            cause: row.cause,
            state: row.state,
            failure: row.failure,
            created_at: row.created_at.into(),
            live_at: row.live_at.map(Timestamp),
            finished_at: row.finished_at.map(Timestamp),
            time_to_live_ms: row.live_at.map(|live| (live - row.created_at).num_milliseconds()),
        }
    }
}

impl From<BuildView> for Build {
    fn from(row: BuildView) -> Self {
        Self {
            id: row.id,
            run: row.run,
            target: row.target,
            platform: row.platform.as_str().to_owned(),
            state: row.state,
            machine: row.machine,
            image_digest: row.image_digest,
            failure: row.failure,
            attempt: row.attempt,
            queued_at: row.queued_at.into(),
            assigned_at: row.assigned_at.map(Timestamp),
            building_at: row.building_at.map(Timestamp),
            pushing_at: row.pushing_at.map(Timestamp),
            finished_at: row.finished_at.map(Timestamp),
        }
    }
}
