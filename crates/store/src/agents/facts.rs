//! Facts that a connection brings up, and changes that a hub must take down to its connections.

use serde_json::json;
use stagely_domain::id::MachineId;
use uuid::Uuid;

use super::Observed;
use crate::statement::Row;
use crate::work::kind;
use crate::{Outcome, Result, Store, Tx, word};

/// A connection that a hub holds, and what its agent was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentWatch {
    /// The machine.
    pub machine: MachineId,
    /// The connection's number.
    pub conn_epoch: u64,
    /// The generation that was sent.
    pub generation: u64,
}

/// A connection to which something must be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentChange {
    /// The machine.
    pub machine: MachineId,
    /// The newest connection's number.
    pub conn_epoch: u64,
    /// The newest wish's generation.
    pub generation: u64,
    /// Whether the machine is to exist and its credential holds.
    pub wanted: bool,
}

impl Store {
    /// Those of `held` for which a newer wish, a newer connection or an end is recorded.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_agent_changes(&self, held: &[AgentWatch]) -> Result<Vec<AgentChange>> {
        let watches: Vec<_> = held
            .iter()
            .map(|watch| json!({"m": watch.machine.uuid(), "e": watch.conn_epoch, "g": watch.generation}))
            .collect();
        let sql = "SELECT a.machine_id, a.conn_epoch, a.desired_generation, \
                   (a.revoked_at IS NULL AND m.desired = 'present') AS wanted \
                   FROM jsonb_to_recordset($1) AS held(m uuid, e bigint, g bigint) \
                   JOIN agent_connections a ON a.machine_id = held.m JOIN machines m ON m.id = held.m \
                   WHERE a.conn_epoch > held.e OR a.desired_generation > held.g OR a.revoked_at IS NOT NULL \
                   OR m.desired <> 'present'";
        let rows = self.rows("look for changes of agents", sql, [serde_json::Value::Array(watches).into()]).await?;
        rows.iter().map(change).collect()
    }

    /// Renews the lease of each connection in `held` that is still the newest: one statement for many.
    ///
    /// # Errors
    /// The database's error.
    pub async fn touch_agents(&self, held: &[(MachineId, u64)]) -> Result<()> {
        let watches: Vec<_> = held.iter().map(|(machine, epoch)| json!({"m": machine.uuid(), "e": epoch})).collect();
        let sql = "UPDATE agent_connections a SET last_seen_at = now() \
                   FROM jsonb_to_recordset($1) AS held(m uuid, e bigint) \
                   WHERE a.machine_id = held.m AND a.conn_epoch = held.e AND a.revoked_at IS NULL";
        self.run("renew agents' leases", sql, [serde_json::Value::Array(watches).into()]).await.map(drop)
    }
}

impl Tx {
    /// Locks out newer connections until the end of this transaction: whatever is written after it is written
    /// by the newest connection, or not at all. Stale when a newer connection exists or the credential is ended.
    ///
    /// # Errors
    /// The database's error.
    pub async fn hold_connection(&self, machine: MachineId, conn_epoch: u64) -> Result<Outcome> {
        let sql = "SELECT 1 FROM agent_connections WHERE machine_id = $1 AND conn_epoch = $2 AND revoked_at IS NULL \
                   FOR NO KEY UPDATE";
        let values = [machine.uuid().into(), signed(conn_epoch).into()];
        Ok(Outcome::of(self.run("check an agent's connection", sql, values).await?))
    }

    /// Stores a report and wakes whoever owns the machine: its environment, or the fleet of its project. Stale when a
    /// newer connection exists or the credential is ended.
    ///
    /// # Errors
    /// The database's error.
    pub async fn note_observed(&self, machine: MachineId, conn_epoch: u64, observed: &Observed) -> Result<Outcome> {
        let document = word::encode("agent_connections", machine, "observed", observed)?;
        let sql = "UPDATE agent_connections a SET observed = $3, observed_generation = $4, last_seen_at = now() \
                   FROM machines m WHERE a.machine_id = $1 AND a.conn_epoch = $2 AND a.revoked_at IS NULL \
                   AND m.id = a.machine_id RETURNING m.role, m.env_id, m.project_id";
        let values =
            [machine.uuid().into(), signed(conn_epoch).into(), document.into(), signed(observed.generation).into()];
        let Some(row) = self.row("store an agent's report", sql, values).await? else { return Ok(Outcome::Stale) };
        let role: String = row.get("role")?;
        let project: Uuid = row.get("project_id")?;
        match row.get::<Option<Uuid>>("env_id")? {
            Some(env) if role == "preview" => self.wake(kind::ENVIRONMENT, env).await?,
            _ => self.wake(kind::FLEET, project).await?,
        }
        Ok(Outcome::Written)
    }
}

fn change(row: &Row) -> Result<AgentChange> {
    Ok(AgentChange {
        machine: MachineId::from_uuid(row.get("machine_id")?),
        conn_epoch: row.get::<i64>("conn_epoch")?.unsigned_abs(),
        generation: row.get::<i64>("desired_generation")?.unsigned_abs(),
        wanted: row.get("wanted")?,
    })
}

/// What no column can hold matches no row.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(-1)
}
