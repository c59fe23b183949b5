//! Changes to cloud accounts. A change locks the account's row, and whoever is about to make a machine in it holds the
//! row as it is: so no machine is made by credentials that were just replaced, nor in an account that was just deleted.

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, SqlErr};
use stagely_domain::id::CloudAccountId;

use crate::entity::cloud_providers;
use crate::tenants::CloudAccount;
use crate::{Outcome, Result, Scope, Store, StoreError, Tx, word};

/// What would miss an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uses {
    /// Machines that are not gone.
    pub machines: i64,
    /// Those of them that may exist at the provider.
    pub made: i64,
    /// Golden images that were not cleared away.
    pub images: i64,
    /// Those of them that the provider may have.
    pub captured: i64,
    /// The repositories of projects whose machines are made in it.
    pub projects: Vec<String>,
}

impl Store {
    /// Whether there is such an account that is not deleted.
    ///
    /// # Errors
    /// The database's error.
    pub async fn has_cloud_account(&self, id: CloudAccountId) -> Result<bool> {
        let found = cloud_providers::Entity::find_by_id(id.uuid()).filter(cloud_providers::Column::DeletedAt.is_null());
        Ok(found.one(&self.db).await.map_err(|source| StoreError::query("read an account", source))?.is_some())
    }
}

impl Tx {
    /// Locks an account until the end of the transaction: nobody begins to make a machine in it meanwhile.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none, it is deleted, or it is another team's.
    pub async fn lock_cloud_account(&self, scope: &Scope, id: CloudAccountId) -> Result<()> {
        let sql = "SELECT 1 FROM cloud_providers WHERE id = $1 AND ($2::uuid IS NULL OR team_id = $2) \
                   AND deleted_at IS NULL FOR NO KEY UPDATE";
        let values = [id.uuid().into(), scope.team_uuid().into()];
        match self.run("lock a cloud account", sql, values).await? {
            0 => Err(StoreError::NotFound("cloud account")),
            _ => Ok(()),
        }
    }

    /// Holds an account as it was read until the end of the transaction; stale when it was changed or deleted since.
    ///
    /// # Errors
    /// The database's error.
    pub async fn hold_cloud_account(&self, id: CloudAccountId, generation: i64) -> Result<Outcome> {
        let sql = "SELECT 1 FROM cloud_providers WHERE id = $1 AND generation = $2 AND deleted_at IS NULL FOR SHARE";
        Ok(Outcome::of(self.run("hold a cloud account", sql, [id.uuid().into(), generation.into()]).await?))
    }

    /// How many machines and images use an account, and which projects do.
    ///
    /// # Errors
    /// The database's error.
    pub async fn cloud_account_uses(&self, id: CloudAccountId) -> Result<Uses> {
        let sql = "SELECT (SELECT count(*) FROM machines WHERE account_id = $1 AND gone_at IS NULL) AS machines, \
                   (SELECT count(*) FROM machines \
                    WHERE account_id = $1 AND gone_at IS NULL AND state <> 'intended') AS made, \
                   (SELECT count(*) FROM images WHERE account_id = $1 AND deleted_at IS NULL) AS images, \
                   (SELECT count(*) FROM images i LEFT JOIN machines m ON m.id = i.machine_id \
                    WHERE i.account_id = $1 AND i.deleted_at IS NULL \
                    AND (i.reference IS NOT NULL OR m.provider_id IS NOT NULL)) AS captured, \
                   ARRAY(SELECT repo FROM projects \
                    WHERE cloud_provider_id = $1 AND deleted_at IS NULL ORDER BY id) AS projects";
        let found = self.row("count what uses an account", sql, [id.uuid().into()]).await?;
        let Some(row) = found else { return Ok(Uses::default()) };
        Ok(Uses {
            machines: row.get("machines")?,
            made: row.get("made")?,
            images: row.get("images")?,
            captured: row.get("captured")?,
            projects: row.get("projects")?,
        })
    }

    /// Where the provider may have machines and golden images of an account, in the provider's names; `None` stands for
    /// a place that is not known.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_account_places(&self, id: CloudAccountId) -> Result<Vec<Option<String>>> {
        // An id may name the region before a slash, and is right where the offering is not: after a lost answer a
        // machine may be found elsewhere. An image is where its machine was, also one that failed and is still to be
        // cleared away.
        let sql = "SELECT CASE WHEN m.provider_id LIKE '%/%' THEN split_part(m.provider_id, '/', 1) \
                   ELSE m.offering->>'location' END AS place \
                   FROM machines m WHERE m.account_id = $1 AND m.state <> 'intended' \
                   AND (m.gone_at IS NULL OR (m.provider_id IS NOT NULL AND EXISTS \
                   (SELECT 1 FROM images i WHERE i.machine_id = m.id AND i.deleted_at IS NULL))) \
                   UNION SELECT jsonb_array_elements_text(locations) FROM images \
                   WHERE account_id = $1 AND deleted_at IS NULL ORDER BY place";
        let rows = self.rows("list where an account has something", sql, [id.uuid().into()]).await?;
        rows.iter().map(|row| row.get("place")).collect()
    }

    /// Writes name, settings and credentials over those that were read at `account.generation`; stale when somebody
    /// else changed them since.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when the team has another account of that name.
    pub async fn change_cloud_account(&self, account: &CloudAccount) -> Result<Outcome> {
        let settings = word::encode("cloud_providers", account.id, "settings", &account.settings)?;
        let sql = "UPDATE cloud_providers SET name = $3, settings = $4, credentials_sealed = $5, verified_at = now(), \
                   updated_at = now(), generation = generation + 1 \
                   WHERE id = $1 AND generation = $2 AND deleted_at IS NULL";
        let values = [
            account.id.uuid().into(),
            account.generation.into(),
            account.name.clone().into(),
            settings.into(),
            account.credentials_sealed.clone().into(),
        ];
        match self.run("change a cloud account", sql, values).await {
            Err(StoreError::Query { source, .. })
                if matches!(source.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) =>
            {
                Err(StoreError::Exists("cloud account"))
            }
            changed => changed.map(Outcome::of),
        }
    }

    /// Deletes an account and wipes its credentials; stale while machines, images or projects use it.
    ///
    /// # Errors
    /// The database's error.
    pub async fn delete_cloud_account(&self, scope: &Scope, id: CloudAccountId) -> Result<Outcome> {
        let sql = "UPDATE cloud_providers SET deleted_at = now(), updated_at = now(), credentials_sealed = NULL, \
                   generation = generation + 1 \
                   WHERE id = $1 AND ($2::uuid IS NULL OR team_id = $2) AND deleted_at IS NULL \
                   AND NOT EXISTS (SELECT 1 FROM machines WHERE account_id = $1 AND gone_at IS NULL) \
                   AND NOT EXISTS (SELECT 1 FROM images WHERE account_id = $1 AND deleted_at IS NULL) \
                   AND NOT EXISTS (SELECT 1 FROM projects WHERE cloud_provider_id = $1 AND deleted_at IS NULL)";
        let values = [id.uuid().into(), scope.team_uuid().into()];
        Ok(Outcome::of(self.run("delete a cloud account", sql, values).await?))
    }

    /// Makes all machines of an account due, also those that were given up as long as nothing changed.
    ///
    /// # Errors
    /// The database's error.
    pub async fn wake_account_machines(&self, id: CloudAccountId) -> Result<()> {
        let sql = "WITH woken AS (INSERT INTO work (kind, key, run_after) SELECT 'machine', id, now() FROM machines \
                   WHERE account_id = $1 AND gone_at IS NULL ORDER BY id ON CONFLICT (kind, key) DO UPDATE SET \
                   wake_seq = work.wake_seq + 1, run_after = least(work.run_after, excluded.run_after), \
                   parked = false RETURNING kind) SELECT pg_notify('work_' || kind, '') FROM woken GROUP BY kind";
        self.run("wake an account's machines", sql, [id.uuid().into()]).await.map(drop)
    }
}
