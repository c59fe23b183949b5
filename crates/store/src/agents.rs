//! What the hub knows about the agent of each machine: its key, its connection, the wish that it was given and
//! the facts that it reports. Written by the agent hub alone; every statement is keyed by one machine.
//!
//! Invariant: `conn_epoch` rises with every accepted connection, and whatever a connection writes names the
//! epoch that it was given, so an older connection cannot write once a newer one is accepted.

mod enrolment;
mod facts;
mod observed;

pub use enrolment::{Enrolled, Prepared};
pub use facts::{AgentChange, AgentWatch};
pub use observed::{BuildFact, Observed, Phase, Service, Step};

use chrono::{DateTime, TimeDelta, Utc};
use stagely_domain::id::{EnvironmentId, MachineId, ProjectId, TeamId};
use stagely_domain::machine::Role;

use crate::statement::Row;
use crate::{Outcome, Result, Store, StoreError, Tx, word};

/// The agent of one machine, with what of the machine's own row decides about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// The machine it speaks for.
    pub machine: MachineId,
    /// The team that owns the machine.
    pub team: TeamId,
    /// The project that the machine serves.
    pub project: ProjectId,
    /// The environment that the machine runs; `None` for builders.
    pub environment: Option<EnvironmentId>,
    /// What the machine is for.
    pub role: Role,
    /// Whether the machine is to exist.
    pub wanted: bool,
    /// Until when a credential that ran out is taken.
    pub return_until: Option<DateTime<Utc>>,
    /// When it exchanged its token.
    pub enrolled_at: Option<DateTime<Utc>>,
    /// The uncompressed P-256 point of its key.
    pub public_key: Option<Vec<u8>>,
    /// The newest accepted connection's number.
    pub conn_epoch: u64,
    /// The replica that holds the connection.
    pub hub_id: Option<String>,
    /// When the newest connection was accepted.
    pub connected_at: Option<DateTime<Utc>>,
    /// When it was last heard of, give or take ten seconds: this renews the machine's lease.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// When its credential was ended.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When a second key turned up with its token: somebody else has read the machine's user data.
    pub suspect_at: Option<DateTime<Utc>>,
    /// The newest wish's generation; 0 for none.
    pub desired_generation: u64,
    /// The generation of the newest report.
    pub observed_generation: u64,
    /// The newest report.
    pub observed: Option<Observed>,
}

/// The sealed wish of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedWish {
    /// Its generation.
    pub generation: u64,
    /// The encoded `Desired`, sealed.
    pub sealed: Vec<u8>,
}

/// Tells every hub that a wish, a connection or an end is new.
const NOTIFY_HUBS: &str = "NOTIFY agent_desired";

impl Store {
    /// The agent of a machine; `None` before its enrolment is prepared.
    ///
    /// # Errors
    /// The database's error, or [`StoreError::Corrupt`] for a report of an unknown shape.
    pub async fn find_agent(&self, machine: MachineId) -> Result<Option<Agent>> {
        let sql = "SELECT a.*, m.team_id, m.project_id, m.env_id, m.role, m.desired FROM agent_connections a \
                   JOIN machines m ON m.id = a.machine_id WHERE a.machine_id = $1";
        let found = self.row("read an agent", sql, [machine.uuid().into()]).await?;
        found.map(|row| agent(&row, machine)).transpose()
    }

    /// Whether another agent in the machine's cloud account has been connected for that long, and is still heard: the
    /// hub was there, and could be reached from there.
    ///
    /// # Errors
    /// The database's error.
    pub async fn hears_others(&self, machine: MachineId, long: TimeDelta) -> Result<bool> {
        let sql = "SELECT 1 FROM agent_connections a JOIN machines m ON m.id = a.machine_id \
                   WHERE m.id <> $1 AND m.account_id = (SELECT account_id FROM machines WHERE id = $1) \
                   AND a.revoked_at IS NULL AND a.connected_at < now() - make_interval(secs => $2) \
                   AND a.last_seen_at > now() - interval '1 minute' LIMIT 1";
        let values = [machine.uuid().into(), long.as_seconds_f64().into()];
        Ok(self.row("look for other agents", sql, values).await?.is_some())
    }

    /// The machine's team and wish, still sealed; `None` when there is none.
    ///
    /// # Errors
    /// The database's error.
    pub async fn find_wish(&self, machine: MachineId) -> Result<Option<(TeamId, SealedWish)>> {
        let sql = "SELECT m.team_id, a.desired_generation, a.desired_sealed FROM agent_connections a \
                   JOIN machines m ON m.id = a.machine_id \
                   WHERE a.machine_id = $1 AND a.desired_sealed IS NOT NULL";
        let found = self.row("read a machine's wish", sql, [machine.uuid().into()]).await?;
        let Some(row) = found else { return Ok(None) };
        let generation = row.get::<i64>("desired_generation")?.unsigned_abs();
        let wish = SealedWish { generation, sealed: row.get("desired_sealed")? };
        Ok(Some((TeamId::from_uuid(row.get("team_id")?), wish)))
    }
}

impl Tx {
    /// Stores a wish and tells every hub (channel `agent_desired`). Stale when the same generation or a newer one is
    /// there already, or the agent is revoked.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the machine's enrolment was never prepared.
    pub async fn set_wish(&self, machine: MachineId, wish: &SealedWish) -> Result<Outcome> {
        let doing = "store a machine's wish";
        let Ok(generation) = i64::try_from(wish.generation) else { return Ok(Outcome::Stale) };
        let sql = "UPDATE agent_connections SET desired_generation = $2, desired_sealed = $3 \
                   WHERE machine_id = $1 AND desired_generation < $2 AND revoked_at IS NULL";
        let values = [machine.uuid().into(), generation.into(), wish.sealed.clone().into()];
        if self.run(doing, sql, values).await? == 1 {
            self.run(doing, NOTIFY_HUBS, []).await?;
            return Ok(Outcome::Written);
        }
        let sql = "SELECT 1 FROM agent_connections WHERE machine_id = $1";
        match self.row(doing, sql, [machine.uuid().into()]).await? {
            Some(_) => Ok(Outcome::Stale),
            None => Err(StoreError::NotFound("agent")),
        }
    }

    /// Ends the machine's credential for good, and forgets its wish, which holds secrets. Repeating it, or an
    /// unknown machine, changes nothing.
    ///
    /// # Errors
    /// The database's error.
    pub async fn revoke_agent(&self, machine: MachineId) -> Result<()> {
        let doing = "revoke an agent";
        let sql = "UPDATE agent_connections SET revoked_at = now(), desired_sealed = NULL \
                   WHERE machine_id = $1 AND revoked_at IS NULL";
        if self.run(doing, sql, [machine.uuid().into()]).await? == 1 {
            let sql = "UPDATE log_streams SET closed_at = now() WHERE machine_id = $1 AND closed_at IS NULL";
            self.run(doing, sql, [machine.uuid().into()]).await?;
            self.run(doing, NOTIFY_HUBS, []).await?;
        }
        Ok(())
    }

    /// Accepts a connection: its number, or `None` when the agent may not connect (never enrolled, another key
    /// since, revoked, or its machine is not wanted). The statement orders competing connections, also across
    /// replicas.
    ///
    /// # Errors
    /// The database's error.
    pub async fn accept_connection(&self, machine: MachineId, public_key: &[u8], hub_id: &str) -> Result<Option<u64>> {
        let doing = "accept an agent's connection";
        let sql = "UPDATE agent_connections a SET conn_epoch = conn_epoch + 1, hub_id = $3, connected_at = now(), \
                   last_seen_at = now() FROM machines m \
                   WHERE a.machine_id = $1 AND m.id = a.machine_id \
                   AND a.public_key = $2 AND a.enrolled_at IS NOT NULL AND a.revoked_at IS NULL \
                   AND m.desired = 'present' RETURNING a.conn_epoch";
        let values = [machine.uuid().into(), public_key.to_vec().into(), hub_id.into()];
        let Some(row) = self.row(doing, sql, values).await? else { return Ok(None) };
        self.run(doing, NOTIFY_HUBS, []).await?;
        Ok(Some(row.get::<i64>("conn_epoch")?.unsigned_abs()))
    }
}

fn agent(row: &Row, machine: MachineId) -> Result<Agent> {
    let role: String = row.get("role")?;
    let desired: String = row.get("desired")?;
    let environment: Option<uuid::Uuid> = row.get("env_id")?;
    Ok(Agent {
        machine,
        team: TeamId::from_uuid(row.get("team_id")?),
        project: ProjectId::from_uuid(row.get("project_id")?),
        environment: environment.map(EnvironmentId::from_uuid),
        role: word::parse("machines", machine, "role", &role)?,
        wanted: desired == "present",
        return_until: row.get("return_until")?,
        enrolled_at: row.get("enrolled_at")?,
        public_key: row.get("public_key")?,
        conn_epoch: row.get::<i64>("conn_epoch")?.unsigned_abs(),
        hub_id: row.get("hub_id")?,
        connected_at: row.get("connected_at")?,
        last_seen_at: row.get("last_seen_at")?,
        revoked_at: row.get("revoked_at")?,
        suspect_at: row.get("suspect_at")?,
        desired_generation: row.get::<i64>("desired_generation")?.unsigned_abs(),
        observed_generation: row.get::<i64>("observed_generation")?.unsigned_abs(),
        observed: word::json("agent_connections", machine, "observed", row.get("observed")?)?,
    })
}
