//! Golden images: what machines of an account boot instead of the provider's stock image. A row is committed before
//! anything is made, and says that its image is removed only when the provider shows nothing of it any more. Updated by
//! the orchestrator.

use chrono::{DateTime, Utc};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use stagely_domain::failure::Failure;
use stagely_domain::id::{CloudAccountId, ImageId, MachineId, TeamId};
use stagely_domain::image::State;
use stagely_domain::machine::Arch;

use crate::entity::images;
use crate::machines::NewMachine;
use crate::{Outcome, Presence, Result, Scope, Store, StoreError, Tx, word};

/// One image.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Its id: its name and tag at the provider.
    pub id: ImageId,
    /// The team that owns it.
    pub team: TeamId,
    /// The cloud account that it is made in, and whose machines boot it.
    pub account: CloudAccountId,
    /// The processor architecture of the machines that boot it.
    pub arch: Arch,
    /// The container images on it, as Docker names them.
    pub base_images: Vec<String>,
    /// SHA-256 of the agent's program on it, in hexadecimal, once its machine was asked for.
    pub agent_sha256: Option<String>,
    /// What people wish. One that failed is cleared away whatever they wish.
    pub desired: Presence,
    /// Rises with every change of the wish.
    pub generation: i64,
    /// How far it has come from baking to gone.
    pub state: State,
    /// The machine that it is made of.
    pub machine: Option<MachineId>,
    /// The provider's name of it, once it was ready.
    pub reference: Option<String>,
    /// Where machines can boot it, in the provider's names; everywhere when it is empty.
    pub locations: Vec<String>,
    /// Why it could not be made, or was lost.
    pub failure: Option<Failure>,
    /// When it was wished for.
    pub created_at: DateTime<Utc>,
    /// When machines could boot it.
    pub ready_at: Option<DateTime<Utc>>,
    /// When the provider had nothing of it any more.
    pub deleted_at: Option<DateTime<Utc>>,
}

/// An image to be.
#[derive(Debug, Clone)]
pub struct NewImage {
    /// Its id, chosen by the caller.
    pub id: ImageId,
    /// The team that owns it.
    pub team: TeamId,
    /// The cloud account that it is made in, and whose machines boot it.
    pub account: CloudAccountId,
    /// The processor architecture of the machines that boot it.
    pub arch: Arch,
    /// The container images that are to be on it, as Docker names them.
    pub base_images: Vec<String>,
}

impl Store {
    /// One image.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none, or it is another team's.
    pub async fn get_image(&self, scope: &Scope, id: ImageId) -> Result<Image> {
        let found = images::Entity::find_by_id(id.uuid()).one(&self.db).await.map_err(reading)?;
        let image = found.map(image).transpose()?;
        image.filter(|image| scope.covers(image.team)).ok_or(StoreError::NotFound("image"))
    }

    /// The images that are not gone, those that failed too: at most `limit`, newest first, older than `before`.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_images(&self, scope: &Scope, before: Option<ImageId>, limit: u32) -> Result<Vec<Image>> {
        let mut query = images::Entity::find().filter(images::Column::State.ne(word::text(State::Gone)));
        if let Some(team) = scope.team_id() {
            query = query.filter(images::Column::TeamId.eq(team.uuid()));
        }
        if let Some(before) = before {
            query = query.filter(images::Column::Id.lt(before.uuid()));
        }
        let rows = query.order_by_desc(images::Column::Id).limit(u64::from(limit)).all(&self.db).await;
        rows.map_err(reading)?.into_iter().map(image).collect()
    }

    /// The images that new machines of an account may boot, newest first.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_bootable_images(&self, account: CloudAccountId, arch: Arch) -> Result<Vec<Image>> {
        let rows = images::Entity::find()
            .filter(images::Column::AccountId.eq(account.uuid()))
            .filter(images::Column::Arch.eq(word::text(arch)))
            .filter(images::Column::State.eq(word::text(State::Ready)))
            .filter(images::Column::Desired.eq(word::text(Presence::Present)))
            .order_by_desc(images::Column::Id)
            .all(&self.db)
            .await;
        rows.map_err(reading)?.into_iter().map(image).collect()
    }

    /// The images of an account that were not cleared away, oldest first.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_account_images(&self, account: CloudAccountId) -> Result<Vec<Image>> {
        let rows = images::Entity::find()
            .filter(images::Column::AccountId.eq(account.uuid()))
            .filter(images::Column::DeletedAt.is_null())
            .order_by_asc(images::Column::Id)
            .all(&self.db)
            .await;
        rows.map_err(reading)?.into_iter().map(image).collect()
    }

    /// The image that is made of this machine; `None` when it is no such machine.
    ///
    /// # Errors
    /// The database's error.
    pub async fn find_bake(&self, machine: MachineId) -> Result<Option<Image>> {
        let of_machine = images::Entity::find().filter(images::Column::MachineId.eq(machine.uuid()));
        of_machine.one(&self.db).await.map_err(reading)?.map(image).transpose()
    }

    /// Whether a machine is being created with it, so that the same must be asked for again.
    ///
    /// # Errors
    /// The database's error.
    pub async fn is_image_asked_for(&self, id: ImageId) -> Result<bool> {
        let sql = "SELECT 1 FROM machines WHERE image_id = $1 AND state = 'creating' LIMIT 1";
        Ok(self.row("read images", sql, [id.uuid().into()]).await?.is_some())
    }
}

impl Tx {
    /// Records the wish for an image. Stale, with nothing written, when the id was used before.
    ///
    /// # Errors
    /// The database's error.
    pub async fn insert_image(&self, new: &NewImage) -> Result<Outcome> {
        let sql = "INSERT INTO images (id, team_id, account_id, arch, base_images) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT (id) DO NOTHING";
        let values = [
            new.id.uuid().into(),
            new.team.uuid().into(),
            new.account.uuid().into(),
            word::text(new.arch).into(),
            serde_json::Value::from(new.base_images.clone()).into(),
        ];
        Ok(Outcome::of(self.run("add an image", sql, values).await?))
    }

    /// Wishes an image away. Stale when that was wished before.
    ///
    /// # Errors
    /// The database's error.
    pub async fn wish_image_absent(&self, id: ImageId) -> Result<Outcome> {
        let sql = "UPDATE images SET desired = 'absent', generation = generation + 1 \
                   WHERE id = $1 AND desired = 'present'";
        Ok(Outcome::of(self.run("wish an image away", sql, [id.uuid().into()]).await?))
    }

    /// Wishes for the machine that an image is to be made of, with the agent's program of this SHA-256 in hexadecimal.
    /// An image is made of one machine: when it has one, or is not wanted any more, this is stale, and the transaction
    /// must not be committed.
    ///
    /// # Errors
    /// The database's error.
    pub async fn bake_image(&self, id: ImageId, machine: &NewMachine, agent_sha256: &str) -> Result<Outcome> {
        let _ = self.insert_machine(machine).await?;
        let sql = "UPDATE images SET machine_id = $2, agent_sha256 = $3 \
                   WHERE id = $1 AND machine_id IS NULL AND state = 'baking' AND desired = 'present'";
        let values = [id.uuid().into(), machine.id.uuid().into(), agent_sha256.into()];
        Ok(Outcome::of(self.run("bake an image", sql, values).await?))
    }

    /// Records that machines can boot an image in `locations` by the provider's name `reference`. Stale when it is not
    /// being made, or not wanted any more.
    ///
    /// # Errors
    /// The database's error.
    pub async fn image_ready(&self, id: ImageId, reference: &str, locations: &[String]) -> Result<Outcome> {
        let sql = "UPDATE images SET state = 'ready', reference = $2, locations = $3, ready_at = now() \
                   WHERE id = $1 AND state = 'baking' AND desired = 'present'";
        let values = [id.uuid().into(), reference.into(), serde_json::Value::from(locations.to_vec()).into()];
        Ok(Outcome::of(self.run("record an image", sql, values).await?))
    }

    /// Records why an image cannot be had, or not any more. Stale when it failed before, or is gone.
    ///
    /// # Errors
    /// The database's error.
    pub async fn fail_image(&self, id: ImageId, failure: &Failure) -> Result<Outcome> {
        let sql = "UPDATE images SET state = 'failed', failure = $2 WHERE id = $1 AND state IN ('baking', 'ready')";
        let values = [id.uuid().into(), word::encode("images", id, "failure", failure)?.into()];
        Ok(Outcome::of(self.run("give an image up", sql, values).await?))
    }

    /// Records that the provider has nothing of an image any more. Stale when the image is gone already,
    /// or is wanted and did not fail.
    ///
    /// # Errors
    /// The database's error.
    pub async fn image_cleared(&self, id: ImageId) -> Result<Outcome> {
        let sql = "UPDATE images SET deleted_at = coalesce(deleted_at, now()), \
                   state = CASE WHEN desired = 'absent' THEN 'gone' ELSE state END \
                   WHERE id = $1 AND (desired = 'absent' OR state = 'failed') AND state <> 'gone'";
        Ok(Outcome::of(self.run("record that an image is gone", sql, [id.uuid().into()]).await?))
    }

    /// Whether a machine may be created with an image: it is ready and wanted, or the machine's row names it already,
    /// so that the same must be asked for. Locked until the end of the transaction, so that nobody wishes it away
    /// meanwhile.
    pub(crate) async fn holds_image(&self, id: ImageId, machine: MachineId) -> Result<bool> {
        let sql = "SELECT 1 FROM images i WHERE i.id = $1 AND ((i.state = 'ready' AND i.desired = 'present') OR EXISTS \
                   (SELECT 1 FROM machines m WHERE m.id = $2 AND m.image_id = i.id AND m.state = 'creating')) \
                   FOR SHARE OF i";
        Ok(self.row("read images", sql, [id.uuid().into(), machine.uuid().into()]).await?.is_some())
    }
}

fn reading(source: sea_orm::DbErr) -> StoreError {
    StoreError::query("read images", source)
}

fn image(row: images::Model) -> Result<Image> {
    let id = ImageId::from_uuid(row.id);
    Ok(Image {
        id,
        team: TeamId::from_uuid(row.team_id),
        account: CloudAccountId::from_uuid(row.account_id),
        arch: word::parse("images", id, "arch", &row.arch)?,
        base_images: word::json("images", id, "base_images", Some(row.base_images))?.unwrap_or_default(),
        agent_sha256: row.agent_sha256,
        desired: word::parse("images", id, "desired", &row.desired)?,
        generation: row.generation,
        state: word::parse("images", id, "state", &row.state)?,
        machine: row.machine_id.map(MachineId::from_uuid),
        reference: row.reference,
        locations: word::json("images", id, "locations", Some(row.locations))?.unwrap_or_default(),
        failure: word::json("images", id, "failure", row.failure)?,
        created_at: row.created_at,
        ready_at: row.ready_at,
        deleted_at: row.deleted_at,
    })
}
