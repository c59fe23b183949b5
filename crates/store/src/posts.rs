//! What the git host is to show: one comment per pull request, a check and a deployment per commit. The wish is
//! written with the change it tells of; a reconciler brings the git host there. Updated by the orchestrator.

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use serde::{Deserialize, Serialize};
use stagely_domain::id::{EnvironmentId, PrPostId, TeamId};

use crate::entity::pr_posts;
use crate::{Result, Store, StoreError, Tx, word};

/// What kind of post.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The one comment of the pull request, edited in place; its next environment takes it over.
    Comment,
    /// A check run of a commit.
    Check,
    /// A deployment of a commit.
    Deployment,
}

/// One post.
#[derive(Debug, Clone, PartialEq)]
pub struct Post {
    /// Its id.
    pub id: PrPostId,
    /// The environment.
    pub environment: EnvironmentId,
    /// What it is at the git host.
    pub kind: Kind,
    /// The commit; empty for the comment.
    pub sha: String,
    /// What it is to show; the orchestrator's own form.
    pub wanted: serde_json::Value,
    /// Rises with every change of `wanted`.
    pub wanted_seq: i64,
    /// The `wanted_seq` that the git host shows.
    pub posted_seq: i64,
    /// The git host's id.
    pub remote_id: Option<String>,
}

impl Store {
    /// One post.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or the database's error.
    pub async fn get_post(&self, id: PrPostId) -> Result<Post> {
        let found = pr_posts::Entity::find_by_id(id.uuid()).one(&self.db).await.map_err(reading)?;
        found.map(post).transpose()?.ok_or(StoreError::NotFound("post"))
    }

    /// The posts of an environment.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_posts(&self, env: EnvironmentId) -> Result<Vec<Post>> {
        let rows = pr_posts::Entity::find()
            .filter(pr_posts::Column::EnvId.eq(env.uuid()))
            .all(&self.db)
            .await
            .map_err(reading)?;
        rows.into_iter().map(post).collect()
    }
}

impl Tx {
    /// Writes what a post is to show; `None` when it shows that already. The caller wakes the returned post.
    ///
    /// # Errors
    /// The database's error.
    pub async fn want_post(
        &self,
        team: TeamId,
        env: EnvironmentId,
        kind: Kind,
        sha: &str,
        wanted: &serde_json::Value,
    ) -> Result<Option<PrPostId>> {
        let sql = "INSERT INTO pr_posts (id, team_id, env_id, kind, sha, wanted) VALUES ($1, $2, $3, $4, $5, $6) \
                   ON CONFLICT (env_id, kind, sha) DO UPDATE SET wanted = $6, wanted_seq = pr_posts.wanted_seq + 1, \
                   updated_at = now() WHERE pr_posts.wanted IS DISTINCT FROM $6 RETURNING id";
        let values = [
            PrPostId::generate().uuid().into(),
            team.uuid().into(),
            env.uuid().into(),
            word::text(kind).into(),
            sha.into(),
            wanted.clone().into(),
        ];
        let changed = self.row("write a post's wish", sql, values).await?;
        changed.map(|row| row.get("id").map(PrPostId::from_uuid)).transpose()
    }

    /// Records what the git host shows now, or with no id that it need not show this any more.
    ///
    /// # Errors
    /// The database's error.
    pub async fn posted(&self, id: PrPostId, seq: i64, remote_id: Option<&str>) -> Result<()> {
        let sql = "UPDATE pr_posts SET posted_seq = greatest(posted_seq, $2), remote_id = coalesce($3, remote_id), \
                   last_error = NULL WHERE id = $1";
        self.run("record a post", sql, [id.uuid().into(), seq.into(), remote_id.into()]).await?;
        Ok(())
    }
}

fn reading(source: sea_orm::DbErr) -> StoreError {
    StoreError::query("read posts", source)
}

fn post(row: pr_posts::Model) -> Result<Post> {
    let id = PrPostId::from_uuid(row.id);
    Ok(Post {
        id,
        environment: EnvironmentId::from_uuid(row.env_id),
        kind: word::parse("pr_posts", id, "kind", &row.kind)?,
        sha: row.sha,
        wanted: row.wanted,
        wanted_seq: row.wanted_seq,
        posted_seq: row.posted_seq,
        remote_id: row.remote_id,
    })
}
