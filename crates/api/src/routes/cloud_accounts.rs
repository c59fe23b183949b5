//! Cloud accounts: where machines are made. Credentials go in and never come out.

mod sight;

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use stagely_domain::account::{Credentials, Settings};
use stagely_domain::error_chain::chain;
use stagely_domain::id::{CloudAccountId, ImageId, MachineId};
use stagely_domain::machine::{self, Provider};
use stagely_domain::secret::Secret;
use stagely_proto::orchestrator::VerifyAccountRequest;
use stagely_store::accounts::Uses;
use stagely_store::tenants;
use stagely_store::work::kind;
use stagely_store::{AuditEntry, Outcome, Scope};

use crate::App;
use crate::auth::permission::{Admin, Caller, Viewer};
use crate::error::{ApiError, Result};
use crate::extract::{Json, Path};
use crate::json::Page;
use sight::{Change, Sight};

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
    /// +1 for each change.
    pub generation: i64,
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

/// What is to be changed; what is left out stays.
#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CloudAccountChange {
    /// What `preview.provider` is to call it.
    pub name: Option<String>,
    /// Where and how it is to make machines, all of it: what is left out in here has its default.
    pub settings: Option<Settings>,
    /// All credentials, as for a new account.
    #[schemars(with = "Option<BTreeMap<String, String>>")]
    pub credentials: Option<BTreeMap<String, Secret>>,
    /// The account's `generation` as it was read: the change is refused when there was another since.
    pub generation: Option<i64>,
    /// Takes credentials, or regions, that show none of the account's machines and golden images. Those that exist all the
    /// same are never removed by Stagely.
    pub abandon_machines: bool,
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
    let mut account = tenants::CloudAccount {
        id: CloudAccountId::generate(),
        team: caller.team(),
        name: new.name,
        kind: new.kind,
        settings: new.settings,
        credentials_sealed: None,
        generation: 1,
    };
    check_name(&account.name)?;
    account.settings.check(account.kind).map_err(invalid)?;
    seal(&app, &mut account, new.credentials)?;
    verify(&app, &account, Made::default()).await?;
    let tx = app.store.begin().await?;
    tx.insert_cloud_account(&account).await?;
    tx.wake(kind::SWEEP, account.id.uuid()).await?;
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
    Ok(axum::Json(find(&app, &caller, id).await?.into()))
}

/// `PATCH /api/v1/cloud-accounts/{id}`
pub async fn change(
    Admin(caller): Admin,
    State(app): State<App>,
    Path(id): Path<CloudAccountId>,
    Json(wanted): Json<CloudAccountChange>,
) -> Result<axum::Json<CloudAccount>> {
    let before = find(&app, &caller, id).await?;
    if wanted.generation.is_some_and(|generation| generation != before.generation) {
        return Err(changed());
    }
    let abandon_machines = wanted.abandon_machines;
    let (after, fields) = apply(&app, before.clone(), wanted)?;
    if fields.is_empty() {
        return Ok(axum::Json(before.into()));
    }
    let shows_known = fields != ["name"] && verify(&app, &after, made(&app, id).await?).await?;
    let sight = match (abandon_machines, shows_known || !fields.contains(&"credentials")) {
        (true, _) => Sight::Waived,
        (false, true) => Sight::Kept,
        (false, false) => Sight::Lost,
    };
    let detail = serde_json::json!({ "name": after.name, "changed": fields, "abandon_machines": abandon_machines });
    let entry = caller.audit("cloud_account.change", "cloud_account", id, detail);
    let change = Change { before, after, sight };
    store(&app, caller.scope(), &change, entry).await?;
    wake(&app, id).await;
    let after = change.after;
    Ok(axum::Json(tenants::CloudAccount { generation: after.generation + 1, ..after }.into()))
}

/// `DELETE /api/v1/cloud-accounts/{id}`
pub async fn delete(
    Admin(caller): Admin,
    State(app): State<App>,
    Path(id): Path<CloudAccountId>,
) -> Result<StatusCode> {
    let tx = app.store.begin().await?;
    tx.lock_cloud_account(caller.scope(), id).await?;
    if tx.delete_cloud_account(caller.scope(), id).await? == Outcome::Stale {
        return Err(in_use(&tx.cloud_account_uses(id).await?));
    }
    tx.audit(caller.audit("cloud_account.delete", "cloud_account", id, serde_json::json!({}))).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The team's account of this id.
async fn find(app: &App, caller: &Caller, id: CloudAccountId) -> Result<tenants::CloudAccount> {
    app.store.find_cloud_account(caller.scope(), id).await?.ok_or(ApiError::NotFound("cloud account"))
}

/// The account as it is to be, and which of its fields differ.
fn apply(
    app: &App,
    mut account: tenants::CloudAccount,
    wanted: CloudAccountChange,
) -> Result<(tenants::CloudAccount, Vec<&'static str>)> {
    let mut fields = Vec::new();
    if let Some(name) = wanted.name.filter(|name| *name != account.name) {
        check_name(&name)?;
        account.name = name;
        fields.push("name");
    }
    if let Some(settings) = wanted.settings.filter(|settings| *settings != account.settings) {
        settings.check(account.kind).map_err(invalid)?;
        account.settings = settings;
        fields.push("settings");
    }
    if let Some(credentials) = wanted.credentials {
        seal(app, &mut account, credentials)?;
        fields.push("credentials");
    }
    Ok((account, fields))
}

/// Writes what was verified, unless somebody else was faster, or something at the provider would be lost.
async fn store(app: &App, scope: &Scope, change: &Change, entry: AuditEntry) -> Result<()> {
    let tx = app.store.begin().await?;
    tx.lock_cloud_account(scope, change.after.id).await?;
    change.check(&tx).await?;
    if tx.change_cloud_account(&change.after).await? == Outcome::Stale {
        return Err(changed());
    }
    tx.audit(entry).await?;
    Ok(tx.commit().await?)
}

fn seal(app: &App, account: &mut tenants::CloudAccount, given: BTreeMap<String, Secret>) -> Result<()> {
    let credentials = Credentials::new(account.kind, given).map_err(invalid)?;
    let place = tenants::CloudAccount::place(account.id, account.team);
    account.credentials_sealed = match credentials.is_empty() {
        true => None,
        false => Some(app.keys.seal(&place, credentials.to_text().reveal().as_bytes())?),
    };
    Ok(())
}

/// What waits for credentials that work goes on at once; it would within a minute.
async fn wake(app: &App, id: CloudAccountId) {
    let woken = async {
        let tx = app.store.begin().await?;
        tx.wake_account_machines(id).await?;
        tx.wake(kind::SWEEP, id.uuid()).await?;
        tx.commit().await
    };
    if let Err(error) = woken.await {
        tracing::warn!(account.id = %id, error = chain(&error), "the machines of {id} were not woken after its change");
    }
}

/// What an account may have at its provider.
#[derive(Default)]
struct Made {
    machines: Vec<MachineId>,
    images: Vec<ImageId>,
}

async fn made(app: &App, id: CloudAccountId) -> Result<Made> {
    let machines = app.store.list_account_machines(id).await?.into_iter();
    let images = app.store.list_account_images(id).await?;
    Ok(Made {
        machines: machines.filter(|row| row.state != machine::State::Intended).map(|row| row.id).collect(),
        images: images.iter().map(|row| row.id).collect(),
    })
}

/// Asks the provider, through the one service that talks to clouds, whether the account works; and whether it shows one of
/// these machines and images.
async fn verify(app: &App, account: &tenants::CloudAccount, made: Made) -> Result<bool> {
    let request = VerifyAccountRequest {
        account_id: account.id.to_string(),
        team_id: account.team.to_string(),
        kind: account.kind.to_string(),
        settings: serde_json::to_value(&account.settings).unwrap_or_default().to_string(),
        credentials_sealed: account.credentials_sealed.clone().unwrap_or_default(),
        machine_ids: made.machines.iter().map(MachineId::to_string).collect(),
        image_ids: made.images.iter().map(ImageId::to_string).collect(),
    };
    let verified = app.orchestrator.clone().verify_account(request).await?.into_inner();
    match verified.problem {
        problem if problem.is_empty() => Ok(verified.shows_known),
        detail => Err(ApiError::Unprocessable { code: "cloud_account_refused", detail }),
    }
}

fn check_name(name: &str) -> Result<()> {
    let is_name = (1..=63).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let rule = "`name` must have 1 to 63 lower-case letters, digits and hyphens, and begin with a letter";
    is_name.then_some(()).ok_or_else(|| invalid(rule.to_owned()))
}

fn invalid(detail: String) -> ApiError {
    ApiError::Unprocessable { code: "invalid_cloud_account", detail }
}

fn changed() -> ApiError {
    let detail = "somebody else changed this account meanwhile: read it again, and decide again".to_owned();
    ApiError::Conflict { code: "changed", detail }
}

fn in_use(uses: &Uses) -> ApiError {
    let machines = (uses.machines > 0).then(|| format!("{} machines of its environments and builders", uses.machines));
    let images = (uses.images > 0).then(|| format!("{} golden images", uses.images));
    let projects = (!uses.projects.is_empty()).then(|| format!("the projects {}", uses.projects.join(", ")));
    let users: Vec<String> = machines.into_iter().chain(images).chain(projects).collect();
    let detail = format!("the account is used by {}: remove them first", users.join(" and by "));
    ApiError::Conflict { code: "in_use", detail }
}

impl From<tenants::CloudAccount> for CloudAccount {
    fn from(row: tenants::CloudAccount) -> Self {
        let has_credentials = row.credentials_sealed.is_some();
        let (id, generation) = (row.id, row.generation);
        Self { id, name: row.name, kind: row.kind, settings: row.settings, has_credentials, generation }
    }
}
