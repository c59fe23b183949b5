//! Teams, projects and cloud accounts: what everything else hangs on. Updated by the API.

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use stagely_domain::account::Settings;
use stagely_domain::id::{CloudAccountId, InstallationId, ProjectId, TeamId};
use stagely_domain::machine::Provider;
use uuid::Uuid;

use crate::entity::{cloud_providers, installation, projects, teams};
use crate::seal::Place;
use crate::{Result, Scope, Store, StoreError, Tx, word};

/// A repository that Stagely watches.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// The team that owns it.
    pub team: TeamId,
    /// `owner/name` at the git host.
    pub repo: String,
    /// The cloud account in which its machines are made.
    pub account: Option<CloudAccountId>,
    /// Limits and defaults of the team's own.
    pub settings: serde_json::Value,
}

/// A team's account at a cloud, or a metal host.
#[derive(Clone, PartialEq)]
pub struct CloudAccount {
    /// Its id.
    pub id: CloudAccountId,
    /// The team that owns it.
    pub team: TeamId,
    /// What `preview.provider` calls it.
    pub name: String,
    /// Which cloud.
    pub kind: Provider,
    /// Regions and the like.
    pub settings: Settings,
    /// Credentials, sealed for [`CloudAccount::place`].
    pub credentials_sealed: Option<Vec<u8>>,
    /// +1 for each change.
    pub generation: i64,
}

impl CloudAccount {
    /// Where the credentials of an account are sealed for.
    #[must_use]
    pub fn place(id: CloudAccountId, team: TeamId) -> Place<'static> {
        let (table, column) = ("cloud_providers", "credentials_sealed");
        Place { table, column, row: id.uuid(), team: Some(team), detail: "" }
    }
}

/// A part of a list: at most `limit` rows after `after`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// At most 100 are returned.
    pub limit: u64,
    /// The last id of the page before.
    pub after: Option<Uuid>,
}

impl Store {
    /// This installation's id, made at the first call.
    ///
    /// # Errors
    /// The database's error.
    pub async fn ensure_installation(&self) -> Result<InstallationId> {
        let sql = "INSERT INTO installation (id) VALUES ($1) ON CONFLICT DO NOTHING";
        self.run("add the installation", sql, [InstallationId::generate().uuid().into()]).await?;
        let row = installation::Entity::find().one(&self.db).await.map_err(reading)?;
        row.map(|row| InstallationId::from_uuid(row.id)).ok_or(StoreError::NotFound("installation"))
    }

    /// The team of this slug, unless it is deleted.
    ///
    /// # Errors
    /// The database's error.
    pub async fn find_team(&self, slug: &str) -> Result<Option<TeamId>> {
        let live =
            teams::Entity::find().filter(teams::Column::Slug.eq(slug)).filter(teams::Column::DeletedAt.is_null());
        Ok(live.one(&self.db).await.map_err(reading)?.map(|row| TeamId::from_uuid(row.id)))
    }

    /// The project that watches a repository, whatever the case of its name; `None` also when it is another team's.
    ///
    /// # Errors
    /// The database's error.
    pub async fn find_project(&self, scope: &Scope, repo: &str) -> Result<Option<Project>> {
        let same = sea_orm::sea_query::Expr::cust_with_values("lower(repo) = lower($1)", [repo]);
        let found = projects::Entity::find().filter(same).filter(projects::Column::DeletedAt.is_null());
        let project = found.one(&self.db).await.map_err(reading)?.map(project);
        Ok(project.filter(|project| scope.covers(project.team)))
    }

    /// One project.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none, or it is another team's.
    pub async fn get_project(&self, scope: &Scope, id: ProjectId) -> Result<Project> {
        let found = projects::Entity::find_by_id(id.uuid()).filter(projects::Column::DeletedAt.is_null());
        let project = found.one(&self.db).await.map_err(reading)?.map(project);
        project.filter(|project| scope.covers(project.team)).ok_or(StoreError::NotFound("project"))
    }

    /// The repository of a project, also of one that was deleted: its last words are posted there.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there never was one, or it is another team's.
    pub async fn get_repo(&self, scope: &Scope, id: ProjectId) -> Result<String> {
        let found = projects::Entity::find_by_id(id.uuid()).one(&self.db).await.map_err(reading)?.map(project);
        let project = found.filter(|project| scope.covers(project.team)).ok_or(StoreError::NotFound("project"))?;
        Ok(project.repo)
    }

    /// The projects, oldest first.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_projects(&self, scope: &Scope, page: Page) -> Result<Vec<Project>> {
        let mut query = projects::Entity::find().filter(projects::Column::DeletedAt.is_null());
        if let Some(team) = scope.team_id() {
            query = query.filter(projects::Column::TeamId.eq(team.uuid()));
        }
        if let Some(after) = page.after {
            query = query.filter(projects::Column::Id.gt(after));
        }
        let rows = query.order_by_asc(projects::Column::Id).limit(page.limit.min(100)).all(&self.db).await;
        Ok(rows.map_err(reading)?.into_iter().map(project).collect())
    }

    /// One cloud account; also one that is deleted, whose machines may still be there and whose name is still shown.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none, or it is another team's.
    pub async fn get_cloud_account(&self, scope: &Scope, id: CloudAccountId) -> Result<CloudAccount> {
        let row = cloud_providers::Entity::find_by_id(id.uuid()).one(&self.db).await.map_err(reading)?;
        let account = row.map(account).transpose()?;
        account.filter(|account| scope.covers(account.team)).ok_or(StoreError::NotFound("cloud account"))
    }

    /// The cloud account of this id; `None` when it is deleted, or another team's, or there is none.
    ///
    /// # Errors
    /// The database's error, or [`StoreError::Corrupt`].
    pub async fn find_cloud_account(&self, scope: &Scope, id: CloudAccountId) -> Result<Option<CloudAccount>> {
        let live = cloud_providers::Entity::find_by_id(id.uuid()).filter(cloud_providers::Column::DeletedAt.is_null());
        let account = live.one(&self.db).await.map_err(reading)?.map(account).transpose()?;
        Ok(account.filter(|account| scope.covers(account.team)))
    }

    /// The cloud accounts that are not deleted, oldest first.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_cloud_accounts(&self, scope: &Scope) -> Result<Vec<CloudAccount>> {
        let mut query = cloud_providers::Entity::find().filter(cloud_providers::Column::DeletedAt.is_null());
        if let Some(team) = scope.team_id() {
            query = query.filter(cloud_providers::Column::TeamId.eq(team.uuid()));
        }
        let rows = query.order_by_asc(cloud_providers::Column::Id).all(&self.db).await.map_err(reading)?;
        rows.into_iter().map(account).collect()
    }
}

impl Tx {
    /// Adds a team.
    ///
    /// # Errors
    /// The database's error; a slug that is taken is refused by it.
    pub async fn insert_team(&self, id: TeamId, slug: &str, name: &str) -> Result<()> {
        let sql = "INSERT INTO teams (id, slug, name) VALUES ($1, $2, $3)";
        self.run("add a team", sql, [id.uuid().into(), slug.into(), name.into()]).await?;
        Ok(())
    }

    /// Adds a project.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when a project watches the repository already.
    pub async fn insert_project(&self, project: &Project) -> Result<()> {
        let rows = self
            .run(
                "add a project",
                "INSERT INTO projects (id, team_id, forge, repo, cloud_provider_id, settings) \
                 VALUES ($1, $2, 'github', $3, $4, $5) ON CONFLICT DO NOTHING",
                [
                    project.id.uuid().into(),
                    project.team.uuid().into(),
                    project.repo.clone().into(),
                    project.account.map(CloudAccountId::uuid).into(),
                    project.settings.clone().into(),
                ],
            )
            .await?;
        if rows == 1 { Ok(()) } else { Err(StoreError::Exists("project")) }
    }

    /// Stops watching a repository. Its environments are ended by the reaper.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none, or it is another team's.
    pub async fn delete_project(&self, scope: &Scope, id: ProjectId) -> Result<()> {
        let sql = "UPDATE projects SET deleted_at = now() WHERE id = $1 AND ($2::uuid IS NULL OR team_id = $2) \
                   AND deleted_at IS NULL";
        let rows = self.run("delete a project", sql, [id.uuid().into(), scope.team_uuid().into()]).await?;
        if rows == 1 { Ok(()) } else { Err(StoreError::NotFound("project")) }
    }

    /// Adds a cloud account.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when the team has one of that name.
    pub async fn insert_cloud_account(&self, account: &CloudAccount) -> Result<()> {
        let settings = word::encode("cloud_providers", account.id, "settings", &account.settings)?;
        let rows = self
            .run(
                "add a cloud account",
                "INSERT INTO cloud_providers (id, team_id, name, kind, settings, credentials_sealed, verified_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, now()) ON CONFLICT DO NOTHING",
                [
                    account.id.uuid().into(),
                    account.team.uuid().into(),
                    account.name.clone().into(),
                    word::text(account.kind).into(),
                    settings.into(),
                    account.credentials_sealed.clone().into(),
                ],
            )
            .await?;
        if rows == 1 { Ok(()) } else { Err(StoreError::Exists("cloud account")) }
    }
}

fn reading(source: sea_orm::DbErr) -> StoreError {
    StoreError::query("read teams, projects or cloud accounts", source)
}

fn project(row: projects::Model) -> Project {
    Project {
        id: ProjectId::from_uuid(row.id),
        team: TeamId::from_uuid(row.team_id),
        repo: row.repo,
        account: row.cloud_provider_id.map(CloudAccountId::from_uuid),
        settings: row.settings,
    }
}

fn account(row: cloud_providers::Model) -> Result<CloudAccount> {
    let id = CloudAccountId::from_uuid(row.id);
    Ok(CloudAccount {
        id,
        team: TeamId::from_uuid(row.team_id),
        name: row.name,
        kind: word::parse("cloud_providers", id, "kind", &row.kind)?,
        settings: word::json("cloud_providers", id, "settings", Some(row.settings))?.unwrap_or_default(),
        credentials_sealed: row.credentials_sealed,
        generation: row.generation,
    })
}
