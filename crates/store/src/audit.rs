//! Who did what. Rows are only ever added.

use stagely_domain::id::TeamId;
use uuid::Uuid;

use crate::{Result, Tx};

/// One line of the audit log.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    /// The team it concerns; `None` for the installation itself.
    pub team: Option<TeamId>,
    /// `token`, `user` or `system`.
    pub actor_kind: &'static str,
    /// The actor's id.
    pub actor: String,
    /// What was done: `environment.destroy`, say.
    pub action: &'static str,
    /// What it was done to: `environment`, say.
    pub target_kind: &'static str,
    /// The target's id.
    pub target: String,
    /// More facts, never secrets.
    pub detail: serde_json::Value,
}

impl Tx {
    /// Adds a line in the same transaction as the change that it tells of.
    ///
    /// # Errors
    /// The database's error.
    pub async fn audit(&self, entry: AuditEntry) -> Result<()> {
        let sql = "INSERT INTO audit_logs (id, team_id, actor_kind, actor, action, target_kind, target, detail) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let values = [
            Uuid::now_v7().into(),
            entry.team.map(TeamId::uuid).into(),
            entry.actor_kind.into(),
            entry.actor.into(),
            entry.action.into(),
            entry.target_kind.into(),
            entry.target.into(),
            entry.detail.into(),
        ];
        self.run("write an audit line", sql, values).await.map(drop)
    }
}
