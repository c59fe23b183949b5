//! Golden images: what machines of a cloud account boot, so that they need not install anything first.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use stagely_domain::cost::Money;
use stagely_domain::failure::Failure;
use stagely_domain::id::{CloudAccountId, ImageId, MachineId};
use stagely_domain::image;
use stagely_domain::machine::Arch;
use stagely_proto::orchestrator::{BakeImageRequest, DropImageRequest};
use stagely_store::Presence;
use stagely_store::images;

use super::costs::Cost;
use crate::App;
use crate::auth::permission::{Admin, Viewer};
use crate::error::{ApiError, Result};
use crate::extract::{JsonOrDefault, Path, Query};
use crate::json::{Page, PageQuery, Timestamp};

/// One image.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Image {
    /// Its id.
    pub id: ImageId,
    /// The account whose machines boot it.
    pub account: CloudAccountId,
    /// For which processor.
    pub arch: Arch,
    /// The container images on it.
    pub base_images: Vec<String>,
    /// The agent's program on it.
    pub agent_sha256: Option<String>,
    /// Where it stands.
    pub state: image::State,
    /// Whether it is on its way out.
    pub removing: bool,
    /// The machine that it was made of.
    pub machine: Option<MachineId>,
    /// The provider's name of it.
    pub reference: Option<String>,
    /// Where machines can boot it; everywhere when it is empty.
    pub locations: Vec<String>,
    /// Why it could not be made, or was lost.
    pub failure: Option<Failure>,
    /// What the machine that it was made of cost.
    pub costs: Vec<Cost>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When machines could boot it.
    pub ready_at: Option<Timestamp>,
    /// When the provider had nothing of it any more.
    pub deleted_at: Option<Timestamp>,
}

/// An image to be made.
#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewImage {
    /// For which processor.
    pub arch: Arch,
    /// Container images to put on it, as Docker names them.
    pub base_images: Vec<String>,
}

/// A wish that was taken.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct AcceptedImage {
    /// The image.
    pub image: ImageId,
}

type Accepted = (StatusCode, axum::Json<AcceptedImage>);

/// `POST /api/v1/cloud-accounts/{id}/images`
pub async fn create(
    Admin(caller): Admin,
    State(app): State<App>,
    Path(account): Path<CloudAccountId>,
    JsonOrDefault(new): JsonOrDefault<NewImage>,
) -> Result<Accepted> {
    if app.store.find_cloud_account(caller.scope(), account).await?.is_none() {
        return Err(ApiError::NotFound("cloud account"));
    }
    let image = ImageId::generate();
    let detail = serde_json::json!({ "account": account, "arch": new.arch, "base_images": new.base_images });
    let request = BakeImageRequest {
        image_id: image.to_string(),
        team_id: caller.team().to_string(),
        account_id: account.to_string(),
        arch: new.arch.to_string(),
        base_images: new.base_images,
    };
    app.orchestrator.clone().bake_image(request).await.map_err(refused)?;
    let tx = app.store.begin().await?;
    tx.audit(caller.audit("image.bake", "image", image, detail)).await?;
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, axum::Json(AcceptedImage { image })))
}

/// `GET /api/v1/images`
pub async fn list(
    Viewer(caller): Viewer,
    State(app): State<App>,
    Query(page): Query<PageQuery>,
) -> Result<axum::Json<Page<Image>>> {
    let limit = page.limit()?;
    let rows = app.store.list_images(caller.scope(), page.cursor()?, limit + 1).await?;
    let ids: Vec<ImageId> = rows.iter().map(|row| row.id).collect();
    let mut costs = app.store.list_image_costs(caller.scope(), &ids).await?;
    let page = Page::cut(
        rows,
        limit,
        |row| row.id.to_string(),
        |row| {
            let costs = costs.remove(&row.id).unwrap_or_default();
            show(row, costs)
        },
    );
    Ok(axum::Json(page))
}

/// `GET /api/v1/images/{id}`
pub async fn get(Viewer(caller): Viewer, State(app): State<App>, Path(id): Path<ImageId>) -> Result<axum::Json<Image>> {
    let row = app.store.get_image(caller.scope(), id).await?;
    let costs = app.store.list_image_costs(caller.scope(), &[id]).await?.remove(&id);
    Ok(axum::Json(show(row, costs.unwrap_or_default())))
}

/// `DELETE /api/v1/images/{id}`
pub async fn delete(Admin(caller): Admin, State(app): State<App>, Path(id): Path<ImageId>) -> Result<Accepted> {
    app.store.get_image(caller.scope(), id).await?;
    let request = DropImageRequest { image_id: id.to_string(), team_id: caller.team().to_string() };
    app.orchestrator.clone().drop_image(request).await.map_err(refused)?;
    let tx = app.store.begin().await?;
    tx.audit(caller.audit("image.delete", "image", id, serde_json::json!({}))).await?;
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, axum::Json(AcceptedImage { image: id })))
}

/// What the orchestrator has against it, in its own words.
fn refused(status: tonic::Status) -> ApiError {
    let detail = status.message().to_owned();
    match status.code() {
        tonic::Code::NotFound => ApiError::NotFound("image or cloud account"),
        tonic::Code::FailedPrecondition => ApiError::Unprocessable { code: "cannot_bake", detail },
        tonic::Code::InvalidArgument => ApiError::Unprocessable { code: "invalid_image", detail },
        _ => status.into(),
    }
}

fn show(row: images::Image, costs: Vec<Money>) -> Image {
    Image {
        id: row.id,
        account: row.account,
        arch: row.arch,
        base_images: row.base_images,
        agent_sha256: row.agent_sha256,
        state: row.state,
        removing: row.desired == Presence::Absent && row.deleted_at.is_none(),
        machine: row.machine,
        reference: row.reference,
        locations: row.locations,
        failure: row.failure,
        costs: costs.into_iter().map(Cost::from).collect(),
        created_at: row.created_at.into(),
        ready_at: row.ready_at.map(Timestamp::from),
        deleted_at: row.deleted_at.map(Timestamp::from),
    }
}
