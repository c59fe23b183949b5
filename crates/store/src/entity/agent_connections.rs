//! A row of `agent_connections`.

use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::{
    ActiveModelBehavior, DeriveEntityModel, DerivePrimaryKey, DeriveRelation, EntityTrait, EnumIter, Json,
    PrimaryKeyTrait, Uuid,
};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "agent_connections")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub machine_id: Uuid,
    pub enrol_token_hash: Vec<u8>,
    pub enrol_deadline: DateTime<Utc>,
    pub enrolled_at: Option<DateTime<Utc>>,
    pub public_key: Option<Vec<u8>>,
    pub ingress_cert_sha256: Option<Vec<u8>>,
    pub conn_epoch: i64,
    pub hub_id: Option<String>,
    pub connected_at: Option<DateTime<Utc>>,
    pub last_seen_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
    pub suspect_at: Option<DateTime<Utc>>,
    pub desired_generation: i64,
    pub desired_sealed: Option<Vec<u8>>,
    pub observed_generation: i64,
    pub observed: Option<Json>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
