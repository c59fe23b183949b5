//! Build jobs. The orchestrator inserts them; the builder-scheduler alone moves them on.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder};
use stagely_domain::build::{Job, State};
use stagely_domain::failure::Failure;
use stagely_domain::id::{BuildJobId, EnvironmentId, MachineId, ProjectId, RunId, TeamId};
use stagely_domain::spec::Platform;

use crate::entity::build_jobs;
use crate::statement::Row;
use crate::{Outcome, Result, Store, StoreError, Tx, word};

/// One build job.
#[derive(Debug, Clone, PartialEq)]
pub struct BuildJob {
    /// Its id.
    pub id: BuildJobId,
    /// The team that owns it.
    pub team: TeamId,
    /// The project whose builders do it.
    pub project: ProjectId,
    /// The environment that gets the image.
    pub environment: EnvironmentId,
    /// The run that it is part of.
    pub run: RunId,
    /// The target's name.
    pub target: String,
    /// What it is built for.
    pub platform: Platform,
    /// What is to be built.
    pub spec: Job,
    /// Where it stands.
    pub state: State,
    /// The builder it was given to.
    pub machine: Option<MachineId>,
    /// What the registry calls the image.
    pub image_digest: Option<String>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// How many builders were lost over it.
    pub attempt: i32,
    /// When it was asked for.
    pub queued_at: DateTime<Utc>,
    /// When it was last given to a builder.
    pub assigned_at: Option<DateTime<Utc>>,
    /// When it was over.
    pub finished_at: Option<DateTime<Utc>>,
}

/// A build job to be.
#[derive(Debug, Clone)]
pub struct NewBuildJob {
    /// Its id, chosen by the caller.
    pub id: BuildJobId,
    /// The team that owns it.
    pub team: TeamId,
    /// The project whose builders do it.
    pub project: ProjectId,
    /// The environment that gets the image.
    pub environment: EnvironmentId,
    /// The run that it is part of.
    pub run: RunId,
    /// The target's name.
    pub target: String,
    /// What it is built for.
    pub platform: Platform,
    /// What is to be built.
    pub spec: Job,
    /// The digest of an image that an earlier job of the environment pushed and that will do; `spec` is then that
    /// job's, and there is nothing to build.
    pub reused: Option<String>,
}

/// What an environment that is gone may have left in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftImages {
    /// The environment.
    pub environment: EnvironmentId,
    /// Its project.
    pub project: ProjectId,
    /// Its label; its tags begin with it and a hyphen.
    pub hash: String,
    /// When it went.
    pub gone_at: DateTime<Utc>,
    /// `repository:tag` of every image asked for: one whose build was called off may have been pushed all the same.
    pub images: Vec<String>,
}

impl Store {
    /// The jobs of a run, in the order in which they were asked for.
    ///
    /// # Errors
    /// The database's error, or [`StoreError::Corrupt`].
    pub async fn list_run_builds(&self, run: RunId) -> Result<Vec<BuildJob>> {
        self.list_builds(Condition::all().add(build_jobs::Column::RunId.eq(run.uuid()))).await
    }

    /// The newest job of each target and platform of an environment that pushed an image.
    ///
    /// # Errors
    /// The database's error, or [`StoreError::Corrupt`].
    pub async fn list_newest_images(&self, environment: EnvironmentId) -> Result<Vec<BuildJob>> {
        let sql = "SELECT DISTINCT ON (target, platform) * FROM build_jobs \
                   WHERE env_id = $1 AND state = 'succeeded' ORDER BY target, platform, id DESC";
        let rows = self.rows("read build jobs", sql, [environment.uuid().into()]).await?;
        rows.iter().map(|row| build(row.model()?)).collect()
    }

    /// The jobs of a project that are not over.
    ///
    /// # Errors
    /// The database's error, or [`StoreError::Corrupt`].
    pub async fn list_open_builds(&self, project: ProjectId) -> Result<Vec<BuildJob>> {
        let open = build_jobs::Column::FinishedAt.is_null();
        self.list_builds(Condition::all().add(build_jobs::Column::ProjectId.eq(project.uuid())).add(open)).await
    }

    /// The jobs that a builder was given, also those that are over.
    ///
    /// # Errors
    /// The database's error, or [`StoreError::Corrupt`].
    pub async fn list_machine_builds(&self, machine: MachineId) -> Result<Vec<BuildJob>> {
        self.list_builds(Condition::all().add(build_jobs::Column::MachineId.eq(machine.uuid()))).await
    }

    /// Every project that has open jobs or builders.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_building_projects(&self) -> Result<Vec<ProjectId>> {
        let sql = "SELECT project_id FROM build_jobs WHERE finished_at IS NULL UNION \
                   SELECT project_id FROM machines WHERE role = 'builder' AND gone_at IS NULL";
        let rows = self.rows("list projects that build", sql, []).await?;
        rows.iter().map(|row| row.get("project_id").map(ProjectId::from_uuid)).collect()
    }

    /// The runs that are over although jobs of the project for them are not.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_ended_runs(&self, project: ProjectId) -> Result<Vec<RunId>> {
        let sql = "SELECT DISTINCT r.id FROM workflow_runs r JOIN build_jobs b ON b.run_id = r.id \
                   WHERE b.project_id = $1 AND b.finished_at IS NULL AND r.finished_at IS NOT NULL";
        let rows = self.rows("list runs that are over", sql, [project.uuid().into()]).await?;
        rows.iter().map(|row| row.get("id").map(RunId::from_uuid)).collect()
    }

    /// When builders began with the open jobs of a project; jobs that none has begun with have no entry.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_build_starts(&self, project: ProjectId) -> Result<HashMap<BuildJobId, DateTime<Utc>>> {
        let rows = build_jobs::Entity::find()
            .filter(build_jobs::Column::ProjectId.eq(project.uuid()))
            .filter(build_jobs::Column::FinishedAt.is_null())
            .all(&self.db)
            .await
            .map_err(|source| StoreError::query("read build jobs", source))?;
        Ok(rows.iter().filter_map(|row| Some((BuildJobId::from_uuid(row.id), row.building_at?))).collect())
    }

    /// Whether the project has an environment that is to exist.
    ///
    /// # Errors
    /// The database's error.
    pub async fn wants_builders(&self, project: ProjectId) -> Result<bool> {
        let sql = "SELECT 1 FROM environments \
                   WHERE project_id = $1 AND gone_at IS NULL AND desired = 'present' LIMIT 1";
        Ok(self.row("look for wanted environments", sql, [project.uuid().into()]).await?.is_some())
    }

    /// Environments that went within the last week and had images asked for, the newest first, at most 100. With a
    /// project only its own.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_left_images(&self, project: Option<ProjectId>) -> Result<Vec<LeftImages>> {
        let sql = "SELECT e.id, e.project_id, e.preview_hash, e.gone_at, \
                   array_agg(DISTINCT b.spec->>'image') AS images \
                   FROM environments e JOIN build_jobs b ON b.env_id = e.id \
                   WHERE e.gone_at > now() - interval '7 days' AND ($1::uuid IS NULL OR e.project_id = $1) \
                   GROUP BY e.id ORDER BY e.gone_at DESC LIMIT 100";
        let rows = self.rows("list images left behind", sql, [project.map(ProjectId::uuid).into()]).await?;
        rows.iter().map(left_images).collect()
    }

    async fn list_builds(&self, filter: Condition) -> Result<Vec<BuildJob>> {
        let query = build_jobs::Entity::find().filter(filter).order_by_asc(build_jobs::Column::Id);
        let rows = query.all(&self.db).await.map_err(|source| StoreError::query("read build jobs", source))?;
        rows.into_iter().map(build).collect()
    }
}

impl Tx {
    /// Asks for a build; the same target and platform of a run again changes nothing.
    ///
    /// # Errors
    /// The database's error.
    pub async fn insert_build_job(&self, new: &NewBuildJob) -> Result<()> {
        let spec = word::encode("build_jobs", new.id, "spec", &new.spec)?;
        self.run(
            "ask for a build",
            "INSERT INTO build_jobs (id, team_id, project_id, env_id, run_id, target, platform, spec, \
             state, image_digest, finished_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, \
             CASE WHEN $9::text IS NULL THEN 'queued' ELSE 'succeeded' END, $9, \
             CASE WHEN $9::text IS NOT NULL THEN now() END) ON CONFLICT (run_id, target, platform) DO NOTHING",
            [
                new.id.uuid().into(),
                new.team.uuid().into(),
                new.project.uuid().into(),
                new.environment.uuid().into(),
                new.run.uuid().into(),
                new.target.clone().into(),
                new.platform.as_str().into(),
                spec.into(),
                new.reused.clone().into(),
            ],
        )
        .await?;
        Ok(())
    }

    /// Gives a queued job to a builder. Stale when it is not queued any more.
    ///
    /// # Errors
    /// The database's error.
    pub async fn assign_build(&self, id: BuildJobId, machine: MachineId) -> Result<Outcome> {
        let sql = "UPDATE build_jobs SET state = 'assigned', machine_id = $2, assigned_at = now() \
                   WHERE id = $1 AND state = 'queued'";
        Ok(Outcome::of(self.run("assign a build", sql, [id.uuid().into(), machine.uuid().into()]).await?))
    }

    /// Takes a job back from a builder that was lost. Stale when the job is over.
    ///
    /// # Errors
    /// The database's error.
    pub async fn requeue_build(&self, id: BuildJobId) -> Result<Outcome> {
        let sql = "UPDATE build_jobs SET state = 'queued', machine_id = NULL, attempt = attempt + 1, \
                   building_at = NULL, pushing_at = NULL WHERE id = $1 AND finished_at IS NULL";
        Ok(Outcome::of(self.run("take a build back", sql, [id.uuid().into()]).await?))
    }

    /// Moves a job from one state to the next, with what is known of its end: the digest of the pushed image, or why it
    /// failed. Stale when it is not in the state `from`.
    ///
    /// # Errors
    /// The database's error.
    pub async fn set_build_state(
        &self,
        id: BuildJobId,
        from: State,
        to: State,
        digest: Option<&str>,
        failure: Option<&Failure>,
    ) -> Result<Outcome> {
        let failure = failure.map(|failure| word::encode("build_jobs", id, "failure", failure)).transpose()?;
        let rows = self
            .run(
                "record a build's state",
                "UPDATE build_jobs SET state = $3, \
                 image_digest = coalesce($4, image_digest), failure = coalesce($5, failure), \
                 building_at = CASE WHEN $3 IN ('building', 'pushing', 'succeeded') THEN coalesce(building_at, now()) \
                 ELSE building_at END, \
                 pushing_at = CASE WHEN $3 IN ('pushing', 'succeeded') THEN coalesce(pushing_at, now()) \
                 ELSE pushing_at END, \
                 finished_at = CASE WHEN $6 THEN now() END WHERE id = $1 AND state = $2",
                [
                    id.uuid().into(),
                    word::text(from).into(),
                    word::text(to).into(),
                    digest.map(str::to_owned).into(),
                    failure.into(),
                    to.is_final().into(),
                ],
            )
            .await?;
        Ok(Outcome::of(rows))
    }
}

fn left_images(row: &Row) -> Result<LeftImages> {
    Ok(LeftImages {
        environment: EnvironmentId::from_uuid(row.get("id")?),
        project: ProjectId::from_uuid(row.get("project_id")?),
        hash: row.get("preview_hash")?,
        gone_at: row.get("gone_at")?,
        images: row.get("images")?,
    })
}

fn build(row: build_jobs::Model) -> Result<BuildJob> {
    let id = BuildJobId::from_uuid(row.id);
    let missing = StoreError::Corrupt { table: "build_jobs", id: id.to_string(), column: "spec" };
    Ok(BuildJob {
        id,
        team: TeamId::from_uuid(row.team_id),
        project: ProjectId::from_uuid(row.project_id),
        environment: EnvironmentId::from_uuid(row.env_id),
        run: RunId::from_uuid(row.run_id),
        target: row.target,
        platform: word::parse("build_jobs", id, "platform", &row.platform)?,
        spec: word::json("build_jobs", id, "spec", Some(row.spec))?.ok_or(missing)?,
        state: word::parse("build_jobs", id, "state", &row.state)?,
        machine: row.machine_id.map(MachineId::from_uuid),
        image_digest: row.image_digest,
        failure: word::json("build_jobs", id, "failure", row.failure)?,
        attempt: row.attempt,
        queued_at: row.queued_at,
        assigned_at: row.assigned_at,
        finished_at: row.finished_at,
    })
}
