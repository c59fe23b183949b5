//! Routes: the truth of which Redis holds a copy. Updated by the orchestrator.

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use stagely_domain::id::{EnvironmentId, TeamId};
use stagely_domain::route::{Entry, State};

use crate::entity::routes;
use crate::{Result, Store, StoreError, Tx, word};

impl Store {
    /// The routes of an environment, also removed ones.
    ///
    /// # Errors
    /// The database's error, or [`StoreError::Corrupt`].
    pub async fn list_environment_routes(&self, env: EnvironmentId) -> Result<Vec<Entry>> {
        let rows =
            routes::Entity::find().filter(routes::Column::EnvId.eq(env.uuid())).all(&self.db).await.map_err(reading)?;
        rows.into_iter().map(entry).collect()
    }

    /// Every route that is served or was removed within the last day, and the version up to which that is all.
    ///
    /// # Errors
    /// The database's error, or [`StoreError::Corrupt`].
    pub async fn list_routes(&self) -> Result<(Vec<Entry>, u64)> {
        // The version is read first: a route written in between is in the list with a higher one.
        let row = self.row("read routes", "SELECT last_value FROM route_version", []).await?;
        let version: i64 = row.map_or(Ok(0), |row| row.get("last_value"))?;
        let recent = Expr::cust("(removed_at IS NULL OR removed_at > now() - interval '1 day')");
        let rows = routes::Entity::find().filter(recent).all(&self.db).await.map_err(reading)?;
        let entries = rows.into_iter().map(entry).collect::<Result<_>>()?;
        Ok((entries, u64::try_from(version).unwrap_or(0)))
    }
}

impl Tx {
    /// Writes a host's entry for a generation and gives it the next version. An older generation writes nothing.
    ///
    /// # Errors
    /// The database's error.
    pub async fn write_route(&self, team: TeamId, generation: i64, entry: &Entry) -> Result<()> {
        let json = word::encode("routes", &entry.host, "entry", entry)?;
        self.run(
            "write a route",
            "INSERT INTO routes (host, team_id, env_id, generation, version, state, entry, removed_at) \
             VALUES ($1, $2, $3, $4, nextval('route_version'), $5, $6, CASE WHEN $5 = 'gone' THEN now() END) \
             ON CONFLICT (host) DO UPDATE SET generation = $4, version = nextval('route_version'), \
             state = $5, entry = $6, updated_at = now(), \
             removed_at = CASE WHEN $5 = 'gone' THEN coalesce(routes.removed_at, now()) END \
             WHERE routes.env_id = $3 AND routes.generation <= $4 AND (routes.state, routes.entry - 'version') \
             IS DISTINCT FROM ($5, $6::jsonb - 'version')",
            [
                entry.host.clone().into(),
                team.uuid().into(),
                entry.environment.uuid().into(),
                generation.into(),
                word::text(entry.state).into(),
                json.into(),
            ],
        )
        .await?;
        Ok(())
    }
}

fn reading(source: sea_orm::DbErr) -> StoreError {
    StoreError::query("read routes", source)
}

fn entry(row: routes::Model) -> Result<Entry> {
    let state: State = word::parse("routes", &row.host, "state", &row.state)?;
    let mut entry: Entry = word::json("routes", &row.host, "entry", Some(row.entry))?.ok_or(StoreError::Corrupt {
        table: "routes",
        id: row.host,
        column: "entry",
    })?;
    entry.version = u64::try_from(row.version).unwrap_or(0);
    entry.state = state;
    Ok(entry)
}
