//! Environments: the wish (presence, commit, power) and what was made of it. Updated by the orchestrator.

mod lifetime;

use chrono::{DateTime, Utc};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder};
use stagely_domain::environment::State;
use stagely_domain::id::{EnvironmentId, ProjectId, TeamId};

use crate::entity::environments;
use crate::{Outcome, Power, Presence, Result, Scope, Store, StoreError, Tx, word};

/// One environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Environment {
    /// Its id.
    pub id: EnvironmentId,
    /// The team that owns it.
    pub team: TeamId,
    /// The project that it belongs to: one repository.
    pub project: ProjectId,
    /// The pull request.
    pub pr: PullRequest,
    /// The label before the preview domain.
    pub hash: String,
    /// Whether it is to exist.
    pub desired: Presence,
    /// Whether it is to run.
    pub power: Power,
    /// Rises with every change of wish.
    pub generation: i64,
    /// Where it stands.
    pub state: State,
    /// Why it stands there, for people.
    pub reason: Option<String>,
    /// Kept past its TTL.
    pub pinned: bool,
    /// TTL in seconds.
    pub ttl_secs: i64,
    /// When it ends unless renewed.
    pub expires_at: DateTime<Utc>,
    /// Idle seconds before it sleeps; `None` for never.
    pub sleep_after_secs: Option<i64>,
    /// The last request or deploy.
    pub last_activity_at: DateTime<Utc>,
    /// When it was first wished for.
    pub created_at: DateTime<Utc>,
    /// When its wish or its state last changed.
    pub updated_at: DateTime<Utc>,
    /// When nothing was left of it.
    pub gone_at: Option<DateTime<Utc>>,
}

/// What is remembered of a pull request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRequest {
    /// Its number.
    pub number: i64,
    /// Its title; untrusted text.
    pub title: String,
    /// Its head branch; untrusted text.
    pub branch: String,
    /// Its author's login.
    pub author: String,
    /// Its page.
    pub url: String,
    /// The commit that is wished for.
    pub sha: String,
}

/// An environment to be.
#[derive(Debug, Clone)]
pub struct NewEnvironment {
    /// Its id, chosen by the caller.
    pub id: EnvironmentId,
    /// The team that owns it.
    pub team: TeamId,
    /// The project that it belongs to: one repository.
    pub project: ProjectId,
    /// The pull request.
    pub pr: PullRequest,
    /// The label before the preview domain.
    pub hash: String,
    /// TTL in seconds.
    pub ttl_secs: i64,
}

impl Store {
    /// One environment, also after it is gone.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none, or it is another team's.
    pub async fn get_environment(&self, scope: &Scope, id: EnvironmentId) -> Result<Environment> {
        let found = environments::Entity::find_by_id(id.uuid()).one(&self.db).await.map_err(reading)?;
        let environment = found.map(environment).transpose()?.ok_or(StoreError::NotFound("environment"))?;
        if scope.covers(environment.team) { Ok(environment) } else { Err(StoreError::NotFound("environment")) }
    }

    /// The environment of a pull request, unless it is gone.
    ///
    /// # Errors
    /// The database's error.
    pub async fn find_environment(&self, project: ProjectId, pr_number: i64) -> Result<Option<Environment>> {
        let found = environments::Entity::find()
            .filter(environments::Column::ProjectId.eq(project.uuid()))
            .filter(environments::Column::PrNumber.eq(pr_number))
            .filter(environments::Column::GoneAt.is_null())
            .one(&self.db)
            .await
            .map_err(reading)?;
        found.map(environment).transpose()
    }

    /// Whether the pull request got another environment after this one.
    ///
    /// # Errors
    /// The database's error.
    pub async fn has_successor(&self, env: &Environment) -> Result<bool> {
        let newer = environments::Entity::find()
            .filter(environments::Column::ProjectId.eq(env.project.uuid()))
            .filter(environments::Column::PrNumber.eq(env.pr.number))
            .filter(environments::Column::Id.gt(env.id.uuid()))
            .one(&self.db)
            .await
            .map_err(reading)?;
        Ok(newer.is_some())
    }

    /// Every environment that is not gone, oldest first. For sweeps; `scope` limits it to a team.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_live_environments(&self, scope: &Scope) -> Result<Vec<Environment>> {
        let mut query = environments::Entity::find().filter(environments::Column::GoneAt.is_null());
        if let Some(team) = scope.team_id() {
            query = query.filter(environments::Column::TeamId.eq(team.uuid()));
        }
        let rows = query.order_by_asc(environments::Column::Id).all(&self.db).await.map_err(reading)?;
        rows.into_iter().map(environment).collect()
    }
}

impl Tx {
    /// Adds an environment at generation 1. The pull request's comment, if it has one, is its from now on.
    ///
    /// # Errors
    /// The database's error; a second live one for the same pull request is refused by it.
    pub async fn insert_environment(&self, new: &NewEnvironment) -> Result<()> {
        self.run(
            "add an environment",
            "INSERT INTO environments \
             (id, team_id, project_id, pr_number, title, branch, author, pr_url, preview_hash, \
             desired, desired_sha, state, ttl_secs, expires_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, \
             'present', $10, 'queued', $11, now() + make_interval(secs => $11))",
            [
                new.id.uuid().into(),
                new.team.uuid().into(),
                new.project.uuid().into(),
                new.pr.number.into(),
                new.pr.title.clone().into(),
                new.pr.branch.clone().into(),
                new.pr.author.clone().into(),
                new.pr.url.clone().into(),
                new.hash.clone().into(),
                new.pr.sha.clone().into(),
                new.ttl_secs.into(),
            ],
        )
        .await?;
        self.run(
            "take over a pull request's comment",
            "UPDATE pr_posts SET env_id = $1 WHERE id = (SELECT post.id FROM pr_posts post \
             JOIN environments earlier ON earlier.id = post.env_id \
             WHERE post.kind = 'comment' AND earlier.project_id = $2 AND earlier.pr_number = $3 \
             ORDER BY earlier.id DESC LIMIT 1)",
            [new.id.uuid().into(), new.project.uuid().into(), new.pr.number.into()],
        )
        .await?;
        Ok(())
    }

    /// Wishes for a commit: a new generation, awake. Stale when the generation is another by now, or the environment is
    /// to be absent.
    ///
    /// # Errors
    /// The database's error.
    pub async fn wish_commit(&self, id: EnvironmentId, generation: i64, pr: &PullRequest) -> Result<Outcome> {
        let rows = self
            .run(
                "wish for a commit",
                "UPDATE environments SET title = $3, branch = $4, author = $5, pr_url = $6, desired_sha = $7, \
                 desired_power = 'awake', generation = generation + 1, state = 'queued', reason = NULL, \
                 expires_at = greatest(expires_at, now() + make_interval(secs => ttl_secs)), \
                 last_activity_at = now(), updated_at = now() \
                 WHERE id = $1 AND generation = $2 AND desired = 'present'",
                [
                    id.uuid().into(),
                    generation.into(),
                    pr.title.clone().into(),
                    pr.branch.clone().into(),
                    pr.author.clone().into(),
                    pr.url.clone().into(),
                    pr.sha.clone().into(),
                ],
            )
            .await?;
        Ok(Outcome::of(rows))
    }

    /// Wishes for the same commit once more: a new generation that gives neither time nor wakes what sleeps. Stale as
    /// [`Tx::wish_commit`].
    ///
    /// # Errors
    /// The database's error.
    pub async fn wish_again(&self, id: EnvironmentId, generation: i64) -> Result<Outcome> {
        let rows = self
            .run(
                "wish for a commit again",
                "UPDATE environments SET generation = generation + 1, state = 'queued', reason = NULL, \
                 updated_at = now() \
                 WHERE id = $1 AND generation = $2 AND desired = 'present'",
                [id.uuid().into(), generation.into()],
            )
            .await?;
        Ok(Outcome::of(rows))
    }

    /// Wishes the environment away. `generation` is what the decision was made on; stale when it is another by now, or
    /// this was wished before.
    ///
    /// # Errors
    /// The database's error.
    pub async fn wish_absent(&self, id: EnvironmentId, generation: i64, reason: &str) -> Result<Outcome> {
        let rows = self
            .run(
                "wish an environment away",
                "UPDATE environments SET desired = 'absent', generation = generation + 1, reason = $3, \
                 updated_at = now() \
                 WHERE id = $1 AND desired = 'present' AND generation = $2",
                [id.uuid().into(), generation.into(), reason.into()],
            )
            .await?;
        Ok(Outcome::of(rows))
    }

    /// Wishes it to run or to sleep. Stale when that is wished already, or it is to be absent.
    ///
    /// # Errors
    /// The database's error.
    pub async fn wish_power(&self, id: EnvironmentId, power: Power) -> Result<Outcome> {
        let rows = self
            .run(
                "wish for power",
                "UPDATE environments SET desired_power = $2, last_activity_at = CASE WHEN $2 = 'awake' THEN now() \
                 ELSE last_activity_at END, updated_at = now() \
                 WHERE id = $1 AND desired = 'present' AND desired_power <> $2",
                [id.uuid().into(), word::text(power).into()],
            )
            .await?;
        Ok(Outcome::of(rows))
    }

    /// Records where it stands, if the wish is still the one that was worked on and this is news; stale otherwise. The
    /// wish counts as observed once the state is settled.
    ///
    /// # Errors
    /// The database's error.
    pub async fn set_environment_state(
        &self,
        id: EnvironmentId,
        generation: i64,
        state: State,
        reason: Option<&str>,
    ) -> Result<Outcome> {
        let sources = word::list(State::ALL.into_iter().filter(|from| from.may_become(state)));
        let rows = self
            .run(
                "record an environment's state",
                "UPDATE environments SET state = $3, reason = $4, updated_at = now(), \
                 observed_generation = CASE WHEN $6 THEN $2 ELSE observed_generation END, \
                 gone_at = CASE WHEN $3 = 'destroyed' THEN now() ELSE gone_at END \
                 WHERE id = $1 AND generation = $2 AND state = ANY(string_to_array($5, ',')) \
                 AND ((state, reason) IS DISTINCT FROM ($3, $4) OR ($6 AND observed_generation < $2))",
                [
                    id.uuid().into(),
                    generation.into(),
                    word::text(state).into(),
                    reason.into(),
                    sources.into(),
                    state.is_settled().into(),
                ],
            )
            .await?;
        Ok(Outcome::of(rows))
    }
}

fn reading(source: sea_orm::DbErr) -> StoreError {
    StoreError::query("read environments", source)
}

fn environment(row: environments::Model) -> Result<Environment> {
    let id = EnvironmentId::from_uuid(row.id);
    Ok(Environment {
        id,
        team: TeamId::from_uuid(row.team_id),
        project: ProjectId::from_uuid(row.project_id),
        pr: PullRequest {
            number: row.pr_number,
            title: row.title,
            branch: row.branch,
            author: row.author,
            url: row.pr_url,
            sha: row.desired_sha,
        },
        hash: row.preview_hash,
        desired: word::parse("environments", id, "desired", &row.desired)?,
        power: word::parse("environments", id, "desired_power", &row.desired_power)?,
        generation: row.generation,
        state: word::parse("environments", id, "state", &row.state)?,
        reason: row.reason,
        pinned: row.pinned,
        ttl_secs: row.ttl_secs,
        expires_at: row.expires_at,
        sleep_after_secs: row.sleep_after_secs,
        last_activity_at: row.last_activity_at,
        created_at: row.created_at,
        updated_at: row.updated_at,
        gone_at: row.gone_at,
    })
}
