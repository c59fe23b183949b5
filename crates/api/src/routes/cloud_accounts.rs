//! Cloud accounts: where machines are made. Credentials go in and never come out.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use stagely_domain::account::{Credentials, Settings};
use stagely_domain::id::CloudAccountId;
use stagely_domain::machine::Provider;
use stagely_domain::secret::Secret;
use stagely_proto::orchestrator::VerifyAccountRequest;
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
    /// Where and how it makes machines.
    pub settings: Settings,
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
    /// Where and how it makes machines.
    #[serde(default)]
    pub settings: Settings,
    /// `token` for DigitalOcean and Hetzner Cloud; `access_key_id`, `secret_access_key` and perhaps `role_arn` and
    /// `external_id` for AWS; none for a metal host.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub credentials: BTreeMap<String, Secret>,
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
    let invalid = |detail: String| ApiError::Unprocessable { code: "invalid_cloud_account", detail };
    if !is_name(&new.name) {
        let rule = "`name` must have 1 to 63 lower-case letters, digits and hyphens, and begin with a letter";
        return Err(invalid(rule.to_owned()));
    }
    new.settings.check(new.kind).map_err(invalid)?;
    let credentials = Credentials::new(new.kind, new.credentials).map_err(invalid)?;
    let (id, team) = (CloudAccountId::generate(), caller.team());
    let place = tenants::CloudAccount::place(id, team);
    let credentials_sealed = match credentials.is_empty() {
        true => None,
        false => Some(app.keys.seal(&place, credentials.to_text().reveal().as_bytes())?),
    };
    let account =
        tenants::CloudAccount { id, team, name: new.name, kind: new.kind, settings: new.settings, credentials_sealed };
    verify(&app, &account).await?;
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

/// Asks the provider, through the one service that talks to clouds.
async fn verify(app: &App, account: &tenants::CloudAccount) -> Result<()> {
    let json = |value: serde_json::Result<serde_json::Value>| value.unwrap_or_default();
    let request = VerifyAccountRequest {
        account_id: account.id.to_string(),
        team_id: account.team.to_string(),
        kind: json(serde_json::to_value(account.kind)).as_str().unwrap_or_default().to_owned(),
        settings: json(serde_json::to_value(&account.settings)).to_string(),
        credentials_sealed: account.credentials_sealed.clone().unwrap_or_default(),
    };
    let verified = app.orchestrator.clone().verify_account(request).await?;
    match verified.into_inner().problem {
        problem if problem.is_empty() => Ok(()),
        problem => {
            let kind = json(serde_json::to_value(account.kind));
            let kind = kind.as_str().unwrap_or_default();
            let detail = format!("{problem}; `stagely cloud permissions {kind}` prints what its credentials need");
            Err(ApiError::Unprocessable { code: "cloud_account_refused", detail })
        }
    }
}

fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

impl From<tenants::CloudAccount> for CloudAccount {
    fn from(row: tenants::CloudAccount) -> Self {
        let has_credentials = row.credentials_sealed.is_some();
        Self { id: row.id, name: row.name, kind: row.kind, settings: row.settings, has_credentials }
    }
}
