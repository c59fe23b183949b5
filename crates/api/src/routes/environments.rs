//! Preview environments: reads, and the commands that change what is wished for.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use stagely_domain::cost::Money;
use stagely_domain::id::{CloudAccountId, EnvironmentId, MachineId, ProjectId};
use stagely_domain::machine::{Arch, Provider, Size};
use stagely_domain::{environment, machine, offering, route};
use stagely_proto::orchestrator::{EnvironmentRequest, PinRequest, SleepRequest};
use stagely_store::{EnvironmentFilter, EnvironmentView, MachineView, RouteView};

use super::costs::Cost;
use super::runs::RunSummary;
use crate::App;
use crate::auth::permission::{Caller, Member, Viewer};
use crate::error::Result;
use crate::extract::{Path, Query};
use crate::json::{Page, Timestamp, cursor, limit};

/// An environment in a list.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Environment {
    /// Its id.
    pub id: EnvironmentId,
    /// Its project.
    pub project: ProjectId,
    /// The repository, `owner/name`.
    pub repo: String,
    /// The pull request's number.
    pub pr: i64,
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
    /// Its root URL, once there is one.
    pub url: Option<String>,
    /// Every URL, the root first.
    pub urls: Vec<Url>,
    /// Kept past its TTL.
    pub pinned: bool,
    /// Rises with every wish.
    pub generation: i64,
    /// The last wish that was reached.
    pub observed_generation: i64,
    /// When its TTL ends.
    pub expires_at: Timestamp,
    /// Idle seconds after which it sleeps; null for never.
    pub sleep_after_secs: Option<i64>,
    /// The last visit or deploy.
    pub last_activity_at: Timestamp,
    /// When it was first wished for.
    pub created_at: Timestamp,
    /// Its last change.
    pub updated_at: Timestamp,
    /// When nothing of it was left.
    pub gone_at: Option<Timestamp>,
    /// What its machines have cost so far, by currency; empty where machines have no price.
    pub costs: Vec<Cost>,
}

/// One public address.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Url {
    /// The address.
    pub url: String,
    /// What a visitor gets there.
    #[schemars(with = "String")]
    pub state: route::State,
}

/// An environment with all that is known of it.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct EnvironmentDetail {
    /// The same as in the list.
    #[serde(flatten)]
    pub environment: Environment,
    /// Its machine; null before there was one.
    pub machine: Option<Machine>,
    /// Its services, as the agent last saw them.
    pub services: Vec<Service>,
    /// The newest run.
    pub latest_run: Option<RunSummary>,
}

/// A machine.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Machine {
    /// Its id.
    pub id: MachineId,
    /// The account that it runs in.
    pub cloud_account: CloudAccountId,
    /// The kind of that account.
    pub provider: Provider,
    /// Its size class.
    pub size: Size,
    /// Its architecture.
    pub arch: Arch,
    /// The provider's name of its type, once one was chosen.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Where it is, in the provider's words, once that was chosen.
    pub location: Option<String>,
    /// Which types in which places had no room for it, in the order in which they were tried.
    pub tried: Vec<String>,
    /// Where it stands.
    pub state: machine::State,
    /// When it was decided on.
    pub intended_at: Timestamp,
    /// When its agent enrolled.
    pub enrolled_at: Option<Timestamp>,
    /// When its agent last spoke.
    pub last_seen_at: Option<Timestamp>,
}

/// A compose service. Its texts come from the machine: untrusted.
#[derive(Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Service {
    /// Its name in the compose file.
    pub name: String,
    /// Docker's word: running, exited, restarting, …
    pub state: String,
    /// healthy, unhealthy, starting; empty without a health check.
    pub health: String,
    /// The exit code of its last process.
    pub exit_code: i32,
    /// The image it runs.
    pub image: String,
}

/// Which environments to list.
#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentsQuery {
    /// Only in this state.
    #[serde(default)]
    pub state: Option<environment::State>,
    /// Only of this project.
    #[serde(default)]
    pub project: Option<ProjectId>,
    /// Only of the pull request with this number.
    #[serde(default)]
    pub pr: Option<i64>,
    /// Also those that are gone.
    #[serde(default)]
    pub gone: bool,
    /// Items per page, 1 to 200; 50 by default.
    #[serde(default)]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(default)]
    pub cursor: Option<String>,
}

/// A command was accepted; reconcilers do the rest.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Accepted {
    /// What it is about.
    pub environment: EnvironmentId,
    /// The wish from now on. A redeploy or a removal is done when `observed_generation` has reached it.
    pub generation: u64,
}

/// `GET /api/v1/environments`
pub async fn list(
    Viewer(caller): Viewer,
    State(app): State<App>,
    Query(query): Query<EnvironmentsQuery>,
) -> Result<axum::Json<Page<Environment>>> {
    let filter = EnvironmentFilter {
        state: query.state,
        project: query.project,
        pr_number: query.pr,
        with_gone: query.gone,
        before: cursor(query.cursor.as_deref())?,
    };
    let limit = limit(query.limit)?;
    let rows = app.store.list_environment_views(caller.scope(), &filter, limit + 1).await?;
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    let mut routes = app.store.list_route_views(caller.scope(), &ids).await?;
    let mut costs = app.store.list_environment_costs(caller.scope(), &ids).await?;
    Ok(axum::Json(Page::cut(
        rows,
        limit,
        |row| row.id.to_string(),
        |row| {
            let routes = routes.remove(&row.id).unwrap_or_default();
            let costs = costs.remove(&row.id).unwrap_or_default();
            show(&app, row, routes, costs)
        },
    )))
}

/// `GET /api/v1/environments/{id}`
pub async fn get(
    Viewer(caller): Viewer,
    State(app): State<App>,
    Path(id): Path<EnvironmentId>,
) -> Result<axum::Json<EnvironmentDetail>> {
    let row = app.store.get_environment_view(caller.scope(), id).await?;
    let mut routes = app.store.list_route_views(caller.scope(), &[id]).await?;
    let mut costs = app.store.list_environment_costs(caller.scope(), &[id]).await?;
    let machine = app.store.find_machine_view(caller.scope(), id).await?;
    let latest = app.store.list_run_views(caller.scope(), id, None, 1).await?;
    Ok(axum::Json(EnvironmentDetail {
        environment: show(&app, row, routes.remove(&id).unwrap_or_default(), costs.remove(&id).unwrap_or_default()),
        services: machine.as_ref().map(services).unwrap_or_default(),
        machine: machine.map(show_machine),
        latest_run: latest.into_iter().next().map(RunSummary::from),
    }))
}

/// `POST /api/v1/environments/{id}/redeploy`
pub async fn redeploy(
    member: Member,
    app: State<App>,
    path: Path<EnvironmentId>,
) -> Result<(StatusCode, axum::Json<Accepted>)> {
    command(member, app, path, Command::Redeploy).await
}

/// `POST /api/v1/environments/{id}/destroy`
pub async fn destroy(
    member: Member,
    app: State<App>,
    path: Path<EnvironmentId>,
) -> Result<(StatusCode, axum::Json<Accepted>)> {
    command(member, app, path, Command::Destroy).await
}

/// `POST /api/v1/environments/{id}/sleep`
pub async fn sleep(
    member: Member,
    app: State<App>,
    path: Path<EnvironmentId>,
) -> Result<(StatusCode, axum::Json<Accepted>)> {
    command(member, app, path, Command::Sleep).await
}

/// `POST /api/v1/environments/{id}/wake`
pub async fn wake(
    member: Member,
    app: State<App>,
    path: Path<EnvironmentId>,
) -> Result<(StatusCode, axum::Json<Accepted>)> {
    command(member, app, path, Command::Wake).await
}

/// `POST /api/v1/environments/{id}/pin`
pub async fn pin(
    member: Member,
    app: State<App>,
    path: Path<EnvironmentId>,
) -> Result<(StatusCode, axum::Json<Accepted>)> {
    command(member, app, path, Command::Pin).await
}

/// `POST /api/v1/environments/{id}/unpin`
pub async fn unpin(
    member: Member,
    app: State<App>,
    path: Path<EnvironmentId>,
) -> Result<(StatusCode, axum::Json<Accepted>)> {
    command(member, app, path, Command::Unpin).await
}

#[derive(Clone, Copy)]
enum Command {
    Redeploy,
    Destroy,
    Sleep,
    Wake,
    Pin,
    Unpin,
}

impl Command {
    const fn action(self) -> &'static str {
        match self {
            Self::Redeploy => "environment.redeploy",
            Self::Destroy => "environment.destroy",
            Self::Sleep => "environment.sleep",
            Self::Wake => "environment.wake",
            Self::Pin => "environment.pin",
            Self::Unpin => "environment.unpin",
        }
    }
}

async fn command(
    Member(caller): Member,
    State(app): State<App>,
    Path(id): Path<EnvironmentId>,
    command: Command,
) -> Result<(StatusCode, axum::Json<Accepted>)> {
    app.store.get_environment_view(caller.scope(), id).await?;
    let generation = send(&app, &caller, id, command).await?;
    let tx = app.store.begin().await?;
    let detail = serde_json::json!({ "generation": generation });
    tx.audit(caller.audit(command.action(), "environment", id, detail)).await?;
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, axum::Json(Accepted { environment: id, generation })))
}

async fn send(app: &App, caller: &Caller, id: EnvironmentId, command: Command) -> Result<u64> {
    let (environment_id, team_id) = (id.to_string(), caller.team().to_string());
    let mut orchestrator = app.orchestrator.clone();
    let pinned = matches!(command, Command::Pin);
    let request = EnvironmentRequest { environment_id: environment_id.clone(), team_id: team_id.clone() };
    let response = match command {
        Command::Redeploy => orchestrator.redeploy(request).await?,
        Command::Destroy => orchestrator.destroy(request).await?,
        Command::Sleep => orchestrator.sleep(SleepRequest { environment_id, team_id, seen: None }).await?,
        Command::Wake => orchestrator.wake(request).await?,
        Command::Pin | Command::Unpin => orchestrator.pin(PinRequest { environment_id, team_id, pinned }).await?,
    };
    Ok(response.into_inner().generation)
}

fn show(app: &App, row: EnvironmentView, routes: Vec<RouteView>, costs: Vec<Money>) -> Environment {
    let urls: Vec<Url> =
        routes.into_iter().map(|route| Url { url: app.preview_url.of(&route.host), state: route.state }).collect();
    Environment {
        id: row.id,
        project: row.project,
        repo: row.repo,
        pr: row.pr_number,
        title: row.title,
        branch: row.branch,
        author: row.author,
        pr_url: row.pr_url,
        sha: row.sha,
        state: row.state,
        reason: row.reason,
        url: urls.first().map(|url| url.url.clone()),
        urls,
        pinned: row.pinned,
        generation: row.generation,
        observed_generation: row.observed_generation,
        expires_at: row.expires_at.into(),
        sleep_after_secs: row.sleep_after_secs,
        last_activity_at: row.last_activity_at.into(),
        created_at: row.created_at.into(),
        updated_at: row.updated_at.into(),
        gone_at: row.gone_at.map(Timestamp),
        costs: costs.into_iter().map(Cost::from).collect(),
    }
}

fn show_machine(row: MachineView) -> Machine {
    let (kind, location) = row.offering.map(|offering| (offering.name, offering.location)).unzip();
    Machine {
        id: row.id,
        cloud_account: row.account,
        provider: row.provider,
        size: row.size,
        arch: row.arch,
        kind,
        location,
        tried: offering::full(&row.tried).into_iter().map(str::to_owned).collect(),
        state: row.state,
        intended_at: row.intended_at.into(),
        enrolled_at: row.enrolled_at.map(Timestamp),
        last_seen_at: row.last_seen_at.map(Timestamp),
    }
}

/// The services in what the agent last said. What does not parse is left out: the bytes come from a machine.
fn services(machine: &MachineView) -> Vec<Service> {
    let listed = machine.observed.as_ref().and_then(|observed| observed.get("services")?.as_array());
    let listed = listed.map(Vec::as_slice).unwrap_or_default();
    listed.iter().take(200).filter_map(|service| serde_json::from_value(service.clone()).ok()).collect()
}
