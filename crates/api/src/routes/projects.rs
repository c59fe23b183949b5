//! Projects: the repositories that are watched.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use stagely_domain::id::{CloudAccountId, ProjectId};
use stagely_store::tenants::{self, Page as StorePage};

use crate::App;
use crate::auth::permission::{Admin, Viewer};
use crate::error::{ApiError, Result};
use crate::extract::{Json, Path, Query};
use crate::json::{Page, PageQuery};

/// A repository that is watched.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// The git host.
    pub forge: &'static str,
    /// `owner/name` there.
    pub repo: String,
    /// Where its machines are made.
    pub cloud_account: Option<CloudAccountId>,
}

/// A repository to be watched.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewProject {
    /// `owner/name` at GitHub.
    pub repo: String,
    /// Where its machines are to be made.
    pub cloud_account: CloudAccountId,
}

/// `GET /api/v1/projects`
pub async fn list(
    Viewer(caller): Viewer,
    State(app): State<App>,
    Query(page): Query<PageQuery>,
) -> Result<axum::Json<Page<Project>>> {
    let limit = page.limit()?.min(99);
    let after = page.cursor::<ProjectId>()?.map(ProjectId::uuid);
    let page = StorePage { limit: u64::from(limit) + 1, after };
    let rows = app.store.list_projects(caller.scope(), page).await?;
    Ok(axum::Json(Page::cut(rows, limit, |row| row.id.to_string(), Project::from)))
}

/// `POST /api/v1/projects`
pub async fn create(
    Admin(caller): Admin,
    State(app): State<App>,
    Json(new): Json<NewProject>,
) -> Result<(StatusCode, axum::Json<Project>)> {
    if !is_repo(&new.repo) {
        return Err(unprocessable("`repo` is not an `owner/name` of GitHub"));
    }
    if app.store.find_cloud_account(caller.scope(), new.cloud_account).await?.is_none() {
        return Err(unprocessable("`cloud_account` is none of the team's"));
    }
    let project = tenants::Project {
        id: ProjectId::generate(),
        team: caller.team(),
        repo: new.repo,
        account: Some(new.cloud_account),
        settings: serde_json::json!({}),
    };
    let tx = app.store.begin().await?;
    tx.insert_project(&project).await?;
    let detail = serde_json::json!({ "repo": project.repo, "cloud_account": project.account });
    tx.audit(caller.audit("project.create", "project", project.id, detail)).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, axum::Json(project.into())))
}

/// `GET /api/v1/projects/{id}`
pub async fn get(
    Viewer(caller): Viewer,
    State(app): State<App>,
    Path(id): Path<ProjectId>,
) -> Result<axum::Json<Project>> {
    Ok(axum::Json(app.store.get_project(caller.scope(), id).await?.into()))
}

/// `DELETE /api/v1/projects/{id}`
pub async fn delete(Admin(caller): Admin, State(app): State<App>, Path(id): Path<ProjectId>) -> Result<StatusCode> {
    let tx = app.store.begin().await?;
    tx.delete_project(caller.scope(), id).await?;
    tx.audit(caller.audit("project.delete", "project", id, serde_json::json!({}))).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// GitHub's rules for owners and repositories: letters, digits, `-`, and in names `_` and `.`.
fn is_repo(text: &str) -> bool {
    let Some((owner, name)) = text.split_once('/') else {
        return false;
    };
    let owner_ok = (1..=39).contains(&owner.len()) && owner.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let name_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    owner_ok && (1..=100).contains(&name.len()) && name.bytes().all(name_byte) && name != "." && name != ".."
}

fn unprocessable(detail: &str) -> ApiError {
    ApiError::Unprocessable { code: "invalid_project", detail: detail.to_owned() }
}

impl From<tenants::Project> for Project {
    fn from(row: tenants::Project) -> Self {
        Self { id: row.id, forge: "github", repo: row.repo, cloud_account: row.account }
    }
}
