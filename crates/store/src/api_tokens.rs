//! Bearer tokens of the REST API. Only a SHA-256 of each is stored: they are 256 random bits, so a slow hash
//! would protect nothing.

use chrono::{DateTime, Utc};
use sea_orm::{ActiveModelTrait, ActiveValue, ColumnTrait, EntityTrait, QueryFilter};
use stagely_domain::id::{ApiTokenId, TeamId};
use stagely_domain::role::Role;

use crate::entity::api_tokens;
use crate::{Result, Scope, Store, StoreError, Tx};

/// A token to be stored.
#[derive(Debug, Clone)]
pub struct NewApiToken {
    /// Its id, chosen by the caller.
    pub id: ApiTokenId,
    /// The team it acts for.
    pub team: TeamId,
    /// What the owner calls it.
    pub name: String,
    /// SHA-256 of the whole token text.
    pub hash: [u8; 32],
    /// What it may do.
    pub role: Role,
    /// When it ends; `None` for never.
    pub expires_at: Option<DateTime<Utc>>,
}

/// The proof that a token was looked at and found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorized {
    /// Whose rows it reaches.
    pub scope: Scope,
    /// The team behind the scope.
    pub team: TeamId,
    /// What it may do there.
    pub role: Role,
    /// Which token it is.
    pub token: ApiTokenId,
    /// Whether its last noted use is more than a minute ago: call [`Store::touch_token`].
    pub touch_due: bool,
}

impl Store {
    /// The rights of the token with this hash; `None` when it is unknown, revoked or expired, or its team is
    /// deleted. One statement, so a revocation counts from the next request on.
    ///
    /// # Errors
    /// The database's error, or [`StoreError::Corrupt`] for a role that this version does not know.
    pub async fn authorize_token(&self, hash: &[u8; 32]) -> Result<Option<Authorized>> {
        let sql = "SELECT t.id, t.team_id, t.role, \
                   coalesce(t.last_used_at < now() - interval '1 minute', true) AS touch_due \
                   FROM api_tokens t JOIN teams ON teams.id = t.team_id \
                   WHERE t.token_hash = $1 AND t.revoked_at IS NULL AND teams.deleted_at IS NULL \
                   AND (t.expires_at IS NULL OR t.expires_at > now())";
        let found = self.row("look up an API token", sql, [hash.to_vec().into()]).await?;
        let Some(row) = found else { return Ok(None) };
        let token = ApiTokenId::from_uuid(row.get("id")?);
        let team = TeamId::from_uuid(row.get("team_id")?);
        let role: String = row.get("role")?;
        let role = role.parse().map_err(|_| StoreError::Corrupt {
            table: "api_tokens",
            id: token.to_string(),
            column: "role",
        })?;
        let touch_due = row.get("touch_due")?;
        Ok(Some(Authorized { scope: Scope::team(team), team, role, token, touch_due }))
    }

    /// Notes that a token was used, at most once a minute per token.
    ///
    /// # Errors
    /// The database's error.
    pub async fn touch_token(&self, token: ApiTokenId) -> Result<()> {
        let sql = "UPDATE api_tokens SET last_used_at = now() WHERE id = $1 \
                   AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')";
        self.run("note the use of an API token", sql, [token.uuid().into()]).await.map(drop)
    }
}

impl Tx {
    /// Stores a token.
    ///
    /// # Errors
    /// The database's error.
    pub async fn insert_api_token(&self, new: &NewApiToken) -> Result<()> {
        api_tokens::ActiveModel {
            id: ActiveValue::Set(new.id.uuid()),
            team_id: ActiveValue::Set(new.team.uuid()),
            name: ActiveValue::Set(new.name.clone()),
            token_hash: ActiveValue::Set(new.hash.to_vec()),
            role: ActiveValue::Set(new.role.as_str().to_owned()),
            expires_at: ActiveValue::Set(new.expires_at),
            ..Default::default()
        }
        .insert(&self.inner)
        .await
        .map_err(|source| StoreError::query("store an API token", source))?;
        Ok(())
    }

    /// Ends a token of the team. Revoking it again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the team has no such token.
    pub async fn revoke_api_token(&self, scope: &Scope, token: ApiTokenId) -> Result<()> {
        let doing = "revoke an API token";
        let row = api_tokens::Entity::find()
            .filter(api_tokens::Column::Id.eq(token.uuid()))
            .one(&self.inner)
            .await
            .map_err(|source| StoreError::query(doing, source))?
            .filter(|row| scope.covers(TeamId::from_uuid(row.team_id)))
            .ok_or(StoreError::NotFound("API token"))?;
        let sql = "UPDATE api_tokens SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1";
        self.run(doing, sql, [row.id.into()]).await.map(drop)
    }
}
