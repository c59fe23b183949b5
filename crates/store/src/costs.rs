//! What machines cost: one entry for each hour of each span that a provider bills. Written by the orchestrator with the
//! step that ends a span, and while it lasts by a pass; an hour is known by its machine and its begin, so that writing
//! it again changes nothing.

use chrono::{DateTime, NaiveDate, Utc};
use stagely_domain::cost::{Billing, Money, periods};
use stagely_domain::id::{CloudAccountId, EnvironmentId, ImageId, MachineId, ProjectId};
use stagely_domain::machine::Provider;
use stagely_domain::offering::Offering;
use std::collections::BTreeMap;
use uuid::Uuid;

use crate::statement::Row;
use crate::{Result, Scope, Store, Tx, word};

/// What a project cost on one day, in one currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayCost {
    /// The day in UTC on which the hours began.
    pub day: NaiveDate,
    /// The sum.
    pub cost: Money,
}

/// What every read here is doing.
const READING: &str = "read what machines cost";

impl Store {
    /// The machines of an account that its provider bills now.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_billed_machines(&self, account: CloudAccountId) -> Result<Vec<MachineId>> {
        let sql = "SELECT id FROM machines WHERE account_id = $1 AND billed_from IS NOT NULL ORDER BY id";
        let rows = self.rows(READING, sql, [account.uuid().into()]).await?;
        rows.iter().map(|row| row.get("id").map(MachineId::from_uuid)).collect()
    }

    /// What environments have cost so far, gone ones too, by currency. One that cost nothing has no entry.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_environment_costs(
        &self,
        scope: &Scope,
        environments: &[EnvironmentId],
    ) -> Result<BTreeMap<EnvironmentId, Vec<Money>>> {
        let ids: Vec<Uuid> = environments.iter().map(|id| id.uuid()).collect();
        let sql = "SELECT env_id, currency, sum(micros)::bigint AS micros FROM cost_entries \
                   WHERE ($1::uuid IS NULL OR team_id = $1) AND env_id = ANY($2) \
                   GROUP BY env_id, currency ORDER BY env_id, currency";
        let mut found: BTreeMap<EnvironmentId, Vec<Money>> = BTreeMap::new();
        for row in self.rows(READING, sql, [scope.team_uuid().into(), ids.into()]).await? {
            let environment = EnvironmentId::from_uuid(row.get("env_id")?);
            found.entry(environment).or_default().push(money(&row)?);
        }
        Ok(found)
    }

    /// What the machines that images were made of have cost, by currency. One that cost nothing has no entry.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_image_costs(&self, scope: &Scope, images: &[ImageId]) -> Result<BTreeMap<ImageId, Vec<Money>>> {
        let ids: Vec<Uuid> = images.iter().map(|id| id.uuid()).collect();
        let sql = "SELECT i.id, c.currency, sum(c.micros)::bigint AS micros FROM images i \
                   JOIN cost_entries c ON c.machine_id = i.machine_id \
                   WHERE ($1::uuid IS NULL OR i.team_id = $1) AND i.id = ANY($2) \
                   GROUP BY i.id, c.currency ORDER BY i.id, c.currency";
        let mut found: BTreeMap<ImageId, Vec<Money>> = BTreeMap::new();
        for row in self.rows(READING, sql, [scope.team_uuid().into(), ids.into()]).await? {
            let image = ImageId::from_uuid(row.get("id")?);
            found.entry(image).or_default().push(money(&row)?);
        }
        Ok(found)
    }

    /// What a project's machines cost, builders too, on the days from `first` to `last`: one line per day and currency.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_project_costs(
        &self,
        scope: &Scope,
        project: ProjectId,
        first: NaiveDate,
        last: NaiveDate,
    ) -> Result<Vec<DayCost>> {
        let sql = "SELECT (at AT TIME ZONE 'UTC')::date AS day, currency, sum(micros)::bigint AS micros \
                   FROM cost_entries WHERE ($1::uuid IS NULL OR team_id = $1) AND project_id = $2 \
                   AND at >= $3::date::timestamp AT TIME ZONE 'UTC' \
                   AND at < ($4::date + 1)::timestamp AT TIME ZONE 'UTC' \
                   GROUP BY 1, 2 ORDER BY 1, 2";
        let values = [scope.team_uuid().into(), project.uuid().into(), first.into(), last.into()];
        let rows = self.rows(READING, sql, values).await?;
        rows.iter().map(|row| Ok(DayCost { day: row.get("day")?, cost: money(row)? })).collect()
    }
}

impl Tx {
    /// Writes down what a machine has cost up to now, if its provider bills it now and it has a price.
    ///
    /// # Errors
    /// The database's error; [`StoreError::Corrupt`] for an offering that this version does not understand.
    pub async fn note_cost(&self, id: MachineId) -> Result<()> {
        // Locked, so that nobody ends the span meanwhile: an hour after its end would be counted.
        let sql = "SELECT m.team_id, m.project_id, m.env_id, m.billed_from, m.offering, c.kind, now() AS now, \
                     (SELECT max(to_at) FROM cost_entries e \
                      WHERE e.machine_id = m.id AND e.at >= m.billed_from) AS noted_to \
                   FROM machines m JOIN cloud_providers c ON c.id = m.account_id \
                   WHERE m.id = $1 AND m.billed_from IS NOT NULL FOR UPDATE OF m";
        let Some(row) = self.row(READING, sql, [id.uuid().into()]).await? else { return Ok(()) };
        let offering: Option<Offering> = word::json("machines", id, "offering", row.get("offering")?)?;
        let Some(price) = offering.and_then(|offering| offering.price) else { return Ok(()) };
        let kind: String = row.get("kind")?;
        let provider: Provider = word::parse("cloud_providers", id, "kind", &kind)?;
        let from: DateTime<Utc> = row.get("billed_from")?;
        let now: DateTime<Utc> = row.get("now")?;
        let noted_to: Option<DateTime<Utc>> = row.get("noted_to")?;
        let team: Uuid = row.get("team_id")?;
        // A machine that an image is made of has none: the team pays for it, and it shows with the image.
        let project: Option<Uuid> = row.get("project_id")?;
        let env: Option<Uuid> = row.get("env_id")?;
        let hours = periods(Billing::of(provider), price.micros_per_hour, from, now);
        for hour in hours.filter(|hour| noted_to.is_none_or(|noted| hour.to > noted)) {
            self.run(
                "note what a machine costs",
                "INSERT INTO cost_entries \
                 (id, at, team_id, project_id, env_id, machine_id, from_at, to_at, micros, currency) \
                 VALUES ($1, $2, $3, $4, $5, $6, $2, $7, $8, $9) \
                 ON CONFLICT (machine_id, at) DO UPDATE SET to_at = excluded.to_at, micros = excluded.micros \
                 WHERE excluded.to_at > cost_entries.to_at",
                [
                    Uuid::now_v7().into(),
                    hour.from.into(),
                    team.into(),
                    project.into(),
                    env.into(),
                    id.uuid().into(),
                    hour.to.into(),
                    i64::try_from(hour.micros).unwrap_or(i64::MAX).into(),
                    price.currency.clone().into(),
                ],
            )
            .await?;
        }
        Ok(())
    }

    /// The provider bills the machine from now on, if it does not already.
    pub(crate) async fn start_meter(&self, id: MachineId) -> Result<()> {
        let sql = "UPDATE machines SET billed_from = now() WHERE id = $1 AND billed_from IS NULL";
        self.run("begin to count what a machine costs", sql, [id.uuid().into()]).await.map(drop)
    }

    /// The provider does not bill the machine any more.
    pub(crate) async fn stop_meter(&self, id: MachineId) -> Result<()> {
        self.note_cost(id).await?;
        let sql = "UPDATE machines SET billed_from = NULL WHERE id = $1";
        self.run("end counting what a machine costs", sql, [id.uuid().into()]).await.map(drop)
    }
}

fn money(row: &Row) -> Result<Money> {
    let micros: i64 = row.get("micros")?;
    let currency = row.get("currency")?;
    Ok(Money { micros: u64::try_from(micros).unwrap_or(0), currency })
}
