//! Cloud accounts: where machines are made. Credentials go in and never come out.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use stagely_domain::id::CloudAccountId;
use stagely_domain::machine::Provider;
use stagely_store::tenants;

use crate::App;
use crate::auth::permission::{Admin, Viewer};
use crate::error::{ApiError, Result};
use crate::extract::{Json, Path};
use crate::json::Page;

/// An account, without its credentials.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct CloudAccount {
    /// Its id.
    pub id: CloudAccountId,
    /// What `preview.provider` calls it.
    pub name: String,
    /// Which cloud.
    pub kind: Provider,
    /// Whether credentials are stored.
    pub has_credentials: bool,
}

/// An account to be added.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCloudAccount {
    /// What `preview.provider` is to call it.
    pub name: String,
    /// Which cloud.
    pub kind: Provider,
}

/// `GET /api/v1/cloud-accounts`
pub async fn list(Viewer(caller): Viewer, State(app): State<App>) -> Result<axum::Json<Page<CloudAccount>>> {
    let rows = app.store.list_cloud_accounts(caller.scope()).await?;
    Ok(axum::Json(Page { items: rows.into_iter().map(CloudAccount::from).collect(), next_cursor: None }))
}

/// `POST /api/v1/cloud-accounts`
pub async fn create(
    Admin(caller): Admin,
    State(app): State<App>,
    Json(new): Json<NewCloudAccount>,
) -> Result<(StatusCode, axum::Json<CloudAccount>)> {
    if new.kind != Provider::Qemu {
        return Err(ApiError::Unprocessable {
            code: "not_available",
            detail: "this kind of account is not available in this version; `qemu` is".to_owned(),
        });
    }
    if !is_name(&new.name) {
        return Err(ApiError::Unprocessable {
            code: "invalid_cloud_account",
            detail: "`name` must have 1 to 63 lower-case letters, digits and hyphens, and begin with a letter"
                .to_owned(),
        });
    }
    let account = tenants::CloudAccount {
        id: CloudAccountId::generate(),
        team: caller.team(),
        name: new.name,
        kind: new.kind,
        settings: serde_json::json!({}),
        credentials_sealed: None,
    };
    let tx = app.store.begin().await?;
    tx.insert_cloud_account(&account).await?;
    let detail = serde_json::json!({ "name": account.name, "kind": account.kind });
    tx.audit(caller.audit("cloud_account.create", "cloud_account", account.id, detail)).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, axum::Json(account.into())))
}

/// `GET /api/v1/cloud-accounts/{id}`
pub async fn get(
    Viewer(caller): Viewer,
    State(app): State<App>,
    Path(id): Path<CloudAccountId>,
) -> Result<axum::Json<CloudAccount>> {
    // The list leaves deleted ones out; machines still look those up one by one.
    let rows = app.store.list_cloud_accounts(caller.scope()).await?;
    let row = rows.into_iter().find(|row| row.id == id).ok_or(ApiError::NotFound("cloud account"))?;
    Ok(axum::Json(row.into()))
}

/// `DELETE /api/v1/cloud-accounts/{id}`
pub async fn delete(
    Admin(caller): Admin,
    State(app): State<App>,
    Path(id): Path<CloudAccountId>,
) -> Result<StatusCode> {
    let rows = app.store.list_cloud_accounts(caller.scope()).await?;
    if !rows.iter().any(|row| row.id == id) {
        return Err(ApiError::NotFound("cloud account"));
    }
    let tx = app.store.begin().await?;
    tx.delete_cloud_account(caller.scope(), id).await.map_err(|error| match error {
        stagely_store::StoreError::NotFound(_) => ApiError::Conflict {
            code: "in_use",
            detail: "machines still live in this account: destroy their environments first".to_owned(),
        },
        other => other.into(),
    })?;
    tx.audit(caller.audit("cloud_account.delete", "cloud_account", id, serde_json::json!({}))).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

impl From<tenants::CloudAccount> for CloudAccount {
    fn from(row: tenants::CloudAccount) -> Self {
        Self { id: row.id, name: row.name, kind: row.kind, has_credentials: row.credentials_sealed.is_some() }
    }
}
