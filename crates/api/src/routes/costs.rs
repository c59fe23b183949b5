//! What machines cost, as their providers' prices say.

use axum::extract::State;
use chrono::{Datelike, NaiveDate, TimeDelta};
use serde::{Deserialize, Serialize};
use stagely_domain::cost::Money;
use stagely_domain::id::ProjectId;

use crate::App;
use crate::auth::permission::Viewer;
use crate::error::{ApiError, Result};
use crate::extract::{Path, Query};
use crate::json::Page;

/// The most days of one answer.
const MAX_DAYS: i64 = 366;
/// How many days before the last one there are when the asker does not say.
const DEFAULT_DAYS: TimeDelta = TimeDelta::days(29);

/// An amount in one currency.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Cost {
    /// Millionths of the currency's unit, net.
    pub micros: u64,
    /// ISO 4217.
    pub currency: String,
}

impl From<Money> for Cost {
    fn from(money: Money) -> Self {
        Self { micros: money.micros, currency: money.currency }
    }
}

/// What a project cost on one day, in one currency.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct DayCost {
    /// The day in UTC: `2026-11-24`. An hour that is billed belongs to the day on which it begins.
    #[schemars(with = "String")]
    pub day: NaiveDate,
    /// Millionths of the currency's unit, net.
    pub micros: u64,
    /// ISO 4217.
    pub currency: String,
}

/// Which days.
#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CostsQuery {
    /// The first day in UTC, `2026-11-01`; 29 days before `to` by default.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub from: Option<NaiveDate>,
    /// The last day in UTC; today by default.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub to: Option<NaiveDate>,
}

/// `GET /api/v1/projects/{id}/costs`
pub async fn of_project(
    Viewer(caller): Viewer,
    State(app): State<App>,
    Path(id): Path<ProjectId>,
    Query(query): Query<CostsQuery>,
) -> Result<axum::Json<Page<DayCost>>> {
    let (first, last) = days(&query, app.clock.now().date_naive())?;
    let project = app.store.get_project(caller.scope(), id).await?;
    let lines = app.store.list_project_costs(caller.scope(), project.id, first, last).await?;
    let show = |line: stagely_store::DayCost| DayCost {
        day: line.day,
        micros: line.cost.micros,
        currency: line.cost.currency,
    };
    Ok(axum::Json(Page { items: lines.into_iter().map(show).collect(), next_cursor: None }))
}

/// The first and the last day that are asked for.
fn days(query: &CostsQuery, today: NaiveDate) -> Result<(NaiveDate, NaiveDate)> {
    let last = query.to.unwrap_or(today);
    let first = query.from.or(last.checked_sub_signed(DEFAULT_DAYS)).unwrap_or(last);
    // The database's calendar is shorter than ours.
    let is_known = |day: NaiveDate| (1970..=9999).contains(&day.year());
    if is_known(first) && is_known(last) && first <= last && (last - first).num_days() < MAX_DAYS {
        return Ok((first, last));
    }
    let detail = format!(
        "`from` and `to` are days from 1970 to 9999, `from` is not after `to`, and at most {MAX_DAYS} days may be asked for"
    );
    Err(ApiError::Invalid { code: "invalid_query", detail })
}
