//! A row of `inbox`.

use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::{
    ActiveModelBehavior, DeriveEntityModel, DerivePrimaryKey, DeriveRelation, EntityTrait, EnumIter, PrimaryKeyTrait,
    Uuid,
};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "inbox")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub source: String,
    pub delivery_guid: Uuid,
    pub event: String,
    pub action: Option<String>,
    pub repo: Option<String>,
    pub pr_number: Option<i64>,
    pub body_sha256: Vec<u8>,
    pub body: Vec<u8>,
    pub received_at: DateTime<Utc>,
    pub decision: Option<String>,
    pub reason: Option<String>,
    pub applied_at: Option<DateTime<Utc>>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
