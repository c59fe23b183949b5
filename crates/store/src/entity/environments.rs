//! A row of `environments`.

use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::{
    ActiveModelBehavior, DeriveEntityModel, DerivePrimaryKey, DeriveRelation, EntityTrait, EnumIter, PrimaryKeyTrait,
    Uuid,
};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "environments")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub team_id: Uuid,
    pub project_id: Uuid,
    pub pr_number: i64,
    pub title: String,
    pub branch: String,
    pub author: String,
    pub pr_url: String,
    pub preview_hash: String,
    pub desired: String,
    pub desired_power: String,
    pub desired_sha: String,
    pub generation: i64,
    pub observed_generation: i64,
    pub state: String,
    pub reason: Option<String>,
    pub pinned: bool,
    pub ttl_secs: i64,
    pub expires_at: DateTime<Utc>,
    pub sleep_after_secs: Option<i64>,
    pub last_activity_at: DateTime<Utc>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub gone_at: Option<DateTime<Utc>>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
