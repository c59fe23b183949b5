//! Environments with what belongs to them: project, routes, machine, counts.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use stagely_domain::environment;
use stagely_domain::id::{CloudAccountId, EnvironmentId, MachineId, ProjectId};
use stagely_domain::machine::{self, Arch, Provider, Size};
use stagely_domain::offering::Offering;
use stagely_domain::route;
use uuid::Uuid;

use crate::entity::{environments, machines};
use crate::statement::Row;
use crate::{Result, Scope, Store, StoreError, word};

/// An environment as people see it.
#[derive(Debug, Clone, PartialEq)]
pub struct EnvironmentView {
    /// Its id.
    pub id: EnvironmentId,
    /// Its project.
    pub project: ProjectId,
    /// The project's repository, `owner/name`.
    pub repo: String,
    /// The pull request's number.
    pub pr_number: i64,
    /// The pull request's title: untrusted text.
    pub title: String,
    /// The head branch: untrusted text.
    pub branch: String,
    /// Who opened the pull request.
    pub author: String,
    /// Where the pull request is read.
    pub pr_url: String,
    /// The commit that is wished for.
    pub sha: String,
    /// Where it stands.
    pub state: environment::State,
    /// Why, when that needs words.
    pub reason: Option<String>,
    /// Kept past its TTL.
    pub pinned: bool,
    /// The wish.
    pub generation: i64,
    /// The last wish that was reached.
    pub observed_generation: i64,
    /// When its TTL ends.
    pub expires_at: DateTime<Utc>,
    /// Idle seconds after which it sleeps; `None` for never.
    pub sleep_after_secs: Option<i64>,
    /// The last visit or deploy.
    pub last_activity_at: DateTime<Utc>,
    /// When it was first wished for.
    pub created_at: DateTime<Utc>,
    /// The last change of its row.
    pub updated_at: DateTime<Utc>,
    /// When nothing of it was left.
    pub gone_at: Option<DateTime<Utc>>,
}

/// Which environments to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct EnvironmentFilter {
    /// Only in this state.
    pub state: Option<environment::State>,
    /// Only of this project.
    pub project: Option<ProjectId>,
    /// Only of the pull request with this number.
    pub pr_number: Option<i64>,
    /// Also those that are gone.
    pub with_gone: bool,
    /// Only older ones than this.
    pub before: Option<EnvironmentId>,
}

/// One host of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteView {
    /// The host name, without port.
    pub host: String,
    /// What the edge does with it.
    pub state: route::State,
}

/// The machine of an environment.
#[derive(Debug, Clone, PartialEq)]
pub struct MachineView {
    /// Its id.
    pub id: MachineId,
    /// The account that it runs in.
    pub account: CloudAccountId,
    /// The kind of that account.
    pub provider: Provider,
    /// Its size class.
    pub size: Size,
    /// Its architecture.
    pub arch: Arch,
    /// Which type in which place it is, or is asked for as.
    pub offering: Option<Offering>,
    /// What had no room for it, in the order in which it was tried.
    pub tried: Vec<String>,
    /// Where it stands.
    pub state: machine::State,
    /// When it was decided on.
    pub intended_at: DateTime<Utc>,
    /// When the provider gave an id.
    pub placed_at: Option<DateTime<Utc>>,
    /// When its agent enrolled.
    pub enrolled_at: Option<DateTime<Utc>>,
    /// When its agent last spoke.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// What its agent last said (`agent_connections.observed`).
    pub observed: Option<serde_json::Value>,
}

/// How much there is of everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatusCounts {
    /// Environments that are not gone, by state.
    pub environments: BTreeMap<String, i64>,
    /// Machines that are not gone, by state.
    pub machines: BTreeMap<String, i64>,
    /// Build jobs that are not over, by state.
    pub builds: BTreeMap<String, i64>,
    /// Deliveries that nobody has decided on.
    pub pending_deliveries: i64,
}

const SELECT: &str = "SELECT e.*, p.repo AS project_repo FROM environments e JOIN projects p ON p.id = e.project_id \
                      WHERE ($1::uuid IS NULL OR e.team_id = $1)";

impl Store {
    /// At most `limit` environments, newest first.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_environment_views(
        &self,
        scope: &Scope,
        filter: &EnvironmentFilter,
        limit: u32,
    ) -> Result<Vec<EnvironmentView>> {
        let sql = format!(
            "{SELECT} AND ($2::text IS NULL OR e.state = $2) AND ($3::uuid IS NULL OR e.project_id = $3) \
             AND ($4::bigint IS NULL OR e.pr_number = $4) AND ($5 OR e.gone_at IS NULL) \
             AND ($6::uuid IS NULL OR e.id < $6) ORDER BY e.id DESC LIMIT $7"
        );
        let values = [
            scope.team_uuid().into(),
            filter.state.map(word::text).into(),
            filter.project.map(ProjectId::uuid).into(),
            filter.pr_number.into(),
            filter.with_gone.into(),
            filter.before.map(EnvironmentId::uuid).into(),
            i64::from(limit).into(),
        ];
        self.rows("list environments", sql, values).await?.iter().map(environment).collect()
    }

    /// One environment, gone ones included.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none, or it is another team's.
    pub async fn get_environment_view(&self, scope: &Scope, id: EnvironmentId) -> Result<EnvironmentView> {
        let sql = format!("{SELECT} AND e.id = $2");
        let found = self.row("read an environment", sql, [scope.team_uuid().into(), id.uuid().into()]).await?;
        environment(&found.ok_or(StoreError::NotFound("environment"))?)
    }

    /// The hosts of environments, in the order of their names: the root host sorts before `api--…` ones only by
    /// chance, so callers that care look at the name.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_route_views(
        &self,
        scope: &Scope,
        environments: &[EnvironmentId],
    ) -> Result<BTreeMap<EnvironmentId, Vec<RouteView>>> {
        let ids: Vec<Uuid> = environments.iter().map(|id| id.uuid()).collect();
        let sql = "SELECT r.env_id, r.host, r.state FROM routes r \
                   WHERE ($1::uuid IS NULL OR r.team_id = $1) AND r.env_id = ANY($2) AND r.removed_at IS NULL \
                   ORDER BY length(r.host), r.host";
        let mut found: BTreeMap<EnvironmentId, Vec<RouteView>> = BTreeMap::new();
        for row in self.rows("list routes", sql, [scope.team_uuid().into(), ids.into()]).await? {
            let environment: Uuid = row.get("env_id")?;
            let state: String = row.get("state")?;
            let view =
                RouteView { host: row.get("host")?, state: word::parse("routes", environment, "state", &state)? };
            found.entry(EnvironmentId::from_uuid(environment)).or_default().push(view);
        }
        Ok(found)
    }

    /// The newest preview machine of an environment, also when it is gone.
    ///
    /// # Errors
    /// The database's error.
    pub async fn find_machine_view(&self, scope: &Scope, id: EnvironmentId) -> Result<Option<MachineView>> {
        let sql = "SELECT m.*, c.kind AS account_kind, a.last_seen_at AS agent_seen_at, a.observed AS agent_observed \
                   FROM machines m JOIN cloud_providers c ON c.id = m.account_id \
                   LEFT JOIN agent_connections a ON a.machine_id = m.id \
                   WHERE ($1::uuid IS NULL OR m.team_id = $1) AND m.env_id = $2 AND m.role = 'preview' \
                   ORDER BY m.gone_at IS NULL DESC, m.id DESC LIMIT 1";
        let found = self.row("read a machine", sql, [scope.team_uuid().into(), id.uuid().into()]).await?;
        found.as_ref().map(machine_view).transpose()
    }

    /// Counts for the status page.
    ///
    /// # Errors
    /// The database's error.
    pub async fn status_counts(&self, scope: &Scope) -> Result<StatusCounts> {
        let sql = "SELECT 'environments' AS what, state, count(*) AS number FROM environments \
                     WHERE ($1::uuid IS NULL OR team_id = $1) AND gone_at IS NULL GROUP BY state \
                   UNION ALL SELECT 'machines', state, count(*) FROM machines \
                     WHERE ($1::uuid IS NULL OR team_id = $1) AND gone_at IS NULL GROUP BY state \
                   UNION ALL SELECT 'builds', state, count(*) FROM build_jobs \
                     WHERE ($1::uuid IS NULL OR team_id = $1) AND finished_at IS NULL GROUP BY state \
                   UNION ALL SELECT 'deliveries', 'pending', count(*) FROM inbox i WHERE i.decision IS NULL \
                     AND ($1::uuid IS NULL OR EXISTS (SELECT 1 FROM projects p WHERE p.team_id = $1 \
                     AND p.deleted_at IS NULL AND lower(p.repo) = lower(i.repo)))";
        let mut counts = StatusCounts::default();
        for row in self.rows("count what there is", sql, [scope.team_uuid().into()]).await? {
            let what: String = row.get("what")?;
            let state: String = row.get("state")?;
            let number: i64 = row.get("number")?;
            match what.as_str() {
                "environments" => drop(counts.environments.insert(state, number)),
                "machines" => drop(counts.machines.insert(state, number)),
                "builds" => drop(counts.builds.insert(state, number)),
                _ => counts.pending_deliveries = number,
            }
        }
        Ok(counts)
    }
}

fn environment(row: &Row) -> Result<EnvironmentView> {
    let repo = row.get("project_repo")?;
    let row: environments::Model = row.model()?;
    Ok(EnvironmentView {
        id: EnvironmentId::from_uuid(row.id),
        project: ProjectId::from_uuid(row.project_id),
        repo,
        pr_number: row.pr_number,
        title: row.title,
        branch: row.branch,
        author: row.author,
        pr_url: row.pr_url,
        sha: row.desired_sha,
        state: word::parse("environments", row.id, "state", &row.state)?,
        reason: row.reason,
        pinned: row.pinned,
        generation: row.generation,
        observed_generation: row.observed_generation,
        expires_at: row.expires_at,
        sleep_after_secs: row.sleep_after_secs,
        last_activity_at: row.last_activity_at,
        created_at: row.created_at,
        updated_at: row.updated_at,
        gone_at: row.gone_at,
    })
}

fn machine_view(row: &Row) -> Result<MachineView> {
    let kind: String = row.get("account_kind")?;
    let last_seen_at = row.get("agent_seen_at")?;
    let observed = row.get("agent_observed")?;
    let row: machines::Model = row.model()?;
    Ok(MachineView {
        id: MachineId::from_uuid(row.id),
        account: CloudAccountId::from_uuid(row.account_id),
        provider: word::parse("cloud_providers", row.account_id, "kind", &kind)?,
        size: word::parse("machines", row.id, "size", &row.size)?,
        arch: word::parse("machines", row.id, "arch", &row.arch)?,
        offering: word::json("machines", row.id, "offering", row.offering)?,
        tried: word::json("machines", row.id, "tried", Some(row.tried))?.unwrap_or_default(),
        state: word::parse("machines", row.id, "state", &row.state)?,
        intended_at: row.intended_at,
        placed_at: row.placed_at,
        enrolled_at: row.enrolled_at,
        last_seen_at,
        observed,
    })
}
