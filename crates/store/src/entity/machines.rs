//! A row of `machines`.

use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::{
    ActiveModelBehavior, DeriveEntityModel, DerivePrimaryKey, DeriveRelation, EntityTrait, EnumIter, Json,
    PrimaryKeyTrait, Uuid,
};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "machines")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub team_id: Uuid,
    pub project_id: Option<Uuid>,
    pub env_id: Option<Uuid>,
    pub account_id: Uuid,
    pub role: String,
    pub size: String,
    pub arch: String,
    pub desired: String,
    pub desired_power: String,
    pub state: String,
    pub provider_id: Option<String>,
    pub address: Option<String>,
    pub failure: Option<Json>,
    pub create_deadline: Option<DateTime<Utc>>,
    pub expires_at: DateTime<Utc>,
    pub lease_until: Option<DateTime<Utc>>,
    pub intended_at: DateTime<Utc>,
    pub placed_at: Option<DateTime<Utc>>,
    pub enrolled_at: Option<DateTime<Utc>>,
    pub drop_at: Option<DateTime<Utc>>,
    pub gone_at: Option<DateTime<Utc>>,
    pub offering: Option<Json>,
    pub tried: Json,
    pub refusals: i32,
    pub locations: Json,
    pub image_id: Option<Uuid>,
    pub image: Option<String>,
    pub sleep_asked_at: Option<DateTime<Utc>>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
