//! The one-time exchange of a token for a key.

use chrono::TimeDelta;
use stagely_domain::id::MachineId;

use crate::work::kind;
use crate::{Result, StoreError, Tx};

/// What became of a preparation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prepared {
    /// The token may be used until the new deadline.
    Open,
    /// It was used, or the agent revoked, already: the token stays as worthless as it was.
    Closed,
}

/// What became of an enrolment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enrolled {
    /// The key is the machine's now.
    First,
    /// The same key had won before: its holder lost our answer.
    Again,
    /// The token is right, but another key has used it: the machine is marked as suspect.
    Stolen,
    /// Wrong token, unknown machine, too late or not wanted: which one is nobody's business.
    Refused,
}

impl Tx {
    /// Opens the enrolment of a machine for `window`, or extends it while the token is unused. An agent that has
    /// enrolled may within `window` come back with a credential that ran out, while its machine slept, say.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such machine.
    pub async fn prepare_enrolment(
        &self,
        machine: MachineId,
        token_hash: &[u8; 32],
        window: TimeDelta,
    ) -> Result<Prepared> {
        let doing = "prepare an enrolment";
        let sql = "INSERT INTO agent_connections AS a (machine_id, enrol_token_hash, enrol_deadline) \
                   SELECT m.id, $2, now() + make_interval(secs => $3) FROM machines m WHERE m.id = $1 \
                   ON CONFLICT (machine_id) DO UPDATE SET enrol_token_hash = EXCLUDED.enrol_token_hash, \
                   enrol_deadline = EXCLUDED.enrol_deadline WHERE a.enrolled_at IS NULL AND a.revoked_at IS NULL";
        let values = [machine.uuid().into(), token_hash.to_vec().into(), secs(window).into()];
        if self.run(doing, sql, values).await? == 1 {
            return Ok(Prepared::Open);
        }
        let sql = "UPDATE agent_connections SET return_until = CASE WHEN revoked_at IS NULL \
                   THEN now() + make_interval(secs => $2) END WHERE machine_id = $1";
        match self.run(doing, sql, [machine.uuid().into(), secs(window).into()]).await? {
            0 => Err(StoreError::NotFound("machine")),
            _ => Ok(Prepared::Closed),
        }
    }

    /// Gives the machine to `public_key` if the token is right and unused. One statement decides, so of any
    /// number of attempts at once exactly one wins. Wakes the machine's reconciler when something changed.
    ///
    /// # Errors
    /// The database's error.
    pub async fn enrol(
        &self,
        machine: MachineId,
        token_hash: &[u8; 32],
        public_key: &[u8],
        certificate_sha256: &[u8; 32],
    ) -> Result<Enrolled> {
        let doing = "enrol an agent";
        let sql = "UPDATE agent_connections a SET enrolled_at = now(), public_key = $3, ingress_cert_sha256 = $4, \
                   last_seen_at = now() FROM machines m \
                   WHERE a.machine_id = $1 AND m.id = a.machine_id \
                   AND a.enrol_token_hash = $2 AND a.enrolled_at IS NULL AND a.revoked_at IS NULL \
                   AND a.enrol_deadline > now() AND m.desired = 'present'";
        let values = [
            machine.uuid().into(),
            token_hash.to_vec().into(),
            public_key.to_vec().into(),
            certificate_sha256.to_vec().into(),
        ];
        if self.run(doing, sql, values).await? == 1 {
            self.wake(kind::MACHINE, machine.uuid()).await?;
            return Ok(Enrolled::First);
        }
        let sql = "SELECT a.public_key = $3 AS same FROM agent_connections a JOIN machines m ON m.id = a.machine_id \
                   WHERE a.machine_id = $1 AND a.enrol_token_hash = $2 AND a.enrolled_at IS NOT NULL \
                   AND a.revoked_at IS NULL AND a.enrol_deadline > now() AND m.desired = 'present'";
        let values = [machine.uuid().into(), token_hash.to_vec().into(), public_key.to_vec().into()];
        let Some(row) = self.row(doing, sql, values).await? else { return Ok(Enrolled::Refused) };
        if row.get("same")? {
            return Ok(Enrolled::Again);
        }
        let sql = "UPDATE agent_connections SET suspect_at = now() WHERE machine_id = $1 AND suspect_at IS NULL";
        if self.run(doing, sql, [machine.uuid().into()]).await? == 1 {
            self.wake(kind::MACHINE, machine.uuid()).await?;
        }
        Ok(Enrolled::Stolen)
    }

    /// Notes which certificate the machine's ingress shows from now on.
    ///
    /// # Errors
    /// The database's error.
    pub async fn note_ingress_certificate(&self, machine: MachineId, sha256: &[u8; 32]) -> Result<()> {
        let sql = "UPDATE agent_connections SET ingress_cert_sha256 = $2 WHERE machine_id = $1";
        let values = [machine.uuid().into(), sha256.to_vec().into()];
        self.run("note an ingress certificate", sql, values).await.map(drop)
    }
}

#[expect(clippy::cast_precision_loss, reason = "windows are minutes, far below 2^52 seconds")]
fn secs(window: TimeDelta) -> f64 {
    window.num_seconds() as f64
}
